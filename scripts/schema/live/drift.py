"""`schema drift`: compare a live database with the history at its revision.

The database is only read. The history is built on an embedded server.
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
    """The result of `compare`."""

    live: Live
    compared_on: str
    """The version of the embedded server."""
    found: Comparison

    @property
    def limitations(self) -> list[str]:
        """One sentence per thing that the role could not read."""
        if self.live.recorded.unreadable is None:
            return []
        return [
            f"The revision could not be read ({self.live.recorded.unreadable}); the schema was"
            " compared with the nearest one."
        ]


def read_database(target: URL, scripts: ScriptDirectory) -> Live:
    """Read a live database's schema and revision, in read-only transactions.

    Raises:
        CannotRunError: it cannot be read or records no revision, or the history is not linear.

    """
    history_schemas.require_linear_history(scripts)
    live = read.read_twice(target, read.read_live)
    if live.recorded.unreadable is None and not live.recorded.revisions:
        table = live.recorded.table
        what = "Alembic's table is empty" if table else "there is no table alembic_version"
        raise CannotRunError(
            f"The database records no revision: {what} ({live.where}); if it has the tables, run"
            " schema adopt, otherwise deploy it."
        )
    return live


def compare(live: Live, server: Server, history: Mapping[str, snapshot.Snapshot]) -> Drift:
    """Compare a live database with the history that was built on `server`.

    Raises:
        CannotRunError: the database records several revisions, or one that the history lacks.

    """
    found = comparison.compare(live, history)
    if live.recorded.unreadable is None and found.revision is None:
        raise CannotRunError(
            f"{comparison.sentence(found)} ({live.where}); {comparison.advice(found)}."
        )
    return Drift(live, server.version, found)
