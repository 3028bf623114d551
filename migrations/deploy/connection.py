"""The deploy's session: how it connects, what it is set to, and how it keeps other deploys out."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
from alembic.util import CommandError
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_not_result,
    stop_after_delay,
    wait_exponential_jitter,
)

from migrations.deploy.interruption import Interruption


class FailedError(CommandError):
    """The deploy ended before it was done, or with a schema that is not the committed one."""


class LostError(Exception):
    """The connection was lost; what was committed stays."""


type Tell = Callable[[str], None]

SETTINGS = {
    # Clients that come after a waiting ALTER TABLE wait too: this is the longest stall they see.
    "lock_timeout": "200ms",
    # A database or role may limit statements; an index build or a validation must not be cut.
    "statement_timeout": "0",
    # A client that vanished, even without a word, or is frozen must not keep its locks.
    "idle_session_timeout": "10min",
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "2s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    # Unqualified names in the revisions mean these, whatever the role is set to.
    "search_path": "public",
}
LIBPQ = {
    "client_encoding": "utf8",
    "connect_timeout": "10",
    # A server that vanished is noticed within half a minute.
    "tcp_user_timeout": "30000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}

CONNECT_SECONDS = 60
"""How long to try to connect, at most: Neon's computes start within seconds."""

LOCK = int.from_bytes(b"alembic")
"""The advisory lock that a deploy holds; it belongs to one database and ends with its session."""

