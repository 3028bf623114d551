"""`schema drift`: whether a live database still is what the history builds at its revision.

The database is only read. What it is compared with is built elsewhere, on an embedded server.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from alembic.script import ScriptDirectory
from sqlalchemy import URL

from migrations import snapshot
from schema.errors import CannotRunError
from schema.live import comparison, history_schemas, read
from schema.live.comparison import Comparison
from schema.live.read import Live
from schema.postgres.scratch import Server


@dataclass(frozen=True)
class Drift:
    """What the comparison found."""

    live: Live
    compared_on: str
    """The version of the embedded server."""
    found: Comparison

    @property
    def limitations(self) -> list[str]:
        """What the role could not see, and what was done instead: a sentence each."""
        if self.live.recorded.unreadable is None:
            return []
        return [
            f"The revision could not be read ({self.live.recorded.unreadable}): compared with the"
            " nearest one."
        ]


def look(target: URL, scripts: ScriptDirectory) -> Live:
    """Read a live database's schema and revision, in read-only transactions.

    Raises:
        CannotRunError: there is nothing to compare it with, or it cannot be read.

    """
    history_schemas.require_linear_history(scripts)
    live = read.read_twice(target, read.look)
    if live.recorded.unreadable is None and not live.recorded.revisions:
        table = live.recorded.table
        what = "Alembic's table is empty" if table else "there is no table alembic_version"
        raise CannotRunError(
            f"The database records no revision, {what} ({live.where}); if it has the tables, run"
            " schema adopt, otherwise deploy it."
        )
    return live


def compare(live: Live, server: Server, history: Mapping[str, snapshot.Snapshot]) -> Drift:
    """Compare what a live database showed with the history that was built on that server.

    Raises:
        CannotRunError: the database records several revisions, or one that the history lacks.

    """
    found = comparison.compare(live, history)
    if live.recorded.unreadable is None and found.revision is None:
        raise CannotRunError(
            f"{comparison.statement(found)} ({live.where}); {comparison.advice(found)}."
        )
    return Drift(live, server.version, found)
