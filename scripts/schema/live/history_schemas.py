"""Build the schema at each revision on an embedded server, and compare schemas with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory

from migrations import snapshot
from schema.errors import CannotRunError
from schema.live.read import Live, major
from schema.postgres.connection import connect, describe_error
from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import Server, open_server
from schema.revisions.history import is_linear, revisions_oldest_first
from schema.revisions.runner import run, upgrade_step
from schema.text import pluralize

BASE = "base"
"""Alembic's name for the state before the first revision."""


def closest_embedded_version(shown: str) -> int:
    """The embedded version to compare a server with: the same major version, or the newest."""
    return major(shown) if major(shown) in VERSIONS else VERSIONS[0]


@contextmanager
def open_closest_server(live: Live, progress: Callable[[str], None]) -> Iterator[Server]:
    """Open the embedded server on which the history is built for a comparison with `live`."""
    with open_server(None, closest_embedded_version(live.server), progress) as server:
        progress("the history")
        yield server


def require_linear_history(scripts: ScriptDirectory) -> list[str]:
    """Return the revisions, oldest first.

    Raises:
        CannotRunError: the files cannot be read, or the history is not linear.

    """
    if not is_linear(scripts):
        raise CannotRunError(
            "The revision files of this checkout cannot be read, or the history is not linear; run"
            " schema check."
        )
    return [revision.revision for revision in revisions_oldest_first(scripts)]


def build(server: Server, scripts: ScriptDirectory) -> Mapping[str, snapshot.Snapshot]:
    """Build the history, and read the schema at BASE and at each revision, oldest first.

    Raises:
        CannotRunError: a revision fails.

    """
    built: dict[str, snapshot.Snapshot] = {}
    with (
        server.database() as scratch,
        connect(scratch) as connection,
        connect(scratch, autocommit=True) as observer,
    ):

        def steps(_context: MigrationContext) -> Iterator[MigrationStep]:
            # Alembic has made its table, perhaps without a commit: `observer` may not see it.
            built[BASE] = snapshot.read(connection, version_table=True)
            for revision in revisions_oldest_first(scripts):
                yield upgrade_step(scripts, revision)
                # Alembic resumes this generator after it has committed the step.
                built[revision.revision] = snapshot.read(observer, version_table=True)

        try:
            run(connection, scripts, steps)
        except Exception as error:  # a revision may raise anything
            raise CannotRunError(
                f"The history does not build ({describe_error(error)}); run schema check."
            ) from error
    return built


def distance(one: snapshot.Snapshot, other: snapshot.Snapshot) -> int:
    """Count the facts that only one of two schemas has."""
    return len(set(one) ^ set(other))


def nearest(
    history: Mapping[str, snapshot.Snapshot], found: snapshot.Snapshot, recorded: str | None = None
) -> str:
    """Return the revision whose schema differs in the fewest facts.

    Of several, it is the recorded one, or else the latest one.
    """
    latest = list(history)[::-1]
    preferred = [one for one in latest if one == recorded] + latest
    return min(preferred, key=lambda revision: distance(history[revision], found))


def without_schema_change(
    history: Mapping[str, snapshot.Snapshot], revisions: Sequence[str]
) -> list[str]:
    """Return the revisions whose schema equals that of the revision before them.

    `revisions` are successive; the first one is never returned.
    """
    return [one for before, one in pairwise(revisions) if history[before] == history[one]]


def describe_distance(head: str, behind: int) -> str:
    """Describe the distance to the head, in a clause."""
    if not behind:
        return "that is the head"
    return f"the head, {head}, is {pluralize(behind, 'revision')} further"
