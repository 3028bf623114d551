"""What a live database is compared with: the schema at each revision, built on an embedded server.

Nothing is built on the live database's own server, and of it nothing is asked but to be read: in
transactions that are read only and whose settings end with them, so that a pooler that hands
connections around is as good as a direct one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg.errors import (
    DeadlockDetected,
    InsufficientPrivilege,
    InternalError_,
    LockNotAvailable,
)
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from migrations import snapshot
from migrations.deploy.activity import BackendActivity
from migrations.postgres import OLDEST_VERSION, describe_url, first_error_line
from schema.errors import CannotRunError
from schema.postgres.connection import connect
from schema.roles import APPLICATION

VERSION_TABLE = "table alembic_version"
"""The heading of Alembic's own table."""

LOCK_TIMEOUT = 10.0
"""Seconds to wait for a session that alters a table just now, a deploy perhaps."""

STATEMENT_TIMEOUT = 60.0
"""Seconds that one statement may take."""

TRIES = 10
"""How often to read while other sessions change the schema."""

# Reading takes no lock but ACCESS SHARE, and only this mode keeps it from that: when it is held, or
# waited for, because later requests queue up behind it. Then whoever holds that one up is in the
# way. The query is left out: what other sessions write into it is nobody's business.
_LOCKERS = text(
    """
    SELECT a.pid, a.usename, a.application_name, a.backend_type, a.state,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float, NULL AS query
    FROM pg_locks AS l
    JOIN pg_database AS d ON d.oid = l.database
    JOIN pg_stat_activity AS a
      ON a.pid = CASE WHEN l.granted THEN l.pid ELSE (pg_blocking_pids(l.pid))[1] END
    WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
      AND d.datname = current_database() AND l.pid <> pg_backend_pid()
    ORDER BY l.granted DESC, a.xact_start, a.pid
    LIMIT 1
    """
)


@dataclass(frozen=True)
class Recorded:
    """What a database says about its own revision."""

    table: bool
    """Whether it has Alembic's table."""
    revisions: tuple[str, ...] = ()
    unreadable: str | None = None
    """Why the table could not be read, as PostgreSQL puts it."""


@dataclass(frozen=True)
class Live:
    """What a live database shows of itself."""

    where: str
    """The database, as people name it."""
    server: str
    """The server's version, such as 17.6."""
    recorded: Recorded
    facts: snapshot.Snapshot
    """Its schema, Alembic's table included."""


class _ChangedError(Exception):
    """Two reads in a row found two schemas."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("two reads in a row differ")


def read[T](url: URL, look: Callable[[Connection], T], *, read_only: bool = True) -> T:
    """Call `look` in one transaction, which sees one state throughout if it is read only.

    A change of the schema by another session can make the catalogs' functions fail: then `look` is
    called again, in a new transaction.

    Raises:
        CannotRunError: no connection could be made, another session kept its lock for too long or
            kept changing the schema, or `look` failed for another reason.

    """
    with connect(in_utf8(url)) as connection:
        if read_only:
            connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        return _again(url, lambda: _in_transaction(connection, look))


def read_twice[T](url: URL, look: Callable[[Connection], T]) -> T:
    """Call `look` in read-only transactions until two in a row find the same; see `read`.

    What another session drops in the middle does not always fail: a name becomes a bare number,
    for example, because the catalogs' rows are as old as the transaction, but what their functions
    find is not. The next transaction then finds something else.
    """
    with connect(in_utf8(url)) as connection:
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

        def twice() -> T:
            first, second = (_in_transaction(connection, look) for _ in range(2))
            if first != second:
                raise _ChangedError
            return second

        return _again(url, twice)


def _in_transaction[T](connection: Connection, look: Callable[[Connection], T]) -> T:
    with connection.begin():
        connection.exec_driver_sql(
            f"SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000:.0f};"
            f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT * 1000:.0f}"
        )
        return look(connection)


def _again[T](url: URL, attempt: Callable[[], T]) -> T:
    """Make the attempt until no other session's change disturbs it."""
    retrying = Retrying(
        retry=retry_if_exception(_disturbed),
        wait=wait_random_exponential(multiplier=0.05, max=1),
        stop=stop_after_attempt(TRIES),
        reraise=True,
    )
    try:
        return retrying(attempt)
    except (_ChangedError, DBAPIError, psycopg.Error) as error:
        raise CannotRunError(unreadable(url, error)) from error


