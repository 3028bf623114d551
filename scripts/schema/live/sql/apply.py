"""Bring a database to a schema, and keep the statements that did it, in an order that works."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy import Connection

from migrations import snapshot
from migrations.postgres import first_error_line
from migrations.snapshot import Snapshot
from schema.live.sql.definition import Names
from schema.live.sql.steps import Step, steps
from schema.postgres.connection import driver_of

SETTINGS = "SET LOCAL row_security = off; SET LOCAL search_path = public, pg_temp"
"""What the statements rely on: a guard that saw no hidden row would let it be dropped."""

_BACK = "SET LOCAL ROLE NONE"

_ROUNDS = 4
"""A step may change more than its part: a new owner, for example, changes privileges."""


@dataclass
class Reached:
    """What was done to reach a schema."""

    taken: list[Step] = field(default_factory=list)
    """The steps that succeeded, in the order in which they did."""
    errors: dict[Step, str] = field(default_factory=dict)
    """Of the others, PostgreSQL's message."""


def reach(
    connection: Connection, target: Snapshot, names: Names, shown: Names | None = None
) -> Reached:
    """Change the schema into `target` in the connection's transaction, and return the steps.

    They are written with the names in `shown`: those of another database. Compare the schema
    afterwards: there may be no statement for a part of the difference.
    """
    result = Reached()
    for _ in range(_ROUNDS):
        found = snapshot.read(connection, version_table=True)
        if found == target:
            break
        planned = steps(found, target, names)
        done, result.errors = _apply(connection, planned, names)
        if not done:
            break
        written = dict(zip(planned, steps(found, target, shown or names), strict=True))
        result.taken += [written[one] for one in done if written[one] not in result.taken]
    return result


def _apply(
    connection: Connection, planned: Sequence[Step], names: Names
) -> tuple[list[Step], dict[Step, str]]:
    """Execute the steps; return those that succeeded, and the errors of the others.

    A step that fails is tried again after the others: it may need one of them.
    """
    driver = driver_of(connection)
    driver.execute(SETTINGS)
    done: list[Step] = []
    waiting = [step for step in planned if step.statements]
    while True:
        errors: dict[Step, str] = {}
        for step in waiting:
            error = _execute(driver, step, names)
            if error is None:
                done.append(step)
            else:
                errors[step] = error
        if not errors or len(errors) == len(waiting):
            return done, errors
        waiting = list(errors)


def _execute(driver: psycopg.Connection[Any], step: Step, names: Names) -> str | None:
    """Execute a step as the owner, or else as the session's own role, which may do more.

    Return the owner's error if neither may.
    """
    errors = []
    for role in (names.owner, "NONE"):
        try:
            with driver.transaction(), driver.cursor() as cursor:
                for statement in (f"SET LOCAL ROLE {role}", *step.statements, _BACK):
                    cursor.execute(statement.encode())
        except psycopg.Error as error:
            errors.append(first_error_line(error))
            continue
        return None
    return errors[0]
