"""Bring a database to a schema, and keep the statements that did it, in an order that works."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg.pq import ExecStatus
from sqlalchemy import Connection

from migrations import snapshot
from migrations.postgres import first_error_line
from migrations.snapshot import Snapshot
from schema.ddl.definition import CURRENT_USER, Names
from schema.ddl.dependents import in_the_way
from schema.ddl.steps import Step, steps
from schema.postgres.connection import driver_of

SETTINGS = (
    "SET LOCAL row_security = off",
    "SET LOCAL search_path = public, pg_temp",
    "SET LOCAL statement_timeout = '60s'",
)
"""What the statements rely on: a guard that saw no hidden row would let it be dropped."""

_SESSION = ("SET search_path = public, pg_temp", "SET statement_timeout = '60s'")

_ROUNDS = 4
"""A step may change more than its part: a new owner, for example, changes privileges."""

_RUNS_NO_CODE = re.compile(
    r"(GRANT|REVOKE|ALTER ROLE|CREATE ROLE|COMMENT ON ROLE|ALTER DEFAULT PRIVILEGES"
    r"|(ALTER|COMMENT ON) EVENT TRIGGER) "
    r"|ALTER [A-Z ]+ \S.* OWNER TO \S+$|ALTER TABLE \S+ (ENABLE|DISABLE) TRIGGER ALL$"
)
"""What a superuser may execute although the names in it come from a live database: it calls none of
its functions. A function that a superuser called could leave the role that was set."""


_OWN_NAMES = """
SELECT quote_ident(datname), quote_ident(pg_get_userbyid(datdba))
FROM pg_database WHERE datname = current_database()
"""


@dataclass
class Reached:
    """What was done to reach a schema."""

    taken: list[Step] = field(default_factory=list)
    """The steps that succeeded, in the order in which they did."""
    errors: dict[Step, str] = field(default_factory=dict)
    """Of the others, PostgreSQL's message."""


@dataclass(frozen=True)
class Sessions:
    """The connections to a database that is changed."""

    owner: Connection
    """As the database's owner, or a role that may SET ROLE to it."""
    superuser: Connection | None = None
    """It executes only what calls no function of the database, and must see what the owner has
    done: in autocommit mode and outside the owner's transaction, or as the same connection."""


def reach(
    sessions: Sessions, target: Snapshot, names: Names, shown: Names | None = None
) -> Reached:
    """Change the schema into `target`, and return the steps.

    They are written with the names in `shown`: those of another database. Compare the schema
    afterwards: there may be no statement for a part of the difference.
    """
    result = Reached()
    for _ in range(_ROUNDS):
        found = snapshot.read(sessions.owner, version_table=True)
        if found == target:
            break
        planned = steps(found, target, names)
        done, errors = _apply(sessions, planned, names)
        result.errors = {step: first_error_line(error) for step, error in errors.items()}
        written = dict(zip(planned, steps(found, target, shown or names), strict=True))
        result.taken += [
            written[one] for one in done if written[one] not in result.taken or not names.guarded
        ]
        if not names.guarded:
            cleared, _ = _apply(sessions, in_the_way(sessions.owner, errors, names), names)
            result.taken += cleared
            done += cleared
        if not done:
            break
    result.taken = [
        step
        for number, step in enumerate(result.taken)
        if not any(_drops(later, step) for later in result.taken[number + 1 :])
    ]
    return result


def _drops(later: Step, step: Step) -> bool:
    """Whether a later step drops what a step changes, so that the change was no use.

    A step that drops something may have made the later one possible.
    """
    return (
        later.object == step.object
        and later.part in {"", "definition"}
        and bool(step.part)
        and not any("DROP " in one for one in step.statements)
        and any(one.startswith("DROP ") for one in later.statements)
    )


def own_names(connection: Connection) -> Names:
    """Return the names of the connection's database and of its owner."""
    row = driver_of(connection).execute(_OWN_NAMES).fetchone()
    if row is None:
        raise LookupError("the database has no row in pg_database")
    return Names(*row)


def execute(connection: Connection, *statements: str) -> None:
    """Execute statements in a transaction of their own, or in a savepoint.

    Raises:
        psycopg.Error: one of them failed; none has an effect.

    """
    driver = driver_of(connection)
    with driver.transaction(), driver.cursor() as cursor:
        for statement in (*SETTINGS, *statements):
            cursor.execute(statement.encode())


def execute_single(superuser: Connection, statements: Sequence[str]) -> bool:
    """Execute statements as a superuser, each alone; whether all of them succeeded.

    The extended protocol allows one command in a statement: no second one can hide in a value.
    """
    driver = driver_of(superuser)
    for statement in (*_SESSION, *statements):
        result = driver.pgconn.exec_params(statement.encode(), None)
        if result.status != ExecStatus.COMMAND_OK:
            return False
    return True


def _apply(
    sessions: Sessions, planned: Sequence[Step], names: Names
) -> tuple[list[Step], dict[Step, psycopg.Error]]:
    """Execute the steps; return those that succeeded, and the errors of the others.

    A step that fails is tried again after the others: it may need one of them.
    """
    done: list[Step] = []
    waiting = [step for step in planned if step.statements]
    while True:
        errors: dict[Step, psycopg.Error] = {}
        for step in waiting:
            error = _execute(sessions, step, names)
            if error is None:
                done.append(step)
            else:
                errors[step] = error
        if not errors or len(errors) == len(waiting):
            return done, errors
        waiting = list(errors)


def _execute(sessions: Sessions, step: Step, names: Names) -> psycopg.Error | None:
    """Execute a step as the owner, or else as a superuser; return the owner's error or None."""
    acting = (f"SET LOCAL ROLE {names.owner}",) if names.owner != CURRENT_USER else ()
    try:
        execute(sessions.owner, *acting, *step.statements, *(("SET ROLE NONE",) if acting else ()))
    except psycopg.Error as error:
        failed = error
    else:
        return None
    if sessions.superuser is None or not all(map(_RUNS_NO_CODE.match, step.statements)):
        return failed
    return None if execute_single(sessions.superuser, step.statements) else failed
