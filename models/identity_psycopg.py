"""Set the user of a transaction on a connection of psycopg, sync or async: see identity.py."""

from collections import deque
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any

import psycopg
from psycopg.abc import PQGen
from psycopg.generators import fetch_many, pipeline_communicate
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn

IDENTIFY = "SELECT set_config('app.user_id', %s, true)"

ALREADY_BEGUN = (
    "The connection is in a transaction or a pipeline already, whose statements had no identity;"
    " commit or roll back before acting_as."
)
# PostgreSQL answers COMMIT of a failed transaction with ROLLBACK, without an error.
HIDDEN_ERROR = (
    "A statement of the block failed and its error was caught inside, so the block was rolled back;"
    " put a statement that may fail into a savepoint (begin_nested() in SQLAlchemy,"
    " connection.transaction() in psycopg)."
)
ENDED_INSIDE = (
    "The block's transaction was ended inside the block, by a commit, a rollback or a close; leave"
    " the block instead."
)
UNREAD = (
    "An answer was not read to its end (a stream or a COPY), so nothing was committed and the"
    " connection was closed; close the generator, or end the COPY, inside the block."
)


class IdentityError(RuntimeError):
    """The block cannot act for this user, or could not commit."""


class PsycopgBlock:
    """A transaction of a sync connection that acts for one user."""

    def __init__(self, connection: psycopg.Connection[Any], user_id: str) -> None:
        """Send nothing yet."""
        self._connection = connection
        self._user_id = user_id
        self._autocommit = connection.autocommit
        # connection.transaction() would keep a pipeline open in the block.
        self._transaction = psycopg.Transaction(connection)

    def begin(self) -> None:
        """Send BEGIN and the identity in one round trip."""
        connection = self._connection
        _require_idle(connection)
        self._autocommit = connection.autocommit
        with ExitStack() as undo:
            undo.callback(self._leave)
            # Without autocommit psycopg sends its own BEGIN and waits for the answer.
            connection.autocommit = True
            # Only BEGIN and the identity share a pipeline, so that each statement of the block
            # raises its own error.
            with connection.pipeline():
                undo.enter_context(self._transaction)
                # A cursor of its own: the connection's may send other placeholders, or literals.
                psycopg.Cursor(connection).execute(IDENTIFY, [self._user_id], prepare=False)
            undo.pop_all()

    def end(self, error: BaseException | None) -> None:
        """Commit, or roll back after an error."""
        with ExitStack() as leave:
            leave.callback(self._leave)
            if _is_busy(self._connection):
                if error is None:
                    raise IdentityError(UNREAD)
                return
            hidden = None if error else _hidden_end(self._connection)
            error = error or hidden
            self._transaction.__exit__(type(error) if error else None, error, None)
            if hidden:
                raise hidden

    def _leave(self) -> None:
        """Restore the autocommit setting, or close a connection that a pool must not reuse."""
        if self._connection.info.transaction_status == TransactionStatus.IDLE:
            self._connection.autocommit = self._autocommit
        else:
            self._connection.close()


class AsyncPsycopgBlock:
    """A transaction of an async connection that acts for one user."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], user_id: str) -> None:
        """Send nothing yet."""
        self._connection = connection
        self._user_id = user_id
        self._autocommit = connection.autocommit
        self._transaction = psycopg.AsyncTransaction(connection)

    async def begin(self) -> None:
        """Send BEGIN and the identity in one round trip."""
        connection = self._connection
        _require_idle(connection)
        self._autocommit = connection.autocommit
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._leave)
            await connection.set_autocommit(True)
            async with connection.pipeline():
                await undo.enter_async_context(self._transaction)
                cursor = psycopg.AsyncCursor(connection)
                await cursor.execute(IDENTIFY, [self._user_id], prepare=False)
            undo.pop_all()

    async def end(self, error: BaseException | None) -> None:
        """Commit, or roll back after an error."""
        async with AsyncExitStack() as leave:
            leave.push_async_callback(self._leave)
            if _is_busy(self._connection):
                if error is None:
                    raise IdentityError(UNREAD)
                return
            hidden = None if error else _hidden_end(self._connection)
            error = error or hidden
            await self._transaction.__aexit__(type(error) if error else None, error, None)
            if hidden:
                raise hidden

    async def _leave(self) -> None:
        if self._connection.info.transaction_status == TransactionStatus.IDLE:
            await self._connection.set_autocommit(self._autocommit)
        else:
            await self._connection.close()


def has_failed(connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]") -> bool:
    """Whether a statement of the transaction failed, so that it can only be rolled back."""
    return connection.info.transaction_status == TransactionStatus.INERROR


def _require_idle(connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]") -> None:
    # In a pipeline the transaction status is not known yet.
    info = connection.info
    if info.pipeline_status or info.transaction_status != TransactionStatus.IDLE:
        raise IdentityError(ALREADY_BEGUN)


def _hidden_end(
    connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]",
) -> IdentityError | None:
    """Return the error of a transaction that cannot commit, although no error left the block."""
    if connection.closed or connection.info.transaction_status == TransactionStatus.IDLE:
        return IdentityError(ENDED_INSIDE)
    return IdentityError(HIDDEN_ERROR) if has_failed(connection) else None


def _is_busy(connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]") -> bool:
    """Whether a result is still being read: a wait for psycopg's lock would then hang."""
    return connection.info.transaction_status == TransactionStatus.ACTIVE


def begin_as(pgconn: PGconn, user_id: str) -> PQGen[None]:
    """Send BEGIN and the identity, as a parameter, and read both answers: one round trip.

    For a connection that is not in autocommit mode, whose own pipeline waits for the answer to
    BEGIN. `connection.wait` runs it.

    Raises:
        psycopg.Error: the server refused one of them.

    """
    identify = IDENTIFY.replace("%s", "$1").encode()
    commands = deque[Any](
        [
            partial(pgconn.send_query_params, b"BEGIN", None),
            partial(pgconn.send_query_params, identify, [user_id.encode()]),
            pgconn.pipeline_sync,
        ]
    )
    pgconn.enter_pipeline_mode()
    results = yield from pipeline_communicate(pgconn, commands)
    while not (results and results[-1][-1].status == ExecStatus.PIPELINE_SYNC):
        results.append((yield from fetch_many(pgconn)))
    pgconn.exit_pipeline_mode()
    for [result] in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result, encoding="utf-8")
