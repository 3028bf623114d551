"""The deploy's connection: how it is made, and what its session is set to."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from alembic.util import CommandError
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_exponential_jitter,
)

from migrations.deploy.activity import Log
from migrations.deploy.errors import LostError, attempt_error
from migrations.deploy.interruption import Interruption
from migrations.postgres import describe_url, first_error_line

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

MAX_LOCK_TIMEOUT_MS = 10_000
"""Milliseconds: whoever wants to be kept waiting for longer does not want this deploy."""

_OURS = "deploy"
"""What marks a session that was settled; it is lost with the session."""

_SETTLE = """
    SELECT set_config(name, CASE name WHEN 'transaction_timeout' THEN '0'
                                      ELSE %(application)s END, false)
    FROM pg_settings WHERE name IN ('transaction_timeout', 'application_name')
"""
_LOCK_TIMEOUT = "SELECT source, setting::int FROM pg_settings WHERE name = 'lock_timeout'"


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
def connect_with_retry(
    engine: Engine, timeout: float, log: Log, interruption: Interruption
) -> Iterator[Connection]:
    """Connect, through cold starts too: what may pass is tried again, with growing pauses.

    `timeout` is in seconds. Once a signal has arrived, nothing is tried or executed any more.

    Raises:
        CommandError: there was no connection in time, or there will never be one, or something in
            between dropped its settings.

    """

    def again(state: RetryCallState) -> None:
        log(
            f"No connection yet to {describe_url(engine.url)}:"
            f" {first_error_line(attempt_error(state))}; trying again."
        )

    retrying = Retrying(
        retry=retry_if_exception(lambda error: _may_pass(error) and not interruption.arrived),
        wait=wait_exponential_jitter(multiplier=0.25, max=5),
        stop=stop_after_delay(min(timeout, CONNECT_SECONDS)),
        before_sleep=again,
        reraise=True,
    )
    try:
        connection = retrying(_connect, engine)
    except (DBAPIError, UnicodeError) as error:
        advice = "check DATABASE_URL" if not _may_pass(error) else "see whether the server runs"
        raise CommandError(
            f"No connection to {describe_url(engine.url)}: {first_error_line(error)}; {advice}."
        ) from None
    with connection:
        event.listen(connection, "before_cursor_execute", _require_session)
        # The first comes before SQLAlchemy complains of a connection that was closed.
        event.listen(connection, "before_execute", interruption.check)
        event.listen(connection, "before_cursor_execute", interruption.check)
        yield connection


def reset_session(connection: Connection) -> None:
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
    if source != "client" or not 0 < milliseconds <= MAX_LOCK_TIMEOUT_MS:
        raise CommandError(
            f"The session's lock_timeout is {milliseconds} ms"
            f" ({describe_url(connection.engine.url)}):"
            " a pooler dropped the deploy's, or the URL has its own; connect directly, and leave"
            " it out of the URL."
        )


def is_connection_lost(connection: Connection) -> bool:
    """Whether the connection was lost, even if SQLAlchemy has replaced it by itself."""
    if connection.closed or connection.invalidated or _OURS not in connection.info:
        return True
    driver = connection.connection.driver_connection
    return driver is None or bool(driver.closed)


def _connect(engine: Engine) -> Connection:
    connection = engine.connect()
    try:
        reset_session(connection)
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
