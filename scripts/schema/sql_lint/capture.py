"""The SQL that each revision really executes, and the SQL that `--sql` shows for it.

They are not always the same: offline, Alembic takes a colon in a literal for a parameter and turns
tabs into blanks, and what a revision reads from the database it cannot read.
"""

import io
import traceback
from collections.abc import Iterator
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
    """One statement, as the server gets it."""

    sql: str
    line: int
    """The line of the revision's file that executes it."""
    written: bool
    """Whether a person wrote the SQL; SQLAlchemy renders the rest."""
    in_transaction: bool
    parametrised: bool
    """Whether it had parameters; they are written into `sql`."""


@dataclass(frozen=True)
class Direction:
    """What one revision executes on its way up or down."""

    revision: Script
    upgrade: bool
    statements: list[Statement]


def record(connection: Connection, scripts: ScriptDirectory) -> list[Direction]:
    """Run the history up and down on an empty database, and record what each revision executes."""
    recorded = []
    revisions = revisions_oldest_first(scripts)
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
    """Render one revision as `--sql` does: what somebody would run by hand."""
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
    """Record what the revision's own code executes, and not Alembic's bookkeeping."""
    recorded: list[Statement] = []

    def note(_connection: object, _cursor: object, sql: str, *rest: Any) -> None:  # noqa: ANN401
        # ANN401: the rest is the event's (parameters, context, whether there are many of them).
        parameters, context, many = rest
        place = _line_in(revision.path)
        if place is None:
            return
        driver: Any = connection.connection.driver_connection
        compiled = getattr(context, "compiled", None)
        plain = sql.replace("%%", "%")  # the driver is given them doubled
        recorded.extend(
            Statement(
                psycopg.ClientCursor(driver).mogrify(sql, one) if one else plain,
                place,
                written=compiled is None or isinstance(compiled.statement, TextClause),
                in_transaction=not getattr(driver, "autocommit", False),
                parametrised=bool(one),
            )
            for one in (parameters if many else [parameters])
        )

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield recorded
    finally:
        event.remove(connection, "before_cursor_execute", note)


def _line_in(path: str) -> int | None:
    """Find the line of that file that is being executed further up the stack, if one is."""
    for frame, number in traceback.walk_stack(None):
        if frame.f_code.co_filename == path:
            return number
    return None
