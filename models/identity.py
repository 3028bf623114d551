"""Set the user of a transaction: row security shows the rows of that user only.

The identity ends with the transaction, on a pooled connection too. A transaction without an
identity sees no rows.
"""

from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg.pq import ExecStatus, PipelineStatus, TransactionStatus
from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session, SessionTransaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

IDENTIFY = "SELECT set_config('app.user_id', %s, true)"

type Kind = type[BaseException] | None
type Trace = TracebackType | None

_KEY = "todo_schema.acting_as"
_DRIVER = "todo_schema.driver"

# PostgreSQL answers COMMIT of a failed transaction with ROLLBACK, without an error.
_HIDDEN_ERROR = (
    "A statement of the block failed and its error was caught inside, so the block was rolled back;"
    " put a statement that may fail into a savepoint (session.begin_nested() or"
    " connection.transaction())."
)
_UNREAD = (
    "An answer was not read to its end (a stream or a COPY), so nothing was committed and the"
    " connection was closed; close the generator, or end the COPY, inside the block."
)


class IdentityError(RuntimeError):
    """The block cannot act for this user, or could not commit."""


def acting_as(
    session: "Session | AsyncSession | psycopg.Connection[Any] | psycopg.AsyncConnection[Any]",
    user_id: UUID,
) -> "_Acting":
    """Act for a user in a `with` block, or in an `async with` block for an async session.

    The block commits at its end, and rolls back if it raises. In a SQLAlchemy session each
    transaction of the block gets the identity. On a psycopg connection the block is one
    transaction. With psycopg, BEGIN and the identity take one round trip.

    Blocks of one session can be nested, but only for the same user.

    Raises:
        IdentityError: at the start of the block, if the session acts for another user or has begun
            a transaction without an identity; at the end of a psycopg connection's block, if a
            statement failed or a result was not read to its end, so that nothing was committed.

    """
    # An invalid uuid should fail here, not in SQL.
    return _Acting(session, UUID(str(user_id)))


class _Acting:
    """Context manager returned by `acting_as`."""

    def __init__(self, session: Any, user_id: UUID) -> None:  # noqa: ANN401  # see acting_as
        self._session = getattr(session, "sync_session", session)
        self._async = session
        self._user_id = user_id
        self._outermost = True
        self._transaction: Any = None
        self._autocommit = False

    def __enter__(self) -> None:
        connection = self._session
        if isinstance(connection, Session):
            self._enter_session(connection)
            return
        _require_idle(connection)
        self._autocommit = connection.autocommit
        # connection.transaction() would keep a pipeline open in the block.
        self._transaction = psycopg.Transaction(connection)
        with ExitStack() as undo:
            undo.callback(self._leave_connection)
            # Without autocommit psycopg sends its own BEGIN and waits for the answer.
            connection.autocommit = True
            # Only BEGIN and the identity share a pipeline, so that each statement of the block
            # raises its own error.
            with connection.pipeline():
                undo.enter_context(self._transaction)
                connection.execute(IDENTIFY, [str(self._user_id)], prepare=False)
            undo.pop_all()

    def __exit__(self, kind: Kind, error: BaseException | None, trace: Trace) -> None:
        session = self._session
        if isinstance(session, Session):
            if self._outermost:
                try:
                    session.rollback() if kind else session.commit()
                except IdentityError:
                    session.rollback()
                    raise
                finally:
                    self._leave_session(session)
            return
        with ExitStack() as leave:
            leave.callback(self._leave_connection)
            if _is_busy(session):
                if kind is None:
                    raise IdentityError(_UNREAD)
                return
            if kind is None and session.info.transaction_status == TransactionStatus.INERROR:
                hidden = IdentityError(_HIDDEN_ERROR)
                self._transaction.__exit__(type(hidden), hidden, None)
                raise hidden
            self._transaction.__exit__(kind, error, trace)

    def _leave_connection(self) -> None:
        """Restore the autocommit setting, or close a connection that a pool must not reuse."""
        if self._session.info.transaction_status == TransactionStatus.IDLE:
            self._session.autocommit = self._autocommit
        else:
            self._session.close()

    async def __aenter__(self) -> None:
        connection = self._session
        if isinstance(connection, Session):
            self._enter_session(connection)
            return
        _require_idle(connection)
        self._autocommit = connection.autocommit
        self._transaction = psycopg.AsyncTransaction(connection)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._leave_async_connection)
            await connection.set_autocommit(True)
            async with connection.pipeline():
                await undo.enter_async_context(self._transaction)
                await connection.execute(IDENTIFY, [str(self._user_id)], prepare=False)
            undo.pop_all()

    async def __aexit__(self, kind: Kind, error: BaseException | None, trace: Trace) -> None:
        session = self._session
        if isinstance(session, Session):
            if self._outermost:
                try:
                    await (self._async.rollback() if kind else self._async.commit())
                except IdentityError:
                    await self._async.rollback()
                    raise
                finally:
                    self._leave_session(session)
            return
        async with AsyncExitStack() as leave:
            leave.push_async_callback(self._leave_async_connection)
            if _is_busy(session):
                if kind is None:
                    raise IdentityError(_UNREAD)
                return
            if kind is None and session.info.transaction_status == TransactionStatus.INERROR:
                hidden = IdentityError(_HIDDEN_ERROR)
                await self._transaction.__aexit__(type(hidden), hidden, None)
                raise hidden
            await self._transaction.__aexit__(kind, error, trace)

    async def _leave_async_connection(self) -> None:
        if self._session.info.transaction_status == TransactionStatus.IDLE:
            await self._session.set_autocommit(self._autocommit)
        else:
            await self._session.close()

    def _enter_session(self, session: Session) -> None:
        current = session.info.get(_KEY)
        if current is not None:
            if current != self._user_id:
                raise IdentityError(
                    f"The session acts for user {current} already; end that block before acting"
                    f" for user {self._user_id}."
                )
            self._outermost = False
            return
        if session.in_transaction():
            raise IdentityError(
                "The session is already in a transaction, without an identity; commit or roll back"
                " before acting_as."
            )
        session.info[_KEY] = self._user_id
        event.listen(session, "after_begin", _identify)
        event.listen(session, "before_commit", _refuse_failed_transaction)

    @staticmethod
    def _leave_session(session: Session) -> None:
        event.remove(session, "after_begin", _identify)
        event.remove(session, "before_commit", _refuse_failed_transaction)
        del session.info[_KEY]
        session.info.pop(_DRIVER, None)


