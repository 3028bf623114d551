"""`acting_as` behaves alike on everything that it takes.

The theory: a block begins on an idle connection or is refused before anything is done, each error
comes from the statement that caused it, and however the block ends, nothing of the identity is
left: in the transaction, in the pool, among the session's objects.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import CheckViolation
from psycopg.pq import Trace, TransactionStatus
from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlmodel import Session

from models import IdentityError, acting_as
from tests.support.servers import conninfo, proxy
from tests.support.users import ALICE, BOB
from tests.support.wire import trips

pytestmark = [pytest.mark.usefixtures("users"), pytest.mark.anyio]

SYNC = ("session", "scoped", "connection", "psycopg")
KINDS = (*SYNC, *(f"async-{kind}" for kind in SYNC))
EACH = [
    pytest.param(kind, marks=pytest.mark.slow if kind.endswith("scoped") else ()) for kind in KINDS
]
"""The quick tier leaves out what only finds another session."""


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of the async tests."""
    return "asyncio"


@dataclass
class Subject:
    """Something that acting_as takes, with one pooled connection."""

    kind: str
    target: Any
    reopen: Callable[[], Awaitable[None]]
    """Return the connection to its pool and take one again, as the next request does."""

    @property
    def is_async(self) -> bool:
        """Whether its methods are awaited."""
        return self.kind.startswith("async")

    @property
    def is_psycopg(self) -> bool:
        """Whether it is a connection of psycopg, which has no pool here."""
        return self.kind.endswith("psycopg")

    async def call(self, method: str, *arguments: Any) -> Any:  # noqa: ANN401  # the library's
        """Call a method, and await its result if it is async."""
        result = getattr(self.target, method)(*arguments)
        return await result if self.is_async else result

    async def run(self, statement: str) -> list[Any]:
        """Execute a statement and return its rows."""
        if not self.is_psycopg:
            result = await self.call("execute", text(statement))
            return list(result.all()) if result.returns_rows else []
        cursor = await self.call("execute", statement)
        if not cursor.description:
            return []
        rows: Any = cursor.fetchall()
        found: list[Any] = await rows if self.is_async else rows
        return found

    @asynccontextmanager
    async def acting(self, user: UUID) -> AsyncIterator[None]:
        """Act for the user, in the right kind of `with`."""
        block: Any = acting_as(self.target, user)
        if self.is_async:
            async with block:
                yield
        else:
            with block:
                yield

    async def add(self, title: str) -> None:
        """Add a todo of the acting user."""
        await self.run(f"INSERT INTO todo (title) VALUES ('{title}')")

    async def titles(self) -> list[str]:
        """Return the visible todos' titles."""
        return [title for (title,) in await self.run("SELECT title FROM todo ORDER BY title")]

    async def titles_of(self, user: UUID) -> list[str]:
        """Return them in a block of their own."""
        async with self.acting(user):
            return await self.titles()

    async def driver(self) -> Any:  # noqa: ANN401  # psycopg's connection, sync or async
        """Return psycopg's connection; outside a block this begins a transaction."""
        if self.is_psycopg:
            return self.target
        connection = self.target
        if not self.kind.endswith("connection"):
            connection = await self.call("connection")
        if self.is_async:
            return (await connection.get_raw_connection()).driver_connection
        return connection.connection.driver_connection

    async def require_no_identity(self) -> None:
        """Assert that the next request can use the connection, as nobody and as Bob."""
        await self.reopen()
        assert await self.titles() == []
        await self.call("rollback")
        assert await self.titles_of(BOB) == []


