"""Open the deploy's connection and set up its session."""

import json
import re
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
    # Other clients queue behind a waiting ALTER TABLE: this is the longest time that they wait.
    "lock_timeout": "200ms",
    # A limit of the database or role must not interrupt an index build or a validation.
    "statement_timeout": "0",
    # The server ends the session of a dead or frozen client, so that it does not keep its locks.
    "idle_session_timeout": "10min",
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "2s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    # What a name, a literal or a comparison in a revision means.
    "search_path": "public",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "xmloption": "content",
    "datestyle": "ISO,MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    # What a value or a definition looks like as text, in a backfill and in the verification.
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "quote_all_identifiers": "off",
    # What a new object is, and whether it is checked. New tables go where the database is.
    "check_function_bodies": "on",
    "default_table_access_method": "heap",
    "default_tablespace": "",
    # Which rows a statement sees. Whether it may write is not set: preflight reports that.
    "row_security": "on",
    "default_transaction_isolation": r"read\ committed",
    "default_transaction_deferrable": "off",
    # An error must not end the session.
    "exit_on_error": "off",
}
"""Startup options: they override the role's and the database's settings, also after RESET ALL."""

LATER_SETTINGS = {
    # Since 16, 17, or a minor release: a startup option must be known to every server.
    "createrole_self_grant": "",
    "transaction_timeout": "0",
    "restrict_nonsystem_relation_kind": "",
    # Only some roles may set these; each other value keeps triggers and foreign keys from firing.
    "session_replication_role": "origin",
    "event_triggers": "on",
}
"""Set after each RESET ALL, where the server knows them and the role may set them."""

