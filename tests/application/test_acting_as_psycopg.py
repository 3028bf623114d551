"""`acting_as` on a psycopg connection, with fast and slow servers and clients.

The theory: the block is one transaction, each error comes from the statement that caused it, and
afterwards the connection is closed, or idle without identity and with its old settings.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.errors import (
    AdminShutdown,
    CheckViolation,
    DivisionByZero,
    FeatureNotSupported,
    UndefinedTable,
)
from psycopg.pq import PipelineStatus, Trace, TransactionStatus
from sqlalchemy import URL

from models import IdentityError, acting_as
from tests.application.test_wheel import snippets
from tests.support.servers import conninfo, proxy
from tests.support.users import ALICE, BOB
from tests.support.wire import trips

pytestmark = pytest.mark.usefixtures("users")

PAUSE = 0.003
"""Seconds; an answer of a local server takes less."""

type Plain = psycopg.Connection[tuple[Any, ...]]

INSERT = "INSERT INTO todo (user_id, title) VALUES (%s, %s)"
COPY = "COPY todo (user_id, title) FROM STDIN"


def titles(connection: Plain) -> list[str]:
    """Return the titles of all todos that the connection can see."""
    return [title for (title,) in connection.execute("SELECT title FROM todo ORDER BY title")]


@pytest.fixture(
    params=[
        "at-once",
        "slow-client",
        pytest.param("slow-server", marks=pytest.mark.slow),
        pytest.param("both-slow", marks=pytest.mark.slow),
    ]
)
def connection(
    request: pytest.FixtureRequest, application: URL, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Plain]:
    """A connection on which the client, the server or both pause before each message."""
    with ExitStack() as stack:
        url = application
        if request.param in {"slow-server", "both-slow"}:
            if "host" in application.query:
                target: int | Path = Path(str(application.query["host"]), ".s.PGSQL.5432")
            else:
                target = application.port or 5432
            through = stack.enter_context(proxy(target, PAUSE))
            url = application.set(host="127.0.0.1", port=through.port, query={})
        opened = stack.enter_context(psycopg.connect(conninfo(url)))
        if request.param in {"slow-client", "both-slow"}:
            wait = psycopg.Connection.wait

            def late(self: Plain, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # psycopg's
                time.sleep(PAUSE)
                try:
                    return wait(self, *arguments, **named)
                finally:
                    time.sleep(PAUSE)

            monkeypatch.setattr(psycopg.Connection, "wait", late)
        yield opened


def write(connection: Plain) -> None:
    """Two statements."""
    connection.execute(INSERT, [ALICE, "a"])
    connection.execute(INSERT, [ALICE, "b"])


def copy(connection: Plain) -> None:
    """COPY TO; PostgreSQL does not support COPY FROM with row security."""
    write(connection)
    with connection.cursor().copy("COPY (SELECT title FROM todo ORDER BY 1) TO STDOUT") as found:
        assert list(found.rows()) == [("a",), ("b",)]


def read_by_cursors(connection: Plain) -> None:
    """A named cursor and a stream, one of them not read to its end."""
    write(connection)
    with connection.cursor("named") as cursor:
        cursor.execute("SELECT title FROM todo ORDER BY 1")
        assert cursor.fetchone() == ("a",)
    for row in connection.cursor().stream("SELECT title FROM todo ORDER BY 1"):
        assert row == ("a",)
        break


def savepoint(connection: Plain) -> None:
    """A statement that fails in a savepoint; the block continues."""
    write(connection)
    with pytest.raises(CheckViolation), connection.transaction():
        connection.execute(INSERT, [ALICE, " "])


def pipeline(connection: Plain) -> None:
    """A pipeline that the application opens and closes."""
    with connection.pipeline():
        write(connection)


@pytest.mark.sample(4)
@pytest.mark.parametrize("work", [write, copy, read_by_cursors, savepoint, pipeline])
@pytest.mark.parametrize("autocommit", [False, True], ids=["transactions", "autocommit"])
def test_what_succeeds_is_committed_for_its_user(
    connection: Plain, work: Callable[[Plain], None], *, autocommit: bool
) -> None:
    """The block commits its work, and the next user cannot see it."""
    connection.autocommit = autocommit
    with acting_as(connection, ALICE):
        work(connection)
    assert connection.autocommit is autocommit
    assert connection.info.transaction_status == TransactionStatus.IDLE
    assert titles(connection) == []  # without identity
    connection.rollback()
    with acting_as(connection, BOB):
        assert titles(connection) == []
    with acting_as(connection, ALICE):
        assert titles(connection) == ["a", "b"]


@contextmanager
def refusal(kind: type[psycopg.Error]) -> Iterator[None]:
    """Assert that one statement raises the error, and raise it again."""
    with pytest.raises(kind) as caught:
        yield
    raise caught.value


def refused_row(connection: Plain) -> None:
    """The last statement fails."""
    connection.execute(INSERT, [ALICE, "fine"])
    with refusal(CheckViolation):
        connection.execute(INSERT, [ALICE, " "])
    time.sleep(PAUSE)  # the answer to the failed statement has arrived


def refused_first(connection: Plain) -> None:
    """The first statement fails."""
    with refusal(UndefinedTable):
        connection.execute("SELECT FROM no_such_table")


def refused_copy(connection: Plain) -> None:
    """COPY FROM, which PostgreSQL does not support with row security."""
    connection.execute(INSERT, [ALICE, "fine"])
    with refusal(FeatureNotSupported), connection.cursor().copy(COPY):
        pass


def refused_in_stream(connection: Plain) -> None:
    """A row in the middle of a stream raises an error, and the generator stays open."""
    connection.execute(INSERT, [ALICE, "fine"])
    rows = connection.cursor().stream("SELECT 1 / (3 - n) FROM generate_series(1, 5) AS n")
    with refusal(DivisionByZero):
        for _row in rows:
            pass


def own_error(connection: Plain) -> None:
    """The application raises an error."""
    connection.execute(INSERT, [ALICE, "fine"])
    raise ZeroDivisionError


ENDS: list[tuple[Callable[[Plain], None], type[Exception]]] = [
    (refused_row, CheckViolation),
    (refused_first, UndefinedTable),
    (refused_copy, FeatureNotSupported),
    (refused_in_stream, DivisionByZero),
    (own_error, ZeroDivisionError),
]


@pytest.mark.parametrize(("work", "error"), ENDS, ids=[work.__name__ for work, _ in ENDS])
def test_what_raises_is_rolled_back_and_leaves_the_connection_usable(
    connection: Plain, work: Callable[[Plain], None], error: type[Exception]
) -> None:
    """The statement raises its own error, and the block is rolled back."""
    with pytest.raises(error), acting_as(connection, ALICE):
        work(connection)
    assert connection.info.transaction_status == TransactionStatus.IDLE
    assert connection.info.pipeline_status == PipelineStatus.OFF
    assert not connection.autocommit
    with acting_as(connection, BOB):
        assert titles(connection) == []
    with acting_as(connection, ALICE):
        assert titles(connection) == []


def test_a_block_that_hides_an_error_says_that_nothing_was_committed(connection: Plain) -> None:
    """A caught error is an error at the end: PostgreSQL would answer COMMIT with ROLLBACK."""
    with pytest.raises(IdentityError, match="rolled back"), acting_as(connection, ALICE):
        connection.execute(INSERT, [ALICE, "fine"])
        with pytest.raises(CheckViolation):
            connection.execute(INSERT, [ALICE, " "])
    with acting_as(connection, ALICE):
        assert titles(connection) == []


def test_a_connection_that_was_lost_is_closed(connection: Plain, superusers: Any) -> None:  # noqa: ANN401
    """The next statement raises, and the connection is closed, so that a pool discards it."""
    pid = connection.info.backend_pid
    url = next(url for url in superusers.values())
    with pytest.raises(AdminShutdown), acting_as(connection, ALICE):
        connection.execute(INSERT, [ALICE, "fine"])
        with psycopg.connect(conninfo(url), autocommit=True) as superuser:
            superuser.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
        connection.execute(INSERT, [ALICE, "lost"])
    assert connection.closed


def test_an_unfinished_answer_closes_the_connection(connection: Plain) -> None:
    """An open stream at the end of the block keeps the connection busy: it is closed."""
    held = []
    with pytest.raises(IdentityError, match="not read"), acting_as(connection, ALICE):
        rows = connection.cursor().stream("SELECT n FROM generate_series(1, 1000000) AS n")
        held.append(rows)
        next(rows)
    assert connection.closed


def test_the_block_is_refused_where_a_transaction_has_begun(connection: Plain) -> None:
    """The connection must be idle; in a pipeline that is not known."""
    titles(connection)
    with pytest.raises(IdentityError, match="already"), acting_as(connection, ALICE):
        pass
    connection.rollback()
    with connection.pipeline(), pytest.raises(IdentityError, match="already"):
        with acting_as(connection, ALICE):
            pass
    with acting_as(connection, ALICE):
        with pytest.raises(IdentityError, match="already"), acting_as(connection, BOB):
            pass
        assert titles(connection) == []


def test_the_block_cannot_be_ended_inside_itself(connection: Plain) -> None:
    """A commit in the block is refused: later statements would have no identity."""
    with acting_as(connection, ALICE):
        write(connection)
        with pytest.raises(psycopg.ProgrammingError, match="commit"):
            connection.commit()
        assert titles(connection) == ["a", "b"]


def test_the_isolation_level_of_the_connection_holds(connection: Plain) -> None:
    """BEGIN has the options of the connection."""
    connection.isolation_level = IsolationLevel.SERIALIZABLE
    with acting_as(connection, ALICE):
        level = connection.execute("SHOW transaction_isolation").fetchone()
    assert level == ("serializable",)


def test_the_readmes_pipeline_takes_two_round_trips(
    application: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One to the query's answer, one for COMMIT."""
    connect = psycopg.connect
    with connect(conninfo(application)) as connection, acting_as(connection, ALICE):
        write(connection)
    (piped,) = (code for code in snippets("The application") if "pipeline" in code)
    with (tmp_path / "trace").open("w") as trace:

        def traced(*arguments: Any, **named: Any) -> Plain:  # noqa: ANN401  # psycopg's
            opened = connect(*arguments, **named)
            opened.pgconn.trace(trace.fileno())
            opened.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
            return opened

        monkeypatch.setattr(psycopg, "connect", traced)
        names: dict[str, Any] = {
            "psycopg": psycopg,
            "DATABASE_URL": conninfo(application),
            "user_id": ALICE,
        }
        exec(piped, names)  # noqa: S102  # the page's code
    assert names["titles"] == [("b",), ("a",)]
    assert trips(tmp_path / "trace") == 2