@asynccontextmanager
async def opened(kind: str, url: URL, **options: Any) -> AsyncIterator[Subject]:  # noqa: ANN401  # the engine's
    """Open a subject of the kind."""
    if kind == "psycopg":
        connection = psycopg.connect(conninfo(url))
        subject = Subject(kind, connection, _nothing)
        subject.reopen = _reconnect(subject, lambda: psycopg.connect(conninfo(url)))
        yield subject
        subject.target.close()
    elif kind == "async-psycopg":
        subject = Subject(kind, await psycopg.AsyncConnection.connect(conninfo(url)), _nothing)
        subject.reopen = _reconnect(subject, lambda: psycopg.AsyncConnection.connect(conninfo(url)))
        yield subject
        await subject.target.close()
    elif kind.startswith("async"):
        engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=5, **options)
        make = {
            "async-session": lambda: AsyncSession(engine),
            "async-scoped": lambda: async_scoped_session(
                async_sessionmaker(engine), scopefunc=lambda: None
            ),
            "async-connection": engine.connect,
        }[kind]
        target: Any = make()
        subject = Subject(kind, await target if kind.endswith("connection") else target, _nothing)

        async def reopen() -> None:
            with suppress(DBAPIError):
                await subject.target.close()
            again: Any = make()
            subject.target = await again if kind.endswith("connection") else again

        subject.reopen = reopen
        try:
            yield subject
        finally:
            await subject.target.close()
            await engine.dispose()
    else:
        plain = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=5, **options)
        make_sync: Callable[[], Any] = {
            "session": lambda: Session(plain),
            "scoped": lambda: scoped_session(sessionmaker(plain)),
            "connection": plain.connect,
        }[kind]
        subject = Subject(kind, make_sync(), _nothing)

        async def reopen_sync() -> None:
            with suppress(DBAPIError):
                subject.target.close()
            subject.target = make_sync()

        subject.reopen = reopen_sync
        try:
            yield subject
        finally:
            subject.target.close()
            plain.dispose()


async def _nothing() -> None:
    """Do nothing."""


def _reconnect(subject: Subject, connect: Callable[[], Any]) -> Callable[[], Awaitable[None]]:
    """Return what a pool of psycopg does: it replaces a closed connection."""

    async def reopen() -> None:
        if subject.target.closed:
            made = connect()
            subject.target = await made if subject.is_async else made
        else:
            assert subject.target.info.transaction_status == TransactionStatus.IDLE
            assert not subject.target.autocommit

    return reopen


PAUSE = 0.003
"""Seconds before each message, both ways; an answer of a local server takes less."""


@pytest.fixture(
    params=[
        *EACH,
        *(pytest.param(f"slow {kind}", marks=pytest.mark.slow) for kind in KINDS),
    ]
)
async def subject(request: pytest.FixtureRequest, application: URL) -> AsyncIterator[Subject]:
    """Each thing that acting_as takes, also far from its server."""
    kind: str = request.param
    with ExitStack() as stack:
        url = application
        if kind.startswith("slow"):
            through = stack.enter_context(proxy(server_of(application), PAUSE))
            url = application.set(host="127.0.0.1", port=through.port, query={})
        async with opened(kind.removeprefix("slow "), url) as made:
            yield made


def server_of(url: URL) -> int | Path:
    """Return the port or the socket of the server."""
    if "host" in url.query:
        return Path(str(url.query["host"]), ".s.PGSQL.5432")
    return url.port or 5432


async def test_a_block_commits_for_its_user(subject: Subject) -> None:
    """The work is committed, and the next user does not see it."""
    async with subject.acting(ALICE):
        await subject.add("one")
        await subject.add("two")
        assert await subject.titles() == ["one", "two"]
    await subject.require_no_identity()
    assert await subject.titles_of(ALICE) == ["one", "two"]


async def test_a_block_that_raises_is_rolled_back(subject: Subject) -> None:
    """An error of the application, and a statement's own error at that statement."""
    with pytest.raises(ZeroDivisionError):
        async with subject.acting(ALICE):
            await subject.add("lost")
            raise ZeroDivisionError
    await subject.require_no_identity()
    with pytest.raises((CheckViolation, DBAPIError), match="title_not_blank"):
        async with subject.acting(ALICE):
            with pytest.raises((CheckViolation, DBAPIError)) as at_the_statement:
                await subject.add(" ")
            raise at_the_statement.value
    await subject.require_no_identity()
    assert await subject.titles_of(ALICE) == []


async def test_a_hidden_error_is_told_at_the_end(subject: Subject) -> None:
    """PostgreSQL answers COMMIT of a failed transaction with ROLLBACK, without an error."""
    with pytest.raises(IdentityError, match="rolled back"):
        async with subject.acting(ALICE):
            await subject.add("lost")
            with pytest.raises((CheckViolation, DBAPIError)):
                await subject.add(" ")
    await subject.require_no_identity()
    assert await subject.titles_of(ALICE) == []


async def test_a_transaction_that_has_begun_is_refused(subject: Subject) -> None:
    """Its earlier statements had no identity; it goes on as it was."""
    (before,) = await subject.run("SELECT pg_current_xact_id()::text")
    with pytest.raises(IdentityError, match="already"):
        async with subject.acting(ALICE):
            pytest.fail("the block began")
    assert await subject.run("SELECT pg_current_xact_id()::text") == [before]
    assert await subject.titles() == []


