"""Set the user of a transaction: row security shows the rows of that user only.

The identity ends with the transaction, on a pooled connection too. A transaction without an
identity sees no rows. This file is for SQLAlchemy, identity_psycopg.py for psycopg's connections.
"""

from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, overload
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import ScopedRegistry

from .identity_psycopg import (
    ALREADY_BEGUN,
    ENDED_INSIDE,
    HIDDEN_ERROR,
    IDENTIFY,
    AsyncPsycopgBlock,
    IdentityError,
    PsycopgBlock,
    begin_as,
    has_failed,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import scoped_session

type Kind = type[BaseException] | None
type Trace = TracebackType | None

_KEY = "todo_schema.acting_as"


@overload
def acting_as(
    target: "Session | scoped_session[Any] | Connection | psycopg.Connection[Any]", user_id: UUID
) -> AbstractContextManager[None, None]: ...


@overload
def acting_as(
    target: (
        "AsyncSession | async_scoped_session[Any] | AsyncConnection | psycopg.AsyncConnection[Any]"
    ),
    user_id: UUID,
) -> AbstractAsyncContextManager[None, None]: ...


def acting_as(
    target: Any, user_id: UUID
) -> AbstractContextManager[None, None] | AbstractAsyncContextManager[None, None]:
    """Act for a user in a `with` block, or in an `async with` block for what is async.

    The target is idle when the block begins, and is idle without identity when it has ended. The
    block commits at its end, and rolls back if it raises. BEGIN and the identity take one round
    trip. A block can be used once.

    The block is one transaction. In a session a commit inside the block is followed by another
    transaction for the same user. A session's objects leave it at both ends of the block; they
    keep the values that they had, a commit inside the block does not expire them either.

    Raises:
        ValueError: the id is not a uuid.
        TypeError: the target is none of these, or the `with` is of the other kind.
        IdentityError: at the start, if the target is in a transaction, holds unwritten objects, or
            is in autocommit mode (psycopg's own connections may be); at the end, if a statement
            failed and its error was caught, or a result was not read to its end, so that nothing
            was committed.

    """
    user = _uuid(user_id)
    target = _scoped(target)
    if isinstance(target, Session):
        return _Block(_SessionBlock(target, user))
    if isinstance(target, Connection):
        return _Block(_ConnectionBlock(target, user))
    if isinstance(target, psycopg.Connection):
        return _Block(PsycopgBlock(target, user))
    if isinstance(target, psycopg.AsyncConnection):
        return _AsyncBlock(AsyncPsycopgBlock(target, user))
    # Not isinstance: an application without async need not load SQLAlchemy's asyncio package.
    if isinstance(session := getattr(target, "sync_session", None), Session):
        return _AsyncBlock(_InGreenlet(target, _SessionBlock(session, user)))
    if isinstance(connection := getattr(target, "sync_connection", None), Connection):
        return _AsyncBlock(_InGreenlet(target, _ConnectionBlock(connection, user)))
    raise TypeError(
        "acting_as takes a session or a connection of SQLAlchemy or psycopg, opened already; it got"
        f" {type(target).__name__}."
    )


def _uuid(user_id: object) -> str:
    """Return the id as text: what is none should fail here, not in SQL."""
    try:
        return str(UUID(str(user_id)))
    except ValueError:
        raise ValueError(
            f"acting_as needs the user's id, a UUID; it got {type(user_id).__name__}."
        ) from None


def _scoped(target: Any) -> Any:  # noqa: ANN401  # anything
    """Return the session of a scoped session, and anything else as it is."""
    registry = getattr(target, "registry", None)
    return registry() if isinstance(registry, ScopedRegistry) else target


class _Block:
    """The context manager of what is sync. It can be used once."""

    asynchronous: ClassVar[bool] = False

    def __init__(self, block: Any) -> None:  # noqa: ANN401  # each class below, and psycopg's
        self._block = block
        self._used = False

    def _begin(self, *, asynchronous: bool) -> Any:  # noqa: ANN401  # None, or a coroutine
        if asynchronous is not self.asynchronous:
            wanted = "async with" if self.asynchronous else "with"
            raise TypeError(f"Use `{wanted} acting_as(…)` for this session or connection.")
        if self._used:
            raise IdentityError("A block can be used once; call acting_as again.")
        self._used = True
        return self._block.begin()

    def __enter__(self) -> None:
        self._begin(asynchronous=False)

    def __exit__(self, _kind: Kind, error: BaseException | None, _trace: Trace) -> None:
        self._block.end(error)

    async def __aenter__(self) -> None:
        await self._begin(asynchronous=True)

    async def __aexit__(self, _kind: Kind, error: BaseException | None, _trace: Trace) -> None:
        await self._block.end(error)


class _AsyncBlock(_Block):
    """The context manager of what is async."""

    asynchronous = True


class _InGreenlet:
    """A block of SQLAlchemy's sync classes below an async session or connection."""

    def __init__(self, target: Any, block: "_SessionBlock | _ConnectionBlock") -> None:  # noqa: ANN401  # AsyncSession or AsyncConnection
        self._target = target
        self._block = block

    async def begin(self) -> None:
        await self._target.run_sync(lambda _sync: self._block.begin())

    async def end(self, error: BaseException | None) -> None:
        await self._target.run_sync(lambda _sync: self._block.end(error))


class _SessionBlock:
    """The transactions of a session that act for one user."""

    def __init__(self, session: Session, user_id: str) -> None:
        self._session = session
        self._user_id = user_id
        self._expires = session.expire_on_commit
        self._connections: list[Connection] = []
        self._ending = False

    def begin(self) -> None:
        """Begin on an idle connection; afterwards the session holds no object."""
        session = self._session
        if _KEY in session.info:
            raise IdentityError("The session acts for a user already; end that block first.")
        if isinstance(session.bind, Connection):
            _require_idle(session.bind)
        # SQLAlchemy writes them before the next statement, under the identity of this block.
        if session.new or session.dirty or session.deleted:
            raise IdentityError(
                "The session holds objects that are not written yet; add and change them inside the"
                " block."
            )
        with ExitStack() as undo:
            undo.callback(self._leave)
            session.info[_KEY] = self._user_id
            event.listen(session, "after_begin", self._identify)
            event.listen(session, "before_commit", self._refuse_failed)
            begun = session.get_transaction()
            try:
                session.connection()
            except BaseException:
                if begun is None:
                    _end_whatever_happens(session)
                raise
            if not self._connections:
                raise IdentityError(ALREADY_BEGUN)
            session.expunge_all()
            session.expire_on_commit = False
            undo.pop_all()

    def end(self, error: BaseException | None) -> None:
        """Commit, or roll back after an error; the objects leave the session with their values."""
        session = self._session
        with ExitStack() as leave:
            leave.callback(self._leave)
            leave.callback(_end_whatever_happens, session)
            if error is None:
                if not session.is_active:
                    raise IdentityError(HIDDEN_ERROR)
                self._refuse_failed(session)
                _load_expired(session)
            # Before the end: a session expires the objects that it still holds.
            session.expunge_all()
            # A transaction that a listener begins from here on has no identity.
            self._ending = True
            if error is None:
                session.commit()

    def _identify(
        self, _session: Session, transaction: SessionTransaction, connection: Connection
    ) -> None:
        # A savepoint begins inside a transaction that has the identity.
        if not transaction.nested and not self._ending:
            _identify(connection, self._user_id)
            self._connections.append(connection)

    def _refuse_failed(self, session: Session) -> None:
        session.flush()  # what a commit would do after this
        for connection in self._connections:
            if not connection.closed:
                _refuse_failed(connection)

    def _leave(self) -> None:
        session = self._session
        for name, listener in (
            ("after_begin", self._identify),
            ("before_commit", self._refuse_failed),
        ):
            if event.contains(session, name, listener):
                event.remove(session, name, listener)
        del session.info[_KEY]
        session.expire_on_commit = self._expires


def _load_expired(session: Session) -> None:
    """Load what a savepoint or a bulk statement has expired: an object keeps its values."""
    for found in list(session):
        if inspect(found).expired_attributes:
            with suppress(InvalidRequestError):  # its row is gone
                session.refresh(found)


def _end_whatever_happens(session: Session) -> None:
    """Roll back what is open; discard the connection if that is interrupted."""
    session.expunge_all()
    try:
        session.rollback()
    except BaseException:
        session.invalidate()
        raise


class _ConnectionBlock:
    """The transaction of a connection of SQLAlchemy that acts for one user."""

    def __init__(self, connection: Connection, user_id: str) -> None:
        self._connection = connection
        self._user_id = user_id
        self._leave = ExitStack()

    def begin(self) -> None:
        """Begin on an idle connection."""
        _require_idle(self._connection)
        with ExitStack() as undo:
            # Inside it, SQLAlchemy refuses statements after a commit.
            undo.enter_context(self._connection.begin())
            _identify(self._connection, self._user_id)
            self._leave = undo.pop_all()

    def end(self, error: BaseException | None) -> None:
        """Commit, or roll back after an error."""
        connection = self._connection
        try:
            if error is not None:
                self._leave.__exit__(type(error), error, error.__traceback__)
                return
            with self._leave:
                _refuse_ended(connection)
                _refuse_failed(connection)
        except IdentityError:
            raise
        except BaseException:
            # A connection whose end failed may still have the identity.
            if not connection.closed and not connection.invalidated:
                connection.invalidate()
            raise


def _require_idle(connection: Connection) -> None:
    """Raise if the connection is in a transaction, also one that SQLAlchemy does not know of."""
    driver = None if connection.closed else connection.connection.driver_connection
    if connection.in_transaction() or (
        isinstance(driver, psycopg.Connection | psycopg.AsyncConnection)
        and driver.info.transaction_status != TransactionStatus.IDLE
    ):
        raise IdentityError(ALREADY_BEGUN)


def _refuse_ended(connection: Connection) -> None:
    """Raise if the transaction has ended inside the block."""
    if connection.closed or not connection.in_transaction():
        raise IdentityError(ENDED_INSIDE)


def _refuse_failed(connection: Connection) -> None:
    """Raise if a statement failed: PostgreSQL would answer COMMIT by rolling back, in silence."""
    driver = connection.connection.driver_connection
    if isinstance(driver, psycopg.Connection | psycopg.AsyncConnection):
        if has_failed(driver):
            raise IdentityError(HIDDEN_ERROR)
        return
    if not connection.in_transaction():
        return
    # Only psycopg knows the transaction's state.
    try:
        connection.execute(text("SELECT 1"))
    except DBAPIError as error:
        raise error if error.connection_invalidated else IdentityError(HIDDEN_ERROR) from error


def _identify(connection: Connection, user_id: str) -> None:
    """Begin the connection's transaction, which is still to be sent, with an identity."""
    pooled: Any = connection.connection
    driver = pooled.driver_connection
    if connection.dialect.detect_autocommit_setting(pooled.dbapi_connection):
        raise IdentityError(
            "In autocommit mode an identity ends with its statement; use an engine without"
            " isolation_level AUTOCOMMIT."
        )
    if (
        isinstance(driver, psycopg.Connection | psycopg.AsyncConnection)
        # A listener, or a two-phase transaction, may have sent BEGIN already.
        and driver.info.transaction_status == TransactionStatus.IDLE
        # With options, psycopg's own BEGIN has them.
        and not any((driver.isolation_level, driver.read_only, driver.deferrable))
    ):
        _begin_in_one_round_trip(connection, driver, user_id)
        return
    connection.execute(text(IDENTIFY.replace("%s", ":user_id")), {"user_id": user_id})


def _begin_in_one_round_trip(
    connection: Connection,
    driver: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]",
    user_id: str,
) -> None:
    """Raise SQLAlchemy's errors, and discard the connection after any."""
    try:
        if isinstance(driver, psycopg.Connection):
            driver.wait(begin_as(driver.pgconn, user_id))
        else:
            waiting: Any = connection.connection.dbapi_connection
            waiting.run_async(lambda own: own.wait(begin_as(own.pgconn, user_id)))
    except BaseException as error:
        connection.invalidate(error if isinstance(error, Exception) else None)
        if isinstance(error, psycopg.Error):
            raise DBAPIError.instance(
                IDENTIFY,
                None,
                error,
                psycopg.Error,
                connection_invalidated=True,
                dialect=connection.dialect,
            ) from error
        raise
