"""Notice that a revision ends the transaction that the deploy has given it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, event

from migrations.deploy.errors import FailedError
from migrations.deploy.statement import tokens

_ENDS = {"COMMIT", "ROLLBACK", "PREPARE TRANSACTION"}
"""The tags of commands that end a transaction. ROLLBACK TO SAVEPOINT has one of them too."""

_ID = "SELECT pg_current_xact_id()::text"
_HAS_ID = "SELECT pg_current_xact_id_if_assigned()::text IS NOT DISTINCT FROM %s"
_OUTCOME = """
    SELECT pg_xact_status(%(id)s::xid8),
           (SELECT gid FROM pg_prepared_xacts WHERE transaction = %(id)s::xid8::xid)
"""


class OwnTransaction:
    """The transaction of the running revision, known by its id.

    A savepoint keeps the id; COMMIT AND CHAIN and `COMMIT; BEGIN` do not. The driver knows without
    a query whether a transaction is open, so only a command that may have ended one costs a query.
    Autocommit blocks have no transaction.
    """

    def __init__(self) -> None:
        """Begin without a revision."""
        self._running = False
        self._id: str | None = None
        self._error: FailedError | None = None

    def begin(self) -> None:
        """Begin a revision; its first statement begins the transaction."""
        self._running, self._id = True, None

    def end(self) -> None:
        """End the revision, after its commit."""
        self._running, self._id = False, None

    def before(self, _connection: Connection, cursor: Any, sql: str, *_rest: object) -> None:  # noqa: ANN401  # psycopg's
        """Check before a statement that the transaction is open; note its id at the first one.

        Raises:
            FailedError: the revision has ended it, now or earlier: it may have caught the error.

        """
        if self._error is not None:
            raise self._error
        driver = cursor.connection
        if not self._running or driver.autocommit:
            return
        if self._id is not None and driver.info.transaction_status == TransactionStatus.IDLE:
            raise self._ended(driver, [])
        first = [token.upper() for token in islice(tokens(sql), 2)]
        # It allows no query before it.
        if self._id is None and first != ["SET", "TRANSACTION"]:
            (self._id,) = driver.execute(_ID).fetchone()

    def after(self, _connection: Connection, cursor: Any, *_rest: object) -> None:  # noqa: ANN401  # psycopg's
        """Check after a statement that it has not ended the transaction.

        Raises:
            FailedError: it has.

        """
        driver = cursor.connection
        if not self._running or driver.autocommit:
            return
        tags = _command_tags(cursor)
        if driver.info.transaction_status == TransactionStatus.IDLE or (
            _ENDS & set(tags) and not self._is_open(driver)
        ):
            raise self._ended(driver, tags)

    def commit(self, connection: Connection) -> None:
        """Check before a commit: the revision may have used the driver's connection.

        Raises:
            FailedError: the revision has ended the transaction.

        """
        driver = connection.connection.driver_connection
        if isinstance(driver, psycopg.Connection) and self._id and not self._is_open(driver):
            raise self._ended(driver, [])

    def change_mode(self, _connection: Connection, options: dict[str, Any]) -> None:
        """Forget the transaction at both ends of an autocommit block."""
        if "isolation_level" in options:
            self._id = None

    def _is_open(self, driver: psycopg.Connection[Any]) -> bool:
        if self._id is None or driver.info.transaction_status == TransactionStatus.IDLE:
            return False
        row = driver.execute(_HAS_ID, (self._id,)).fetchone()
        return bool(row and row[0])

    def _ended(self, driver: psycopg.Connection[Any], tags: list[str]) -> FailedError:
        """Say what is left of the revision, and remember that."""
        is_idle = driver.info.transaction_status == TransactionStatus.IDLE
        outcome, gid = "committed" if "COMMIT" in tags else "aborted", None
        if self._id is not None:
            outcome, gid = driver.execute(_OUTCOME, {"id": self._id}).fetchone() or (outcome, gid)
        driver.rollback()
        end = next((place for place, tag in enumerate(tags) if tag in _ENDS), len(tags))
        stays = "is committed and stays; undo it by hand"
        behind = "what stands behind that in the same string"
        if gid is not None:
            left = f"is left as a prepared transaction; end it with ROLLBACK PREPARED '{gid}'"
        elif outcome == "committed":
            left = stays
        else:
            left = "is lost"
        if tags[end + 1 :]:
            left = f"{left}; {behind} {stays if is_idle else 'is lost'}"
        how = f" ({tags[end]})" if tags[end:] else ""
        self._error = FailedError(
            f"it ended its own transaction{how}; what it did before that {left}; use a savepoint or"
            " an autocommit block in place of it, and run this again."
        )
        return self._error


@contextmanager
def watch_transaction(connection: Connection) -> Iterator[OwnTransaction]:
    """Watch the transactions of the revisions that run during the block."""
    own = OwnTransaction()
    hooks: dict[str, Callable[..., Any]] = {
        "before_cursor_execute": own.before,
        "after_cursor_execute": own.after,
        "commit": own.commit,
        "set_connection_execution_options": own.change_mode,
    }
    for name, hook in hooks.items():
        event.listen(connection, name, hook)
    try:
        yield own
    finally:
        for name, hook in hooks.items():
            event.remove(connection, name, hook)


def _command_tags(cursor: object) -> list[str]:
    """Return the tag of each command in the string that the cursor has executed."""
    if not isinstance(cursor, psycopg.Cursor) or cursor.pgresult is None:
        return []
    tags = [result.statusmessage or "" for result in cursor.results()]
    if len(tags) > 1:
        cursor.set_result(0)
    return tags