LIBPQ = {
    "client_encoding": "utf8",
    "connect_timeout": "10",
    # A dead server is noticed within half a minute.
    "tcp_user_timeout": "30000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}

CONNECT_SECONDS = 60
"""Longest time to try to connect. Neon's computes start within seconds."""


# Messages of errors that a retry does not fix. libpq has no codes for failed connections.
_PERMANENT_ERRORS = (
    "authentication failed",
    "does not exist",
    "not permitted to log in",
    "no pg_hba.conf entry",
    "no password supplied",
    "permission denied",
    "unrecognized configuration parameter",
    "unsupported startup parameter",
    "invalid ",
    "bad value",
    "does not support SSL",
    "certificate",
    "channel binding",
)

_SESSION_MARK = "deploy"
"""Key in `Connection.info`: this session has the deploy's settings. A new one lacks the key."""

_SET_LATER_SETTINGS = """
    SELECT set_config(name, value, false) FROM jsonb_each_text(%(later)s::jsonb) JOIN pg_settings
    ON name = key WHERE context = 'user' OR current_setting('is_superuser') = 'on'
"""
_WRONG_SETTINGS = """
    SELECT name FROM pg_settings LEFT JOIN jsonb_each_text(%(later)s::jsonb) ON name = key
    WHERE current_setting(name) <> value OR (name = 'lock_timeout' AND source <> 'client')
    ORDER BY name <> 'lock_timeout', name
"""


def open_engine(url: URL) -> Engine:
    """Create an engine without a pool, whose sessions have the deploy's settings."""
    options = [f"-c {name}={value}" for name, value in SETTINGS.items()]
    options.append(str(url.query.get("options", "")))  # the name of Neon's endpoint
    settings = {name: value for name, value in LIBPQ.items() if name not in url.query}
    settings["options"] = " ".join(options).strip()
    engine = create_engine(
        url,
        poolclass=NullPool,
        pool_reset_on_return=None,  # a closed session needs none, and a lost one logs a traceback
        connect_args=settings,
        hide_parameters=True,
    )
    event.listen(engine, "handle_error", _keep_cancelled_connection)
    return engine


@contextmanager
def connect_with_retry(
    engine: Engine, timeout: float, log: Log, interruption: Interruption
) -> Iterator[Connection]:
    """Connect, and retry transient errors (a cold start) with growing pauses.

    `timeout` is in seconds. After a signal, the connection executes nothing more.

    Raises:
        CommandError: there was no connection in time, the error is permanent, or a pooler dropped
            the session's settings.

    """

    def log_retry(state: RetryCallState) -> None:
        log(
            f"No connection yet to {describe_url(engine.url)}:"
            f" {_connection_error(engine.url, attempt_error(state))}; retrying."
        )

    retrying = Retrying(
        retry=retry_if_exception(lambda error: _is_transient(error) and not interruption.arrived),
        wait=wait_exponential_jitter(multiplier=0.25, max=5),
        stop=stop_after_delay(min(timeout, CONNECT_SECONDS)),
        before_sleep=log_retry,
        reraise=True,
    )
    try:
        connection = retrying(_connect, engine)
    except (DBAPIError, UnicodeError) as error:
        advice = "check whether the server runs" if _is_transient(error) else "check DATABASE_URL"
        raise CommandError(
            f"No connection to {describe_url(engine.url)}: {_connection_error(engine.url, error)};"
            f" {advice}."
        ) from None
    with connection:
        event.listen(connection, "before_cursor_execute", _require_session)
        # before_execute runs before SQLAlchemy's own error about a closed connection.
        event.listen(connection, "before_execute", interruption.check)
        event.listen(connection, "before_cursor_execute", interruption.check)
        yield connection


def reset_session(connection: Connection) -> None:
    """Give the session the deploy's settings again, after a connection or a revision.

    Raises:
        CommandError: the session cannot have one of the settings.
        LostError: the connection was lost.

    """
    driver = connection.connection.driver_connection
    if driver is None:
        raise LostError("The connection was lost")
    # Not through SQLAlchemy: it would begin a transaction, and Alembic would then not commit.
    with driver.transaction(), driver.cursor() as cursor:
        name = f"alembic on {socket.gethostname()}".replace("'", "")
        cursor.execute(
            f"RESET SESSION AUTHORIZATION; RESET ALL; RESET ROLE; SET application_name = '{name}'"
        )
        later = {"later": json.dumps(LATER_SETTINGS)}
        cursor.execute(_SET_LATER_SETTINGS, later)
        wrong = [name for (name,) in cursor.execute(_WRONG_SETTINGS, later)]
    if wrong[:1] == ["lock_timeout"]:
        raise CommandError(
            "A pooler dropped the deploy's settings, lock_timeout among them"
            f" ({describe_url(connection.engine.url)}); connect directly."
        )
    if wrong:
        raise CommandError(
            f"{wrong[0]} is not {LATER_SETTINGS[wrong[0]]}, so triggers or foreign keys would not"
            " run, and this role may not set it; reset it for the role or the database that sets"
            f" it: ALTER ROLE … RESET {wrong[0]}, or ALTER DATABASE … RESET {wrong[0]}."
        )


def is_connection_lost(connection: Connection) -> bool:
    """Whether the connection was lost, even if SQLAlchemy has already opened a new one."""
    if connection.closed or connection.invalidated or _SESSION_MARK not in connection.info:
        return True
    driver = connection.connection.driver_connection
    return driver is None or bool(driver.closed)


def _connection_error(url: URL, error: BaseException) -> str:
    """Return libpq's reason without the URL's parameters, except those that name a place."""
    reason = first_error_line(error)
    for name, value in url.query.items():
        if not re.match("host|port|user|passfile|ssl.*(cert|key|crl|dir)$", name):
            reason = reason.replace(f'"{value}"', '"…"')
    return reason


def _connect(engine: Engine) -> Connection:
    connection = engine.connect()
    try:
        reset_session(connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, psycopg.Error):
            raise DBAPIError("", None, error) from None
        raise
    connection.info[_SESSION_MARK] = True
    return connection


def _require_session(connection: Connection, *_rest: object) -> None:
    """Keep SQLAlchemy from continuing in a new session, which does not hold the deploy lock."""
    if _SESSION_MARK not in connection.info:
        raise LostError("The connection was lost, and another one was about to be used")


def _keep_cancelled_connection(failed: ExceptionContext) -> None:
    """Keep SQLAlchemy from closing the connection of a statement that Ctrl-C has cancelled.

    On a closed connection, the end of Alembic's autocommit block raises an ordinary error in place
    of KeyboardInterrupt, and a revision may catch that. psycopg has cancelled the statement and
    waited for its end; if that failed, the connection is closed.
    """
    if not isinstance(failed.original_exception, KeyboardInterrupt) or failed.connection is None:
        return
    driver = (
        None if failed.connection.invalidated else failed.connection.connection.driver_connection
    )
    status = None if driver is None else driver.info.transaction_status
    failed.is_disconnect = status in {None, TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN}


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and not any(
        words in str(error.orig) for words in _PERMANENT_ERRORS
    )
