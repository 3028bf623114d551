"""Read the schema and the revision of a live database, in read-only transactions.

All settings are local to a transaction, so a pooled connection works too.
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
from schema.ddl.apply import own_names
from schema.ddl.definition import Names
from schema.ddl.renames import Attributes, read_attributes
from schema.errors import CannotRunError
from schema.postgres.connection import connect
from schema.roles import APPLICATION

VERSION_TABLE = "table alembic_version"
"""The heading of Alembic's own table in a snapshot."""

LOCK_TIMEOUT = 10.0
"""Seconds to wait for another session's lock on a table."""

STATEMENT_TIMEOUT = 60.0
"""Seconds that one statement may take."""

CONNECTIONS = 3
"""How often to connect, if the connection is lost while the schema is read."""

TRIES = 10
"""How often to read while other sessions change the schema."""

# A reader takes only ACCESS SHARE locks, so only ACCESS EXCLUSIVE blocks it. A session holds that
# lock, or waits for it, and readers queue behind the wait: then the blocker is the session that it
# waits for. The query is excluded: it may contain values.
_BLOCKER = text(
    """
    SELECT a.pid, a.usename, a.application_name, a.backend_type, a.state,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float,
           l.relation::regclass::text
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
    """The contents of alembic_version."""

    table: bool
    """Whether the table exists."""
    revisions: tuple[str, ...] = ()
    unreadable: str | None = None
    """PostgreSQL's message if the table could not be read."""


@dataclass(frozen=True)
class Live:
    """The schema and the revision of a live database."""

    where: str
    """The database, described for messages."""
    server: str
    """The server's version, such as 17.6."""
    recorded: Recorded
    facts: snapshot.Snapshot
    """Its schema, with Alembic's table."""
    names: Names
    """Its own name and its owner's."""
    attributes: Attributes
    """The columns of its tables."""


class _ChangedError(Exception):
    """Two successive reads returned different schemas."""

    def __init__(self) -> None:
        super().__init__("two reads in a row differ")


def read[T](url: URL, query: Callable[[Connection], T], *, read_only: bool = True) -> T:
    """Call `query` in one transaction; a read-only one sees one state of the database.

    If another session changes the schema, catalog functions can fail: then `query` is called again
    in a new transaction.

    Raises:
        CannotRunError: no connection could be made, another session held its lock for too long or
            kept changing the schema, or `query` failed for another reason.

    """

    def once(connection: Connection) -> T:
        if read_only:
            connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        return _retry_change(lambda: _in_transaction(connection, query))

    return _connected(url, once)


def read_twice[T](url: URL, query: Callable[[Connection], T]) -> T:
    """Call `query` in read-only transactions until two successive results are equal; see `read`.

    One transaction is not enough: its catalog rows are as old as the transaction, but catalog
    functions see newer changes. If another session drops an object, its name can become a number
    without an error. The next transaction then returns another result.
    """

    def often(connection: Connection) -> T:
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

        def twice() -> T:
            first, second = (_in_transaction(connection, query) for _ in range(2))
            if first != second:
                raise _ChangedError
            return second

        return _retry_change(twice)

    return _connected(url, often)


def _in_transaction[T](connection: Connection, query: Callable[[Connection], T]) -> T:
    with connection.begin():
        connection.exec_driver_sql(
            f"SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000:.0f};"
            f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT * 1000:.0f}"
        )
        return query(connection)


def _connected[T](url: URL, run: Callable[[Connection], T]) -> T:
    """Connect and run; a lost connection is replaced."""

    def attempt() -> T:
        with connect(in_utf8(url)) as connection:
            return run(connection)

    retrying = Retrying(
        retry=retry_if_exception(_is_lost_connection),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        stop=stop_after_attempt(CONNECTIONS),
        reraise=True,
    )
    try:
        return retrying(attempt)
    except (_ChangedError, DBAPIError, psycopg.Error) as error:
        raise CannotRunError(unreadable(url, error)) from error


def _retry_change[T](attempt: Callable[[], T]) -> T:
    """Run again if another session has changed the schema meanwhile."""
    retrying = Retrying(
        retry=retry_if_exception(_is_concurrent_change),
        wait=wait_random_exponential(multiplier=0.05, max=1),
        stop=stop_after_attempt(TRIES),
        reraise=True,
    )
    return retrying(attempt)


