"""Saying for whom a transaction acts, so that row security shows that user's rows and no others.

The identity lives in the transaction: it ends with it, on a pooled connection too, and there is
nothing to restore by hand. Whoever forgets to say it sees no rows.
"""

from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session, SessionTransaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

IDENTIFY = "SELECT set_config('app.user_id', %s, true)"

_KEY = "todo_schema.acting_as"


class IdentityError(RuntimeError):
    """A transaction would act for two users, or has begun without saying for whom."""


def acting_as(
    session: "Session | AsyncSession | psycopg.Connection[Any] | psycopg.AsyncConnection[Any]",
    user_id: UUID,
) -> "_Acting":
    """Act for a user in a `with` block, or in an `async with` block for an async session.

    A SQLAlchemy session says it anew for each transaction that begins in the block, in the same
    round trip as BEGIN; the block commits at its end, and rolls back when it raises. A psycopg
    connection sends BEGIN, the identity and the first query in one round trip, and commits too.

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

    def __enter__(self) -> None:
        if isinstance(self._session, Session):
            self._enter_session(self._session)
        else:
            _require_idle(self._session)
            self._pipeline = self._session.pipeline()
            self._pipeline.__enter__()
            self._session.execute(IDENTIFY, [str(self._user_id)])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(self._session, Session):
            # What is still queued runs first: it may fail, and is then not committed.
            try:
                self._pipeline.__exit__(kind, error, trace)
            except BaseException:
                self._session.rollback()
                raise
            self._session.rollback() if kind else self._session.commit()
        elif self._outermost:
            try:
                self._session.rollback() if kind else self._session.commit()
            finally:
                self._leave_session(self._session)

    async def __aenter__(self) -> None:
        if isinstance(self._session, Session):
            self._enter_session(self._session)
        else:
            _require_idle(self._session)
            self._pipeline = self._session.pipeline()
            await self._pipeline.__aenter__()
            await self._session.execute(IDENTIFY, [str(self._user_id)])

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(self._session, Session):
            try:
                await self._pipeline.__aexit__(kind, error, trace)
            except BaseException:
                await self._session.rollback()
                raise
            await (self._session.rollback() if kind else self._session.commit())
        elif self._outermost:
            try:
                await (self._async.rollback() if kind else self._async.commit())
            finally:
                self._leave_session(self._session)

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


def _require_idle(connection: Any) -> None:  # noqa: ANN401  # psycopg's, sync or async
    if connection.info.transaction_status != TransactionStatus.IDLE:
        raise IdentityError(
            "The connection is in a transaction already; commit or roll back before acting_as."
        )
    if connection.autocommit:
        raise IdentityError(
            "The connection is in autocommit mode, in which an identity ends with its statement;"
            " turn autocommit off."
        )


def _identify(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    """Say for whom a transaction that begins acts; psycopg sends it together with BEGIN."""
    user_id = str(session.info[_KEY])
    adapted = connection.connection
    driver = adapted.driver_connection
    if isinstance(driver, psycopg.Connection):
        with driver.pipeline():
            driver.execute(IDENTIFY, [user_id])
    elif isinstance(driver, psycopg.AsyncConnection):

        async def identify(raw: psycopg.AsyncConnection[Any]) -> None:
            async with raw.pipeline():
                await raw.execute(IDENTIFY, [user_id])

        adapted.dbapi_connection.run_async(identify)  # type: ignore[union-attr]  # async dialects'
    else:
        connection.execute(text("SELECT set_config('app.user_id', :user, true)"), {"user": user_id})