# Statements go into a log, the deploy's own too: the values in them are nobody's business there.
_QUIET = re.compile(
    r"""(?P<name> "(?:[^"]|"")*" )
      | (?P<comment> --[^\n]* | /\*.*?(?:\*/|$) )
      | (?<![\w$])\$(?P<tag>\w*)\$ .*? (?:\$(?P=tag)\$|$)
      | (?<![\w$])e'(?:[^'\\]|\\.|'')*(?:'|$)
      | '(?:[^']|'')*(?:'|$)
      | (?<![\w$])\d[\d.]*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

_NESTED = re.compile(r"/\*(?:(?!\*/).)*/\*", re.DOTALL)

# Between the first quote and the last: the value may hold some itself.
_QUOTED = re.compile(r'".*"', re.DOTALL)

_DATA = "22"
"""The class of errors that quote the value that they complain of; others quote names."""

# libpq has no codes for why a connection failed, only words.
_FINAL = (
    "authentication failed",
    "does not exist",
    "not permitted to log in",
    "no pg_hba.conf entry",
    "no password supplied",
    "permission denied",
    "unrecognized configuration parameter",
    "unsupported startup parameter",
    "invalid ",
    "does not support SSL",
    "certificate",
    "channel binding",
)

MOST_LOCK_TIMEOUT = 10_000
"""Milliseconds: whoever wants to be kept waiting for longer does not want this deploy."""

_OURS = "deploy"
"""What marks a session that was settled; it is lost with the session."""

_SETTLE = """
    SELECT set_config(name, CASE name WHEN 'transaction_timeout' THEN '0'
                                      ELSE %(application)s END, false)
    FROM pg_settings WHERE name IN ('transaction_timeout', 'application_name')
"""
_LOCK_TIMEOUT = "SELECT source, setting::int FROM pg_settings WHERE name = 'lock_timeout'"

_HOLDER = text(
    """
    SELECT a.pid, a.usename, a.application_name, a.backend_type, a.state,
           extract(epoch FROM clock_timestamp() - a.backend_start)::float AS seconds, a.query
    FROM pg_locks AS l
    JOIN pg_stat_activity AS a ON a.pid = l.pid
    JOIN pg_database AS d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database()
      AND l.classid = :high AND l.objid = :low AND l.objsubid = 1
    """
).bindparams(high=LOCK >> 32, low=LOCK & 0xFFFFFFFF)


class Session(NamedTuple):
    """Another session, as pg_stat_activity shows it."""

    pid: int
    user: str | None
    application: str | None
    kind: str | None
    state: str | None
    seconds: float | None
    """How long its transaction has lasted, or the session itself where no transaction is meant."""
    query: str | None

    def __str__(self) -> str:
        """Say which session it is, what it is at, and its query."""
        kind = None if self.kind == "client backend" else self.kind
        parts = [self.user, self.application, kind, self.state]
        who = ", ".join(part for part in parts if part)
        age = "" if self.seconds is None else f" for {self.seconds:.0f} s"
        query = f": {shown(self.query)}" if self.query else ""
        return f"session {self.pid} ({who or 'not visible'}{age}){query}"


def one_line(sql: str, width: int = 100) -> str:
    """The statement in one line, shortened."""
    line = " ".join(sql.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def shown(sql: str) -> str:
    """The statement as it may be logged: in one line, shortened, and without values."""
    return one_line(without_values(sql))


def without_values(sql: str) -> str:
    """The statement without the values that were written into it, and without comments.

    What follows a comment in a comment is left out: no pattern finds the end of it.
    """
    if nested := _NESTED.search(sql):
        return f"{without_values(sql[: nested.start()])}…"
    return _QUIET.sub(lambda found: found["name"] or (" " if found["comment"] else "'…'"), sql)


def open_engine(url: URL) -> Engine:
    """Set up connections to the database: no pool, the deploy's settings, the URL's own on top."""
    given = url.query.get("options", "")
    options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
    settings = {name: value for name, value in LIBPQ.items() if name not in url.query}
    settings["options"] = f"{options} {given}".strip()
    engine = create_engine(url, poolclass=NullPool, connect_args=settings, hide_parameters=True)
    event.listen(engine, "handle_error", _keep)
    return engine


@contextmanager
def connected(
    engine: Engine, patience: float, tell: Tell, interruption: Interruption
) -> Iterator[Connection]:
    """Connect, through cold starts too: what may pass is tried again, with growing pauses.

    `patience` is in seconds. Once a signal has arrived, nothing is tried or executed any more.

    Raises:
        CommandError: there was no connection in time, or there will never be one, or something in
            between dropped its settings.

    """

    def again(state: RetryCallState) -> None:
        tell(f"No connection yet to {place(engine.url)}: {reason(failure(state))}; trying again.")

    retrying = Retrying(
        retry=retry_if_exception(lambda error: _may_pass(error) and not interruption.arrived),
        wait=wait_exponential_jitter(multiplier=0.25, max=5),
        stop=stop_after_delay(min(patience, CONNECT_SECONDS)),
        before_sleep=again,
        reraise=True,
    )
    try:
        connection = retrying(_connect, engine)
    except (DBAPIError, UnicodeError) as error:
        advice = "check DATABASE_URL" if not _may_pass(error) else "see whether the server runs"
        raise CommandError(
            f"No connection to {place(engine.url)}: {reason(error)}; {advice}."
        ) from None
    with connection:
        event.listen(connection, "before_cursor_execute", _require_session)
        # The first comes before SQLAlchemy complains of a connection that was closed.
        event.listen(connection, "before_execute", interruption.check)
        event.listen(connection, "before_cursor_execute", interruption.check)
        yield connection


@contextmanager
def alone(connection: Connection, patience: float, tell: Tell) -> Iterator[None]:
    """Hold the deploys' lock: while another session has it, say whose it is and wait.

    The lock is asked for again and again rather than waited for: a session that waits for an
    advisory lock holds a snapshot, for which the other deploy's CREATE INDEX CONCURRENTLY would
    wait in turn. `patience` is in seconds.

    Raises:
        CommandError: the other deploy did not end in time.

    """
    told = ""

    def locked() -> bool:
        with connection.begin():
            return bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}))

    def holder() -> str:
        return str(_holder(connection) or "one that has just ended")

    def again(_state: RetryCallState) -> None:
        nonlocal told
        if (now := holder()) != told:
            tell(f"Waiting for another deploy: {now}.")
        told = now

    retrying = Retrying(
        retry=retry_if_not_result(bool),
        wait=wait_exponential_jitter(multiplier=0.2, max=2, jitter=0.5),
        stop=stop_after_delay(patience),
        before_sleep=again,
        retry_error_callback=lambda _state: False,
    )
    if not retrying(locked):
        raise CommandError(
            f"Another deploy has not ended within {patience / 60:g} minutes: {holder()}; run this"
            " again when it has."
        )
    try:
        yield
    finally:
        if not gone(connection):
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})
            connection.commit()


def require_lock(connection: Connection) -> None:
    """Make sure, between two revisions, that no other deploy can begin.

    Raises:
        CommandError: something gave the lock away.

    """
    holder = _holder(connection)
    driver = connection.connection.driver_connection
    if driver is None or holder is None or holder.pid != driver.info.backend_pid:
        raise CommandError(
            "The deploys' lock was given away (pg_advisory_unlock_all or DISCARD ALL in a"
            " revision); take that out of it, and run this again."
        )


def settle(connection: Connection) -> None:
    """Set what not every version has, and undo what a revision may have set for the session.

    Raises:
        CommandError: the session was not given the deploy's settings, or they were overridden.

    """
    driver = connection.connection.driver_connection
    if driver is None:
        raise LostError("The connection was lost")
    # Below SQLAlchemy, which would begin a transaction that Alembic takes for its own.
    with driver.transaction(), driver.cursor() as cursor:
        cursor.execute("RESET ALL; RESET ROLE")
        cursor.execute(_SETTLE, {"application": f"alembic on {socket.gethostname()}"})
        source, milliseconds = cursor.execute(_LOCK_TIMEOUT).fetchone()
    if source != "client" or not 0 < milliseconds <= MOST_LOCK_TIMEOUT:
        raise CommandError(
            f"The session's lock_timeout is {milliseconds} ms ({place(connection.engine.url)}):"
            " a pooler dropped the deploy's, or the URL has its own; connect directly, and leave"
            " it out of the URL."
        )


def gone(connection: Connection) -> bool:
    """Whether the connection was lost, even if SQLAlchemy has replaced it by itself."""
    if connection.closed or connection.invalidated or _OURS not in connection.info:
        return True
    driver = connection.connection.driver_connection
    return driver is None or bool(driver.closed)


def place(url: URL) -> str:
    """Name a database for people: role, host, port and database, never the password."""
    host = url.host or url.query.get("host") or "the local socket"
    port = f":{url.port}" if url.port else ""
    return f"{url.database} on {host}{port} as {url.username or 'the default role'}"


def reason(error: BaseException) -> str:
    """Say in one line what PostgreSQL or the driver complained of, without a row's values."""
    first: BaseException | None = error
    while first is not None and not isinstance(first, DBAPIError | psycopg.Error):
        first = first.__context__
    if first is None:
        first = error
    original = first.orig if isinstance(first, DBAPIError) else first
    complaint = str(original)
    if isinstance(original, psycopg.Error) and (original.sqlstate or "").startswith(_DATA):
        complaint = _QUOTED.sub('"…"', original.diag.message_primary or "")
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(original).__name__


def _connect(engine: Engine) -> Connection:
    connection = engine.connect()
    try:
        settle(connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, psycopg.Error):
            raise DBAPIError("", None, error) from None
        raise
    connection.info[_OURS] = True
    return connection


def _require_session(connection: Connection, *_rest: object) -> None:
    """Keep SQLAlchemy from going on in a new session, which has no lock and is not watched."""
    if _OURS not in connection.info:
        raise LostError("The connection was lost, and another one was about to be used")


def _keep(failed: ExceptionContext) -> None:
    """Keep SQLAlchemy from closing the connection of a statement that Ctrl-C has cancelled.

    Leaving Alembic's autocommit block would then raise an ordinary error in KeyboardInterrupt's
    place, which a revision may take for one that it can pass over. psycopg has cancelled the
    statement and waited for its end; where it could not, the connection is closed all the same.
    """
    if not isinstance(failed.original_exception, KeyboardInterrupt) or failed.connection is None:
        return
    driver = (
        None if failed.connection.invalidated else failed.connection.connection.driver_connection
    )
    status = None if driver is None else driver.info.transaction_status
    failed.is_disconnect = status in {None, TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN}


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and not any(words in str(error.orig) for words in _FINAL)


def failure(state: RetryCallState) -> BaseException:
    """What an attempt ended in that is to be made again.

    Raises:
        ValueError: it did not fail.

    """
    error = None if state.outcome is None else state.outcome.exception()
    if error is None:
        raise ValueError("the attempt did not fail")
    return error


def _holder(connection: Connection) -> Session | None:
    """Find the session that holds the deploys' lock."""
    with connection.begin():
        row = connection.execute(_HOLDER).one_or_none()
    return None if row is None else Session(*row)
