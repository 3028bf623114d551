"""Saying for whom a transaction acts, so that row security shows that user's rows and no others.

The identity lives in the transaction: it ends with it, on a pooled connection too, and there is
nothing to restore by hand. Whoever forgets to say it sees no rows.
"""

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

OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)

type Kind = type[BaseException] | None
type Trace = TracebackType | None

_KEY = "todo_schema.acting_as"


class IdentityError(RuntimeError):
    """A transaction would act for two users, or has begun without saying for whom."""


def acting_as(
    session: "Session | AsyncSession | psycopg.Connection[Any] | psycopg.AsyncConnection[Any]",
    user_id: UUID,
) -> "_Acting":
    """Act for a user in a `with` block, or in an `async with` block for an async session.

    A SQLAlchemy session says it anew for each transaction that begins in the block, with psycopg
    in the same round trip as BEGIN. A psycopg connection sends BEGIN, the identity and the first
    query in one round trip. The block commits at its end, and rolls back when it raises.

    Inside the block, acting for the same user again is allowed, for another one it is not.

    Raises:
        IdentityError: on entering; the session acts for another user already, or is in a
            transaction that has not said for whom it acts.

    """
    # A text would reach SQL as well, but an id that is no uuid should fail here, not there.
    return _Acting(session, UUID(str(user_id)))


class _Acting:
    """The block; it keeps nothing but what it must undo."""

    def __init__(self, session: Any, user_id: UUID) -> None:  # noqa: ANN401  # see acting_as
        self._session = getattr(session, "sync_session", session)
        self._async = session
        self._user_id = user_id
        self._outermost = True
        self._pipeline: Any = None
        self._autocommit = False

    def __enter__(self) -> None:
        if isinstance(self._session, Session):
            self._enter_session(self._session)
            return
        self._require_idle()
        # psycopg's own BEGIN waits for its answer; in autocommit it is ours to send.
        self._autocommit = self._session.autocommit
        self._session.autocommit = True
        self._pipeline = self._session.pipeline()
        self._pipeline.__enter__()
        self._session.execute("BEGIN")
        self._session.execute(IDENTIFY, [str(self._user_id)])

    def __exit__(self, kind: Kind, error: BaseException | None, trace: Trace) -> None:
        session = self._session
        if isinstance(session, Session):
            if self._outermost:
                try:
                    session.rollback() if kind else session.commit()
                finally:
                    self._leave_session(session)
            return
        try:
            if kind is None:
                session.execute("COMMIT")
            # What is still queued runs now: it may fail, and nothing is committed then.
            self._pipeline.__exit__(kind, error, trace)
        finally:
            if session.info.transaction_status in OPEN:
                session.execute("ROLLBACK")
            session.autocommit = self._autocommit

    async def __aenter__(self) -> None:
        if isinstance(self._session, Session):
            self._enter_session(self._session)
            return
        self._require_idle()
        self._autocommit = self._session.autocommit
        await self._session.set_autocommit(True)
        self._pipeline = self._session.pipeline()
        await self._pipeline.__aenter__()
        await self._session.execute("BEGIN")
        await self._session.execute(IDENTIFY, [str(self._user_id)])

    async def __aexit__(self, kind: Kind, error: BaseException | None, trace: Trace) -> None:
        session = self._session
        if isinstance(session, Session):
            if self._outermost:
                try:
                    await (self._async.rollback() if kind else self._async.commit())
                finally:
                    self._leave_session(session)
            return
        try:
            if kind is None:
                await session.execute("COMMIT")
            await self._pipeline.__aexit__(kind, error, trace)
        finally:
            if session.info.transaction_status in OPEN:
                await session.execute("ROLLBACK")
            await session.set_autocommit(self._autocommit)

    def _require_idle(self) -> None:
        info = self._session.info
        # In a pipeline the status of the transaction is not known yet.
        if info.pipeline_status or info.transaction_status != TransactionStatus.IDLE:
            raise IdentityError(
                "The connection is in a transaction or a pipeline already; end it before acting_as."
            )

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
                "The session is in a transaction that has not said for whom it acts; commit or"
                " roll back before acting_as."
            )
        session.info[_KEY] = self._user_id
        event.listen(session, "after_begin", _identify)

    @staticmethod
    def _leave_session(session: Session) -> None:
        event.remove(session, "after_begin", _identify)
        del session.info[_KEY]


def _identify(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    """Say for whom a transaction that begins acts.

    psycopg waits for the answer to its own BEGIN; where that would be a plain one, both are sent
    as one message instead.
    """
    user_id = session.info[_KEY]
    driver = connection.connection.driver_connection
    if getattr(driver, "autocommit", False):
        raise IdentityError(
            "The session is in autocommit mode, in which an identity ends with its statement."
        )
    if isinstance(driver, psycopg.Connection) and _begins_plainly(driver):
        result = driver.pgconn.exec_(
            f"BEGIN; SELECT set_config('app.user_id', '{user_id}', true)".encode()
        )
        if result.status != ExecStatus.TUPLES_OK:
            raise psycopg.OperationalError(result.get_error_message())
    else:
        connection.execute(
            text("SELECT set_config('app.user_id', :user_id, true)"), {"user_id": str(user_id)}
        )


def _begins_plainly(driver: "psycopg.Connection[Any]") -> bool:
    """Whether the transaction has not begun, and psycopg would send BEGIN without an option."""
    idle = driver.info.transaction_status == TransactionStatus.IDLE
    options = (driver.isolation_level, driver.read_only, driver.deferrable)
    return idle and driver.info.pipeline_status == PipelineStatus.OFF and not any(options)