async def test_a_block_in_a_block_is_refused(subject: Subject) -> None:
    """For another user and for the same; the outer one goes on."""
    async with subject.acting(ALICE):
        await subject.add("outer")
        for user in (BOB, ALICE):
            with pytest.raises(IdentityError, match="already"):
                async with subject.acting(user):
                    pytest.fail("the block began")
        assert await subject.titles() == ["outer"]
    assert await subject.titles_of(ALICE) == ["outer"]


async def test_a_block_is_used_once(subject: Subject) -> None:
    """Inside itself and afterwards."""
    block: Any = acting_as(subject.target, ALICE)
    begin, end = ("__aenter__", "__aexit__") if subject.is_async else ("__enter__", "__exit__")

    async def do(method: str, *arguments: None) -> None:
        result = getattr(block, method)(*arguments)
        if subject.is_async:
            await result

    await do(begin)
    with pytest.raises(IdentityError, match="used once"):
        await do(begin)
    await subject.add("kept")
    await do(end, None, None, None)
    with pytest.raises(IdentityError, match="used once"):
        await do(begin)
    await subject.require_no_identity()
    assert await subject.titles_of(ALICE) == ["kept"]


async def test_the_wrong_kind_of_with_is_refused_first(subject: Subject) -> None:
    """Nothing is sent, and the right kind works then."""
    block: Any = acting_as(subject.target, ALICE)
    with pytest.raises(TypeError, match=r"Use `(async )?with acting_as"):
        if subject.is_async:
            with block:
                pytest.fail("the block began")
        else:
            async with block:
                pytest.fail("the block began")
    await subject.require_no_identity()


@pytest.mark.parametrize("stranger", [None, "url", 7, Session], ids=str)
async def test_a_stranger_is_refused_at_once(stranger: Any) -> None:  # noqa: ANN401  # anything
    """The call itself raises."""
    with pytest.raises(TypeError, match="takes a session or a connection"):
        acting_as(stranger, ALICE)


async def test_an_id_that_is_no_uuid_is_refused_at_once(subject: Subject) -> None:
    """The call itself raises."""
    with pytest.raises(ValueError, match="needs the user's id, a UUID; it got str"):
        acting_as(subject.target, "alice")  # type: ignore[call-overload]  # the mistake


async def test_an_end_inside_the_block_is_told(subject: Subject) -> None:
    """A rollback, or SQL that rolls back: nothing is committed, and the end says so."""
    if subject.kind.removeprefix("async-") not in {"connection", "psycopg"}:
        return  # a session goes on with another transaction
    with pytest.raises(IdentityError, match="ended inside the block"):
        async with subject.acting(ALICE):
            await subject.add("lost")
            if subject.is_psycopg:
                await subject.run("ROLLBACK")
            else:
                await subject.call("rollback")
    await subject.require_no_identity()
    assert await subject.titles_of(ALICE) == []


async def test_a_lost_connection_is_an_error_and_is_replaced(
    subject: Subject, superusers: dict[int, URL]
) -> None:
    """The next statement raises, and the next request gets another connection."""
    (superuser, *_) = superusers.values()
    with pytest.raises((psycopg.OperationalError, DBAPIError)):
        async with subject.acting(ALICE):
            await subject.add("lost")
            pid = (await subject.driver()).info.backend_pid
            with psycopg.connect(conninfo(superuser), autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
            await subject.add("lost, too")
    await subject.require_no_identity()
    assert await subject.titles_of(ALICE) == []


async def test_the_id_is_a_parameter(subject: Subject, superusers: dict[int, URL]) -> None:
    """pg_stat_activity shows the statement, and not for whom it acts."""
    (superuser, *_) = superusers.values()
    async with subject.acting(ALICE):
        pid = (await subject.driver()).info.backend_pid
        with psycopg.connect(conninfo(superuser)) as connection:
            shown = connection.execute(
                "SELECT query, state FROM pg_stat_activity WHERE pid = %s", [pid]
            ).fetchone()
    assert shown is not None
    assert "app.user_id" in shown[0]
    assert str(ALICE) not in shown[0]
    assert shown[1] == "idle in transaction"


async def test_a_transaction_takes_three_round_trips(subject: Subject, tmp_path: Path) -> None:
    """One for BEGIN and the identity, one for the query, one for COMMIT."""
    await subject.titles_of(ALICE)  # what SQLAlchemy asks a new connection for
    pgconn = (await subject.driver()).pgconn
    await subject.call("rollback")
    with (tmp_path / "trace").open("w") as trace:
        pgconn.trace(trace.fileno())
        pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
        await subject.titles_of(ALICE)
        pgconn.untrace()
    assert trips(tmp_path / "trace") == 3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.endswith("psycopg")])