def _require_idle(connection: Any) -> None:  # noqa: ANN401  # psycopg's, sync or async
    # In a pipeline the transaction status is not known yet.
    info = connection.info
    if info.pipeline_status or info.transaction_status != TransactionStatus.IDLE:
        raise IdentityError(
            "The connection is in a transaction or a pipeline already; end it before acting_as."
        )


def _is_busy(connection: Any) -> bool:  # noqa: ANN401  # psycopg's, sync or async
    """Whether a result is still being read: a wait for psycopg's lock would then hang."""
    return bool(connection.info.transaction_status == TransactionStatus.ACTIVE)


def _refuse_failed_transaction(session: Session) -> None:
    """Raise instead of a COMMIT that PostgreSQL would answer by rolling back."""
    driver = session.info.get(_DRIVER)
    if (
        isinstance(driver, psycopg.Connection | psycopg.AsyncConnection)
        and driver.info.transaction_status == TransactionStatus.INERROR
    ):
        raise IdentityError(_HIDDEN_ERROR)


def _identify(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    """Set the identity of a new transaction.

    psycopg waits for the answer to its own BEGIN, so a BEGIN without options is sent here, in one
    message with the identity.
    """
    user_id = session.info[_KEY]
    driver = session.info[_DRIVER] = connection.connection.driver_connection
    if getattr(driver, "autocommit", False):
        raise IdentityError(
            "The session is in autocommit mode, in which an identity ends with its statement."
        )
    if isinstance(driver, psycopg.Connection) and _uses_default_begin(driver):
        result = driver.pgconn.exec_(
            f"BEGIN; SELECT set_config('app.user_id', '{user_id}', true)".encode()
        )
        if result.status != ExecStatus.TUPLES_OK:
            raise psycopg.OperationalError(result.get_error_message())
    else:
        connection.execute(
            text("SELECT set_config('app.user_id', :user_id, true)"), {"user_id": str(user_id)}
        )


def _uses_default_begin(driver: "psycopg.Connection[Any]") -> bool:
    """Whether the transaction has not begun, and psycopg would send BEGIN without options."""
    idle = driver.info.transaction_status == TransactionStatus.IDLE
    options = (driver.isolation_level, driver.read_only, driver.deferrable)
    return idle and driver.info.pipeline_status == PipelineStatus.OFF and not any(options)