@pytest.mark.parametrize("pause", [0, PAUSE], ids=["at-once", "slow-client"])
def test_async_connections_act_alike(application: URL, pause: float) -> None:
    """Async: commit, COPY, an error at its statement, a hidden error, a cancellation."""

    async def seen(connection: psycopg.AsyncConnection[Any], user: UUID) -> list[str]:
        async with acting_as(connection, user):
            cursor = await connection.execute("SELECT title FROM todo ORDER BY 1")
            return [title for (title,) in await cursor.fetchall()]

    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(conninfo(application)) as connection:
            async with acting_as(connection, ALICE):
                await connection.execute(INSERT, [ALICE, "a"])
                await connection.execute(INSERT, [ALICE, "b"])
                async with connection.cursor().copy("COPY todo TO STDOUT") as rows:
                    assert len([row async for row in rows.rows()]) == 2
            with pytest.raises(CheckViolation):
                async with acting_as(connection, ALICE):
                    await asyncio.sleep(pause)
                    with refusal(CheckViolation):
                        await connection.execute(INSERT, [ALICE, " "])
                    await asyncio.sleep(pause)
            with pytest.raises(IdentityError, match="rolled back"):
                async with acting_as(connection, ALICE):
                    await connection.execute(INSERT, [ALICE, "c"])
                    with pytest.raises(CheckViolation):
                        await connection.execute(INSERT, [ALICE, " "])
                    await asyncio.sleep(pause)

            async def cancelled(begun: asyncio.Event) -> None:
                async with acting_as(connection, ALICE):
                    await connection.execute(INSERT, [ALICE, "cancelled"])
                    begun.set()
                    await asyncio.sleep(60)

            begun = asyncio.Event()
            task = asyncio.create_task(cancelled(begun))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not connection.autocommit
            assert connection.info.transaction_status == TransactionStatus.IDLE
            assert await seen(connection, BOB) == []
            assert await seen(connection, ALICE) == ["a", "b"]

    asyncio.run(run())


@pytest.mark.parametrize("awaits", range(12))
def test_a_cancellation_at_any_await_leaves_the_connection_as_it_was(
    application: URL, awaits: int
) -> None:
    """If it is cancelled after that many turns of the loop, the connection is idle or closed."""

    async def act(connection: psycopg.AsyncConnection[Any]) -> None:
        async with acting_as(connection, ALICE):
            await connection.execute("SELECT title FROM todo")

    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(conninfo(application)) as connection:
            task = asyncio.create_task(act(connection))
            for _ in range(awaits):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not connection.closed:
                assert connection.info.transaction_status == TransactionStatus.IDLE
                assert not connection.autocommit

    asyncio.run(run())
