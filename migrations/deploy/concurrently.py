"""Let concurrent statements wait for long, and repair what interrupted ones have left."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, ExceptionContext, event
from sqlalchemy.exc import DBAPIError

from migrations.deploy import preflight
from migrations.deploy.activity import Log
from migrations.deploy.connection import is_connection_lost
from migrations.deploy.statement import index_to_build, is_concurrent, partition_to_detach
from migrations.postgres import first_error_line

# An index that is attached to a partitioned one cannot be dropped.
_LEFTOVER = f"""
    SELECT i.indexrelid::regclass::text
    FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE c.relname = (parse_ident(%s))[1] AND i.indrelid = to_regclass(%s)
      AND NOT i.indisvalid AND NOT c.relispartition AND NOT {preflight.BEING_BUILT}
"""

_DETACH_PENDING = """
    SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(%s) AND inhdetachpending)
"""

_LAST_CONCURRENTLY = re.compile(
    r"\bCONCURRENTLY\b(?!.*\bCONCURRENTLY\b)", re.IGNORECASE | re.DOTALL
)


class _Concurrent:
    """What is done around a concurrent statement. No session queues behind its waits."""

    def __init__(self, remaining: Callable[[], float], log: Log) -> None:
        self._remaining = remaining
        self._log = log
        self._driver: psycopg.Connection[Any] | None = None
        """The driver's connection, while its lock_timeout is a long one."""

    def before[T](
        self,
        _connection: Connection,
        cursor: Any,  # noqa: ANN401  # psycopg's
        sql: str,
        values: T,
        *_rest: object,
    ) -> tuple[str, T]:
        """Set a long lock_timeout; undo or complete what an interrupted statement has left."""
        if not is_concurrent(sql):
            return sql, values
        self._driver = cursor.connection
        self._driver.execute(f"SET lock_timeout = {self._remaining() * 1000:.0f}")
        if built := index_to_build(sql):
            self._drop_leftover(self._driver, *built)
        partition = partition_to_detach(sql)
        if partition and _scalar(self._driver, _DETACH_PENDING, partition):
            self._log(f"Completing the interrupted detachment of the partition {partition}.")
            sql = _LAST_CONCURRENTLY.sub("FINALIZE", sql)
        return sql, values

    def after(self, *_event: object) -> None:
        """Set the deploy's lock_timeout again."""
        driver, self._driver = self._driver, None
        if driver is not None and driver.info.transaction_status == TransactionStatus.IDLE:
            driver.execute("RESET lock_timeout")  # to the value of the connection

    def error(self, failed: ExceptionContext) -> None:
        """Set the deploy's lock_timeout again: the revision may catch the error."""
        connection = failed.connection
        if connection is None or connection.invalidated:
            return
        if connection.connection.driver_connection is self._driver:  # the monitor may fail too
            self.after()

    def _drop_leftover(self, driver: psycopg.Connection[Any], index: str, table: str) -> None:
        """Drop an invalid index of that name; with IF NOT EXISTS, it would stay as it is."""
        if leftover := _scalar(driver, _LEFTOVER, index, table):
            self._log(f"Dropping the index {leftover}, which an interrupted build left invalid.")
            driver.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {leftover}")


@contextmanager
def allow_concurrent(
    connection: Connection, remaining: Callable[[], float], log: Log
) -> Iterator[None]:
    """Give each concurrent statement of the block the remaining time, in seconds, for each lock."""
    concurrent = _Concurrent(remaining, log)
    event.listen(connection, "before_cursor_execute", concurrent.before, retval=True)
    event.listen(connection, "after_cursor_execute", concurrent.after)
    event.listen(connection.engine, "handle_error", concurrent.error)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", concurrent.before)
        event.remove(connection, "after_cursor_execute", concurrent.after)
        event.remove(connection.engine, "handle_error", concurrent.error)


def rebuild_invalid_indexes(connection: Connection, committed: str, log: Log) -> None:
    """Rebuild the invalid indexes of the committed schema; log what cannot be rebuilt.

    They are left by an interrupted DROP INDEX CONCURRENTLY of a revision that was given up.

    Raises:
        DBAPIError: the connection was lost.

    """
    with connection.begin():
        invalid = preflight.invalid_indexes(connection, being_built=False)
    ours = [index for index in invalid if preflight.is_committed(index, committed)]
    if not ours:
        return
    connection.execution_options(isolation_level="AUTOCOMMIT")
    try:
        for index in ours:
            log(f"Rebuilding the index {index}, which is invalid.")
            try:
                connection.exec_driver_sql(f"REINDEX INDEX CONCURRENTLY {index}")
            except DBAPIError as error:
                if is_connection_lost(connection):
                    raise
                log(f"The index {index} stays invalid: {first_error_line(error)}.")
                _drop_copies(connection, set(invalid))
    finally:
        if not is_connection_lost(connection):
            connection.rollback()
            connection.execution_options(isolation_level="READ COMMITTED")


def _drop_copies(connection: Connection, before: set[str]) -> None:
    """Drop the copy that a failed REINDEX CONCURRENTLY leaves."""
    for index in set(preflight.invalid_indexes(connection, being_built=False)) - before:
        if re.search(r'_ccnew\d*"?$', index):
            connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")


def _scalar(driver: psycopg.Connection[Any], query: str, *values: str) -> Any:  # noqa: ANN401  # of any type
    row = driver.execute(query, values).fetchone()
    return row and row[0]
