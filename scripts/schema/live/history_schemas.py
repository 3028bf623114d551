"""The history that a live database is compared with: its fingerprints, or built on a server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from alembic.script import ScriptDirectory
from sqlalchemy import URL

from migrations import snapshot
from migrations.deploy import verification
from migrations.snapshot import Snapshot
from migrations.snapshot.fingerprints import BASE, History
from schema.errors import CannotRunError
from schema.live.read import Live, major
from schema.postgres.connection import connect, describe_error
from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import Server, open_server
from schema.revisions.history import is_linear, revisions_oldest_first
from schema.revisions.runner import upgrade
from schema.text import pluralize


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


def committed(scripts: ScriptDirectory) -> History:
    """Return the fingerprints of this checkout's history.

    Raises:
        CannotRunError: the history is not linear, or the file is another history's.

    """
    names = require_linear_history(scripts)
    history = verification.committed_history()
    if list(history) != [BASE, *names]:
        raise CannotRunError(
            "migrations/fingerprints.txt is not that of this checkout's revisions; run schema"
            " snapshot."
        )
    return history


class Copy(NamedTuple):
    """A scratch database with the history up to a revision."""

    owner: URL
    superuser: URL
    """The same as `owner` where no superuser is known."""
    schema: Snapshot
    """What the history builds, with Alembic's table."""


@contextmanager
def at_revision(server: Server, scripts: ScriptDirectory, revision: str) -> Iterator[Copy]:
    """Make a scratch database with the history up to a revision, or BASE, for a block.

    Raises:
        CannotRunError: a revision fails.

    """
    names = [BASE, *require_linear_history(scripts)]
    with server.database() as scratch:
        with connect(scratch) as connection:
            try:
                upgrade(connection, scripts, [*names[: names.index(revision) + 1]])
            except Exception as error:  # a revision may raise anything
                raise CannotRunError(
                    f"The history does not build ({describe_error(error)}); run schema check."
                ) from error
            connection.commit()
            schema = snapshot.read(connection, version_table=True)
        superuser = server.superuser or scratch
        yield Copy(scratch, superuser.set(database=scratch.database), schema)


def describe_distance(head: str, behind: int) -> str:
    """Describe the distance to the head, in a clause."""
    if not behind:
        return "that is the head"
    return f"the head, {head}, is {pluralize(behind, 'revision')} further"