@pytest.mark.parametrize(
    "options", [{"isolation_level": "AUTOCOMMIT"}, {"isolation_level": "SERIALIZABLE"}], ids=str
)
async def test_the_engines_isolation_level_counts(
    application: URL, kind: str, options: dict[str, str]
) -> None:
    """In autocommit mode the block is refused: its identity would end with its statement."""
    async with opened(kind, application, **options) as subject:
        if options["isolation_level"] == "AUTOCOMMIT":
            with pytest.raises(IdentityError, match="autocommit"):
                async with subject.acting(ALICE):
                    pytest.fail("the block began")
            return
        async with subject.acting(ALICE):
            [(level,)] = await subject.run("SHOW transaction_isolation")
            assert level == "serializable"
            await subject.add("one")
            assert await subject.titles() == ["one"]


@pytest.mark.parametrize("kind", ["async-session", "async-connection"])
async def test_asyncpg_acts_alike(application: URL, kind: str) -> None:
    """SQLAlchemy's other async driver: commit, an error, a hidden error, autocommit."""
    url = application.set(drivername="postgresql+asyncpg")
    async with opened(kind, url) as subject:
        async with subject.acting(ALICE):
            await subject.add("one")
        await subject.require_no_identity()
        with pytest.raises(DBAPIError, match="title_not_blank"):
            async with subject.acting(ALICE):
                await subject.add("lost")
                await subject.add(" ")
        with pytest.raises(IdentityError, match="rolled back"):
            async with subject.acting(ALICE):
                await subject.add("lost")
                with pytest.raises(DBAPIError):
                    await subject.add(" ")
        await subject.require_no_identity()
        assert await subject.titles_of(ALICE) == ["one"]
    async with opened(kind, url, isolation_level="AUTOCOMMIT") as subject:
        with pytest.raises(IdentityError, match="autocommit"):
            async with subject.acting(ALICE):
                pytest.fail("the block began")


async def work(subject: Subject) -> None:
    """A block of three statements."""
    async with subject.acting(ALICE):
        await subject.add("one")
        await subject.titles()
        await subject.add("two")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("async")])
async def test_a_cancellation_at_any_await_leaves_nothing(application: URL, kind: str) -> None:
    """After any number of turns of the loop: all or nothing, and no identity."""
    async with opened(kind, application) as subject:
        for turns in range(200):
            task = asyncio.ensure_future(work(subject))
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.done():
                break
            task.cancel()
            await asyncio.wait([task])
            await subject.require_no_identity()
            assert await subject.titles_of(ALICE) in ([], ["one", "two"])
            async with subject.acting(ALICE):
                await subject.run("DELETE FROM todo")
        else:
            pytest.fail("the block has more turns than were tried")


@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", EACH)
async def test_a_connection_cut_at_any_message_leaves_nothing(application: URL, kind: str) -> None:
    """Cut after any number of messages, either way: all or nothing, and no identity."""
    with ExitStack() as stack:
        through = stack.enter_context(proxy(server_of(application)))
        url = application.set(host="127.0.0.1", port=through.port, query={})
        async with opened(kind, url) as subject:
            for messages in range(50):
                await subject.titles_of(BOB)  # connected
                through.cut_after = messages
                with suppress(psycopg.Error, DBAPIError, IdentityError):
                    await work(subject)
                finished, through.cut_after = through.cut_after > 0, None
                await subject.require_no_identity()
                assert await subject.titles_of(ALICE) in ([], ["one", "two"])
                async with subject.acting(ALICE):
                    await subject.run("DELETE FROM todo")
                if finished:
                    break
            else:
                pytest.fail("the block has more messages than were tried")


@pytest.mark.parametrize("kind", EACH)
async def test_a_generator_that_is_never_finished_leaves_nothing(
    application: URL, kind: str
) -> None:
    """A generator that the caller drops inside its block is rolled back."""
    async with opened(kind, application) as subject:

        async def rows() -> AsyncIterator[str]:
            async with subject.acting(ALICE):
                await subject.add("lost")
                for title in await subject.titles():
                    yield title

        generator = rows()
        assert await anext(generator) == "lost"
        del generator
        await asyncio.sleep(0.05)  # the loop closes it
        await subject.require_no_identity()
        assert await subject.titles_of(ALICE) == []
