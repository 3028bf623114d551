"""The SQL that each revision executes, and the SQL that `--sql` shows for it.

They can differ: with `--sql` Alembic treats a colon in a literal as a parameter and replaces tabs
with blanks, and a revision cannot read the database.
"""

import io
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, TextClause, event

from schema.project import config
from schema.revisions.history import is_irreversible, revisions_oldest_first
from schema.revisions.runner import downgrade_step, run, upgrade_step


@dataclass(frozen=True)
class Statement:
    """One statement, as the driver sends it."""

    sql: str
    line: int
    """The line of the revision file that executes it."""
    hand_written: bool
    """Whether a person wrote the SQL; otherwise SQLAlchemy rendered it."""
    in_transaction: bool
    parametrised: bool
    """Whether it had parameters; `sql` contains their values."""


@dataclass(frozen=True)
class Direction:
    """The statements of one revision's upgrade or downgrade."""

    revision: Script
    upgrade: bool
    statements: list[Statement]


def record(
    connection: Connection, scripts: ScriptDirectory, only: Collection[str] | None = None
) -> list[Direction]:
    """Upgrade and downgrade an empty database, and record the statements of each revision.

    With `only`, run these revisions: the next ones of the database.
    """
    recorded = []
    revisions = [
        one for one in revisions_oldest_first(scripts) if only is None or one.revision in only
    ]
    undone = []
    for revision in reversed(revisions):
        if is_irreversible(revision):
            break
        undone.append(revision)

    def steps(_context: MigrationContext) -> Iterator[MigrationStep]:
        for upgrade, ordered in ((True, revisions), (False, undone)):
            for revision in ordered:
                with _recording(connection, revision) as statements:
                    yield (upgrade_step if upgrade else downgrade_step)(scripts, revision)
                recorded.append(Direction(revision, upgrade, statements))

    run(connection, scripts, steps)
    return recorded


def offline(scripts: ScriptDirectory, revision: Script, *, upgrade: bool) -> str:
    """Render one revision as `alembic upgrade --sql` or `downgrade --sql` does."""
    output = io.StringIO()
    settings = config()
    settings.output_buffer = output
    step = (upgrade_step if upgrade else downgrade_step)(scripts, revision)
    start = revision.down_revision if upgrade else revision.revision
    with EnvironmentContext(
        settings, scripts, fn=lambda *_: [step], as_sql=True, starting_rev=start or "base"
    ):
        scripts.run_env()
    return output.getvalue()


@contextmanager
def _recording(connection: Connection, revision: Script) -> Iterator[list[Statement]]:
    """Record the statements of the revision's code, without those of Alembic."""
    recorded: list[Statement] = []

    def add(_connection: object, _cursor: object, sql: str, *rest: Any) -> None:  # noqa: ANN401
        # ANN401: the event passes them.
        parameters, context, executemany = rest
        line = line_in(revision.path)
        if line is None:
            return
        driver: Any = connection.connection.driver_connection
        compiled = getattr(context, "compiled", None)
        plain = sql.replace("%%", "%")  # SQLAlchemy doubles per cent signs for the driver
        recorded.extend(
            Statement(
                psycopg.ClientCursor(driver).mogrify(sql, one) if one else plain,
                line,
                hand_written=compiled is None or isinstance(compiled.statement, TextClause),
                in_transaction=not getattr(driver, "autocommit", False),
                parametrised=bool(one),
            )
            for one in (parameters if executemany else [parameters])
        )

    event.listen(connection, "before_cursor_execute", add)
    try:
        yield recorded
    finally:
        event.remove(connection, "before_cursor_execute", add)


def line_in(path: str) -> int | None:
    """Return the line of that file in the call stack, or None."""
    for frame, number in traceback.walk_stack(None):
        if frame.f_code.co_filename == path:
            return number
    return None
