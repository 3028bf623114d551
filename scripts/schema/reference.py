"""What a live database is compared with: the schema at each revision, built on an embedded server.

Nothing is built on the live database's own server, and of it nothing is asked but to be read: in
one transaction, which is read only and whose settings end with it, so that a pooler that hands
connections around is as good as a direct one.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from migrations import snapshot
from migrations.deploy.obstacles import OLDEST

from .alembic_run import line, run, up
from .database import connect, describe, place, reason
from .embedded import VERSIONS
from .errors import CannotRunError
from .history import readable_line
from .ownership import APPLICATION
from .proof import counted
from .server import Server

BOOKKEEPING = "table alembic_version"
"""The heading of Alembic's own table."""

# A reader waits for who alters a table just now, a deploy perhaps, but not for ever.
_PATIENCE = "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '60s'"


@dataclass(frozen=True)
class Recorded:
    """What a database says about its own revision."""

    table: bool
    """Whether it has Alembic's table."""
    revisions: tuple[str, ...] = ()
    unreadable: str | None = None
    """Why the table could not be read, as PostgreSQL puts it."""


@contextmanager
def read_only(url: URL) -> Iterator[Connection]:
    """Open one transaction in which nothing can be written, and which sees one state throughout.

    Raises:
        CannotRunError: no connection could be made.

    """
    with connect(in_utf8(url)) as connection:
        connection.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        ).exec_driver_sql(_PATIENCE)
        yield connection


def in_utf8(url: URL) -> URL:
    """Speak UTF-8 with the server: in SQL_ASCII the driver could not even read its version."""
    return url.update_query_dict({"client_encoding": "utf8"})


def version(connection: Connection) -> str:
    """The server's own version, such as 17.6.

    Raises:
        CannotRunError: it is too old, or the database in an encoding that no deploy makes.

    """
    shown: str = connection.exec_driver_sql("SHOW server_version").scalar_one()
    if major(shown) < OLDEST:
        raise CannotRunError(
            f"PostgreSQL {major(shown)} at {place(connection.engine.url)} is too old; {OLDEST} is"
            " the oldest that is supported."
        )
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise CannotRunError(
            f"The encoding is {encoding} ({place(connection.engine.url)}), but the schema is for"
            " UTF8; make another database, and move the rows there."
        )
    return shown.split(maxsplit=1)[0]


def major(shown: str) -> int:
    """The major version in what a server calls itself, a development version too (19beta1)."""
    digits = shown[: next((i for i, one in enumerate(shown) if not one.isdigit()), len(shown))]
    return int(digits)


def twin(shown: str) -> int:
    """The embedded major version that comes closest to a server: its own, or the newest."""
    return major(shown) if major(shown) in VERSIONS else VERSIONS[0]


def recorded(connection: Connection) -> Recorded:
    """Read the revision that the database records.

    Raises:
        CannotRunError: the role may not even look into schema public, and no comparison is
            possible: PostgreSQL would not name the tables there.

    """
    sees = "SELECT has_schema_privilege(to_regnamespace('public'), 'USAGE')"
    if connection.exec_driver_sql(sees).scalar_one() is False:
        raise CannotRunError(
            f"The role may not look into schema public ({place(connection.engine.url)}); connect"
            f" as the owner, or as a login that holds {APPLICATION}."
        )
    exists = "SELECT to_regclass('public.alembic_version') IS NOT NULL"
    if not connection.exec_driver_sql(exists).scalar_one():
        return Recorded(table=False)
    try:
        with connection.begin_nested():
            # Otherwise row security would hide the row without a word.
            connection.exec_driver_sql("SET LOCAL row_security = off")
            rows = connection.exec_driver_sql(
                "SELECT version_num FROM public.alembic_version ORDER BY version_num"
            )
            return Recorded(table=True, revisions=tuple(rows.scalars()))
    except DBAPIError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        return Recorded(table=True, unreadable=reason(error))


def without_bookkeeping(facts: snapshot.Snapshot) -> snapshot.Snapshot:
    """Leave Alembic's own table out, as `snapshot.read` does."""
    return tuple(fact for fact in facts if fact.object != BOOKKEEPING)


def require_line(scripts: ScriptDirectory) -> list[str]:
    """Name the revisions, oldest first.

    Raises:
        CannotRunError: the files cannot be read, or do not form one line.

    """
    if not readable_line(scripts):
        raise CannotRunError(
            "The revision files of this checkout cannot be read, or form no single line; run"
            " schema check."
        )
    return [revision.revision for revision in line(scripts)]


def build(
    server: Server, scripts: ScriptDirectory, until: str | None = None
) -> Mapping[str, snapshot.Snapshot]:
    """Read the whole schema at each revision, oldest first; with `until`, at no later one.

    Raises:
        CannotRunError: the history does not build.

    """
    built: dict[str, snapshot.Snapshot] = {}
    with (
        server.database() as scratch,
        connect(scratch) as connection,
        connect(scratch, autocommit=True) as observer,
    ):

        def steps(_context: MigrationContext) -> Iterator[MigrationStep]:
            for revision in line(scripts):
                yield up(scripts, revision)
                # What stands after a yield happens after the step was committed.
                built[revision.revision] = snapshot.read(observer, bookkeeping=True)
                if revision.revision == until:
                    return

        try:
            run(connection, scripts, steps)
        except Exception as error:  # a revision may raise whatever it likes
            raise CannotRunError(
                f"The history does not build ({describe(error)}); run schema check."
            ) from error
    return built


def distance(one: snapshot.Snapshot, other: snapshot.Snapshot) -> int:
    """Count the facts that only one of two schemas has."""
    return len(set(one) ^ set(other))


def nearest(history: Mapping[str, snapshot.Snapshot], found: snapshot.Snapshot) -> str:
    """Name the revision whose schema differs in the fewest facts; of several, the latest."""
    return min(reversed(list(history)), key=lambda revision: distance(history[revision], found))


def further(head: str, behind: int) -> str:
    """Say how far the head is."""
    if not behind:
        return "that is the head"
    return f"the head, {head}, is {counted(behind, 'revision')} further"