def _is_lost_connection(error: BaseException) -> bool:
    original = _original(error)
    return isinstance(original, psycopg.OperationalError) and (original.sqlstate or "57P")[:3] in {
        "57P",  # an administrator, or a crash, has ended the session
        "080",
    }


def _original(error: BaseException) -> BaseException | None:
    """The driver's error; SQLAlchemy wraps it, except when `snapshot.read` raises it."""
    return error.orig if isinstance(error, DBAPIError) else error


def _is_concurrent_change(error: BaseException) -> bool:
    """Whether another session's schema change may be the cause."""
    kinds = (
        _ChangedError,
        InternalError_,  # "cache lookup failed", "could not open relation"
        psycopg.ProgrammingError,  # "relation … does not exist"
        DeadlockDetected,
    )
    original = _original(error)
    return isinstance(original, kinds) and not isinstance(original, InsufficientPrivilege)


def unreadable(url: URL, error: BaseException) -> str:
    """Say in one sentence why a live database could not be read, and what to do."""
    what = f"The database could not be read ({describe_url(url)})"
    original = _original(error)
    if isinstance(original, LockNotAvailable):
        return f"{what}: {_describe_blocker(url)}; run this again when it has ended."
    if _is_concurrent_change(error):
        return (
            f"{what}: other sessions kept changing the schema ({first_error_line(error)}); run this"
            " again when they have ended."
        )
    advice = "fix that and run this again"
    if isinstance(original, InsufficientPrivilege):
        advice = "connect as the owner"
    return f"{what}: {first_error_line(error)}; {advice}."


def _describe_blocker(url: URL) -> str:
    """Describe the session that blocks readers of a table, without its SQL."""
    try:
        with connect(in_utf8(url)) as connection:
            row = connection.execute(_BLOCKER).one_or_none()
    except (CannotRunError, DBAPIError):
        row = None
    if row is None:
        return "a session that cannot be named holds a lock"
    return f"{BackendActivity(*row[:-1])} holds a lock on {row[-1]}"


def in_utf8(url: URL) -> URL:
    """Set the client encoding: in SQL_ASCII, the driver cannot even read the server's version."""
    return url.update_query_dict({"client_encoding": "utf8"})


def read_live(connection: Connection) -> Live:
    """Read a live database's revision and schema; for `read_twice`.

    Raises:
        CannotRunError: it cannot be compared: see `version` and `recorded`.

    """
    return Live(
        describe_url(connection.engine.url),
        version(connection),
        recorded(connection),
        snapshot.read(connection, version_table=True),
        own_names(connection),
        read_attributes(connection),
    )


def version(connection: Connection) -> str:
    """Read the server's version, such as 17.6.

    Raises:
        CannotRunError: it is too old, or the encoding is not UTF8.

    """
    shown: str = connection.exec_driver_sql("SHOW server_version").scalar_one()
    if major(shown) < OLDEST_VERSION:
        raise CannotRunError(
            f"PostgreSQL {major(shown)} at {describe_url(connection.engine.url)} is too old;"
            f" {OLDEST_VERSION} is the oldest that is supported."
        )
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise CannotRunError(
            f"The encoding is {encoding} ({describe_url(connection.engine.url)}), but the schema"
            " needs UTF8; create another database and move the rows there."
        )
    return shown.split(maxsplit=1)[0]


def major(shown: str) -> int:
    """The major version of a server version, even of a development version (19beta1)."""
    digits = shown[: next((i for i, one in enumerate(shown) if not one.isdigit()), len(shown))]
    return int(digits)


def recorded(connection: Connection) -> Recorded:
    """Read the recorded revision.

    Raises:
        CannotRunError: the role has no USAGE on schema public, so it cannot see the tables.

    """
    sees = "SELECT has_schema_privilege(to_regnamespace('public'), 'USAGE')"
    if connection.exec_driver_sql(sees).scalar_one() is False:
        raise CannotRunError(
            f"The role has no USAGE on schema public ({describe_url(connection.engine.url)});"
            f" connect as the owner, or as a login with the group role {APPLICATION}."
        )
    exists = "SELECT to_regclass('public.alembic_version') IS NOT NULL"
    if not connection.exec_driver_sql(exists).scalar_one():
        return Recorded(table=False)
    try:
        with connection.begin_nested():
            # With row security on, the row could be hidden without an error.
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
    """Remove Alembic's own table from a snapshot."""
    return tuple(fact for fact in facts if fact.object != VERSION_TABLE)