def _original(error: BaseException) -> BaseException | None:
    """The driver's own error: a snapshot is read below SQLAlchemy, everything else through it."""
    return error.orig if isinstance(error, DBAPIError) else error


def _disturbed(error: BaseException) -> bool:
    """Whether another session's change may be why: something was not there any more, mostly."""
    disturbances = (
        _ChangedError,
        InternalError_,  # "cache lookup failed", "could not open relation"
        psycopg.ProgrammingError,  # "relation … does not exist"
        DeadlockDetected,
    )
    original = _original(error)
    return isinstance(original, disturbances) and not isinstance(original, InsufficientPrivilege)


def unreadable(url: URL, error: BaseException) -> str:
    """Say in one sentence why a live database could not be read, and what to do."""
    what = f"The database could not be read ({describe_url(url)})"
    original = _original(error)
    if isinstance(original, LockNotAvailable):
        return f"{what}: {_locker(url)} holds a lock on it; run this again when that has ended."
    if _disturbed(error):
        return (
            f"{what}: other sessions kept changing the schema ({first_error_line(error)}); run this"
            " again when they have ended."
        )
    advice = "see to that, and run this again"
    if isinstance(original, InsufficientPrivilege):
        advice = "connect as the owner"
    return f"{what}: {first_error_line(error)}; {advice}."


def _locker(url: URL) -> str:
    """Name the session that keeps readers from a table; never its SQL."""
    try:
        with connect(in_utf8(url)) as connection:
            row = connection.execute(_LOCKERS).one_or_none()
    except (CannotRunError, DBAPIError):
        row = None
    return "a session that cannot be named" if row is None else str(BackendActivity(*row))


def in_utf8(url: URL) -> URL:
    """Speak UTF-8 with the server: in SQL_ASCII the driver could not even read its version."""
    return url.update_query_dict({"client_encoding": "utf8"})


def look(connection: Connection) -> Live:
    """Read a live database's revision and schema; for `read_twice`.

    Raises:
        CannotRunError: it cannot be compared with anything, see `version` and `recorded`.

    """
    return Live(
        describe_url(connection.engine.url),
        version(connection),
        recorded(connection),
        snapshot.read(connection, version_table=True),
    )


def version(connection: Connection) -> str:
    """The server's own version, such as 17.6.

    Raises:
        CannotRunError: it is too old, or the database in an encoding that no deploy makes.

    """
    shown: str = connection.exec_driver_sql("SHOW server_version").scalar_one()
    if major(shown) < OLDEST_VERSION:
        raise CannotRunError(
            f"PostgreSQL {major(shown)} at {describe_url(connection.engine.url)} is too old;"
            f" {OLDEST_VERSION} is"
            " the oldest that is supported."
        )
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise CannotRunError(
            f"The encoding is {encoding} ({describe_url(connection.engine.url)}), but the schema is"
            " for UTF8; make another database, and move the rows there."
        )
    return shown.split(maxsplit=1)[0]


def major(shown: str) -> int:
    """The major version in what a server calls itself, a development version too (19beta1)."""
    digits = shown[: next((i for i, one in enumerate(shown) if not one.isdigit()), len(shown))]
    return int(digits)


def recorded(connection: Connection) -> Recorded:
    """Read the revision that the database records.

    Raises:
        CannotRunError: the role may not even look into schema public, and no comparison is
            possible: PostgreSQL would not name the tables there.

    """
    sees = "SELECT has_schema_privilege(to_regnamespace('public'), 'USAGE')"
    if connection.exec_driver_sql(sees).scalar_one() is False:
        raise CannotRunError(
            f"The role may not look into schema public ({describe_url(connection.engine.url)});"
            f" connect as the owner, or as a login that holds {APPLICATION}."
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
        return Recorded(table=True, unreadable=first_error_line(error))


def without_version_table(facts: snapshot.Snapshot) -> snapshot.Snapshot:
    """Leave Alembic's own table out, as `snapshot.read` does."""
    return tuple(fact for fact in facts if fact.object != VERSION_TABLE)
