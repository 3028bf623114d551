"""Bring a database to a schema, and keep the statements that did it, in an order that works."""

from collections.abc import Sequence
from typing import Any

import psycopg
from sqlalchemy import Connection

from migrations import snapshot
from migrations.snapshot import Snapshot
from schema.live.sql.definition import Names
from schema.live.sql.steps import Step, steps

SETTINGS = "SET LOCAL row_security = off; SET LOCAL search_path = public, pg_temp"
"""What the statements rely on: a guard that saw no hidden row would let it be dropped."""

_ROUNDS = 4
"""A step may change more than its part: a new owner, for example, changes privileges."""


def reach(
    connection: Connection, target: Snapshot, names: Names, shown: Names | None = None
) -> list[Step]:
    """Change the schema into `target` in the connection's transaction; return the steps taken.

    They are written with the names in `shown`: those of another database. Compare the schema
    afterwards: there may be no statement for a part of the difference.
    """
    taken: list[Step] = []
    for _ in range(_ROUNDS):
        found = snapshot.read(connection, version_table=True)
        if found == target:
            break
        planned = steps(found, target, names)
        done = _apply(connection, planned, names)
        if not done:
            break
        written = dict(zip(planned, steps(found, target, shown or names), strict=True))
        taken += [written[step] for step in done if written[step] not in taken]
    return taken


def _apply(connection: Connection, planned: Sequence[Step], names: Names) -> list[Step]:
    """Execute the steps; return those that succeeded, in the order in which they did.

    A step that fails is tried again after the others: it may need one of them.
    """
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.execute(SETTINGS)
    done: list[Step] = []
    waiting = [step for step in planned if step.statements]
    while waiting:
        failed: list[Step] = []
        for step in waiting:
            (done if _execute(driver, step, names) else failed).append(step)
        if len(failed) == len(waiting):
            break
        waiting = failed
    return done


def _execute(driver: Any, step: Step, names: Names) -> bool:  # noqa: ANN401  # psycopg's connection
    """Execute a step as the owner, or else as the session's own role, which may do more."""
    for role in (names.owner, "NONE"):
        try:
            with driver.transaction(), driver.cursor() as cursor:
                cursor.execute(f"SET LOCAL ROLE {role}")
                for statement in step.statements:
                    cursor.execute(statement)
                cursor.execute("SET LOCAL ROLE NONE")
        except psycopg.Error:
            continue
        return True
    return False
