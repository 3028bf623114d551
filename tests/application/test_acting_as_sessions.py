"""`acting_as` on SQLAlchemy's sessions: their objects, and what else begins a transaction.

The theory: a session's objects cross from one user to another no more than rows do.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import QueuePool
from sqlmodel import Session, col, select

from models import IdentityError, Tag, Todo, acting_as
from schema.postgres.connection import connect
from tests.support.todos import new_todo
from tests.support.users import ALICE, BOB

pytestmark = pytest.mark.usefixtures("users")


@pytest.fixture
def engine(application: URL) -> Iterator[Engine]:
    """The application's engine with one pooled connection, used by every transaction."""
    engine = create_engine(
        application, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=5
    )
    yield engine
    engine.dispose()


def titles(session: Session) -> list[str]:
    """Return the titles of all todos that the session can see."""
    return list(session.exec(select(Todo.title).order_by(col(Todo.title))).all())


def owner_of(head: URL, title: str) -> list[UUID]:
    """Return whose todos have the title."""
    with connect(head) as connection:
        found = connection.execute(text("SELECT user_id FROM todo WHERE title = :t"), {"t": title})
        return list(found.scalars())


def test_each_transaction_of_the_block_acts_for_the_user(engine: Engine) -> None:
    """After a commit in the block the next transaction acts for the same user; the end commits."""
    with Session(engine) as session, acting_as(session, ALICE):
        session.add(new_todo(title="one"))
        session.commit()
        session.add(new_todo(title="two"))
    with Session(engine) as session, acting_as(session, ALICE):
        assert titles(session) == ["one", "two"]


def test_a_second_block_is_refused_between_two_transactions(engine: Engine) -> None:
    """After a commit in the block the session is idle, and still acts for its user."""
    with Session(engine) as session, acting_as(session, ALICE):
        session.commit()
        with pytest.raises(IdentityError, match="already"), acting_as(session, BOB):
            pytest.fail("the block began")
        session.add(new_todo(title="Alice's"))
    with Session(engine) as session, acting_as(session, ALICE):
        assert titles(session) == ["Alice's"]


@pytest.mark.parametrize("expires", [True, False], ids=["expires", "keeps"])
def test_no_object_stays_for_the_next_user(engine: Engine, *, expires: bool) -> None:
    """`get` under another user finds nothing, whatever the session keeps after a commit."""
    with Session(engine, expire_on_commit=expires) as session:
        with acting_as(session, ALICE):
            todo = new_todo(title="Alice's")
            session.add(todo)
            session.flush()
            key = (todo.user_id, todo.id)
        assert list(session) == []
        assert session.expire_on_commit is expires
        session.add(todo)  # by mistake: the session holds it again
        session.commit()
        with acting_as(session, BOB):
            assert session.get(Todo, key) is None
            assert list(session) == []
        with acting_as(session, ALICE):
            assert session.get_one(Todo, key).title == "Alice's"


def test_objects_keep_their_values(engine: Engine) -> None:
    """After the end, after a commit in the block, after an update, and after an error."""
    with Session(engine) as session:
        with acting_as(session, ALICE):
            todo = new_todo(title="one")
            todo.tags.append(Tag(name="Home"))
            session.add(todo)
        assert (todo.title, todo.user_id, todo.tags[0].name_lower) == ("one", ALICE, "home")
        assert todo.id is not None
        assert todo.created_at == todo.updated_at
        with acting_as(session, ALICE):
            changed = session.get_one(Todo, (todo.user_id, todo.id))
            changed.title = "two"
            session.commit()
            session.add(new_todo(title="another"))
        assert (changed.title, changed.created_at) == ("two", todo.created_at)
        assert changed.updated_at > todo.updated_at
        with pytest.raises(ZeroDivisionError), acting_as(session, ALICE):
            read = session.get_one(Todo, (todo.user_id, todo.id))
            lost = new_todo(title="lost")
            session.add(lost)
            session.flush()
            raise ZeroDivisionError
        assert (read.title, lost.title, lost.user_id) == ("two", "lost", ALICE)


def test_objects_from_before_the_block_are_not_written_in_it(engine: Engine, head: URL) -> None:
    """SQLAlchemy would write them before the block's first statement, under its identity."""
    with Session(engine) as session:
        session.add(new_todo(title="whose?"))
        with pytest.raises(IdentityError, match="not written yet"), acting_as(session, ALICE):
            pytest.fail("the block began")
        assert len(session.new) == 1
        session.rollback()
        with acting_as(session, ALICE):
            assert titles(session) == []
    assert owner_of(head, "whose?") == []


def test_a_changed_identity_writes_nothing_under_the_old_one(engine: Engine, head: URL) -> None:
    """A row that is pending when somebody changes the setting by hand is not the old user's."""
    with Session(engine) as session, acting_as(session, ALICE):
        session.add(new_todo(user_id=BOB, title="Bob's"))
        with pytest.raises(DBAPIError, match="row-level security"):
            session.execute(text("SELECT set_config('app.user_id', :u, true)"), {"u": str(BOB)})
        session.rollback()
    assert owner_of(head, "Bob's") == []


def test_a_session_that_joined_a_transaction_is_refused(engine: Engine) -> None:
    """Its identity would outlive the block, on the connection and in other sessions of it."""
    with engine.connect() as connection:
        with connection.begin(), Session(connection) as session:
            with pytest.raises(IdentityError, match="already"), acting_as(session, ALICE):
                pytest.fail("the block began")
        with Session(connection) as session:
            with acting_as(session, ALICE):
                session.add(new_todo(title="one"))
            assert not connection.in_transaction()
            assert titles(session) == []


def test_the_driver_may_not_be_in_a_transaction(engine: Engine) -> None:
    """A transaction that SQLAlchemy does not know of."""
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.cursor().execute("SELECT 1")
        with pytest.raises(IdentityError, match="already"), acting_as(connection, ALICE):
            pytest.fail("the block began")


def test_sessionmakers_begin_works(engine: Engine) -> None:
    """`sessionmaker.begin()` has begun nothing in the database when the block begins."""
    make = sessionmaker(engine, class_=Session)
    with make.begin() as session, acting_as(session, ALICE):
        session.add(new_todo(title="one"))
    with pytest.raises(ZeroDivisionError), make.begin() as session, acting_as(session, ALICE):
        assert titles(session) == ["one"]
        session.add(new_todo(title="lost"))
        raise ZeroDivisionError
    with make() as session, acting_as(session, ALICE):
        assert titles(session) == ["one"]


def test_a_savepoint_that_fails_is_the_applications_own(engine: Engine) -> None:
    """A statement that may fail belongs in a savepoint: the block goes on."""
    with Session(engine) as session:
        with acting_as(session, ALICE):
            with pytest.raises(DBAPIError), session.begin_nested():
                session.add(new_todo(title=" "))
                session.flush()
            session.add(new_todo(title="kept"))
        with acting_as(session, ALICE):
            assert titles(session) == ["kept"]


def test_a_refused_flush_at_the_end_is_its_own_error(engine: Engine) -> None:
    """The end writes what is pending: the error is the statement's, and nothing is kept."""
    with Session(engine) as session:
        with pytest.raises(DBAPIError, match="title_not_blank"), acting_as(session, ALICE):
            session.add(new_todo(title="fine"))
            session.add(new_todo(title=" "))
        assert list(session) == []
        with acting_as(session, ALICE):
            assert titles(session) == []


def test_a_result_that_is_not_read_to_its_end_hurts_nobody(engine: Engine) -> None:
    """A server-side cursor that is open at the end of the block ends with its transaction."""
    with Session(engine) as session:
        with acting_as(session, ALICE):
            session.add_all([new_todo(title=str(number)) for number in range(5)])
            session.flush()
            rows = session.scalars(select(Todo.title), execution_options={"yield_per": 1})
            assert next(rows) in {str(number) for number in range(5)}
        rows.close()
        with acting_as(session, BOB):
            assert titles(session) == []
        with acting_as(session, ALICE):
            assert len(titles(session)) == 5


def test_an_async_stream_that_is_not_read_to_its_end_hurts_nobody(application: URL) -> None:
    """The same, awaited."""

    async def run() -> None:
        engine = create_async_engine(application, pool_size=1, max_overflow=0, pool_timeout=5)
        async with AsyncSession(engine) as session:
            async with acting_as(session, ALICE):
                session.add_all([new_todo(title=str(number)) for number in range(5)])
                await session.flush()
                rows = await session.stream_scalars(select(Todo.title))
                assert await anext(rows) in {str(number) for number in range(5)}
            async with acting_as(session, BOB):
                assert (await session.scalars(select(Todo.title))).all() == []
        await engine.dispose()

    asyncio.run(run())


def test_a_listener_of_the_application_begins_the_transaction(engine: Engine) -> None:
    """A statement before the identity, such as a timeout: the identity follows it."""

    def limit(_session: Session, _transaction: object, connection: Connection) -> None:
        connection.execute(text("SET LOCAL statement_timeout = '5s'"))

    event.listen(Session, "after_begin", limit)
    try:
        with Session(engine) as session, acting_as(session, ALICE):
            session.add(new_todo(title="one"))
            assert titles(session) == ["one"]
    finally:
        event.remove(Session, "after_begin", limit)


@pytest.mark.parametrize("name", ["after_soft_rollback", "after_transaction_end"])
@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_what_a_listener_begins_at_the_end_is_nobodys(
    engine: Engine, name: str, *, fails: bool
) -> None:
    """SQLAlchemy's own recipes begin a transaction there: without an identity."""
    with Session(engine) as session:

        def ask(*_arguments: object) -> None:
            if session.is_active:
                session.execute(text("SELECT 1"))

        event.listen(session, name, ask)
        with suppress(ZeroDivisionError), acting_as(session, ALICE):
            session.add(new_todo(title="Alice's"))
            session.flush()
            if fails:
                raise ZeroDivisionError
        event.remove(session, name, ask)
        assert titles(session) == []
        assert list(session) == []


def test_a_failure_that_a_commits_own_flush_hides_is_told(engine: Engine) -> None:
    """A listener of the flush swallows its own error: the commit would lose everything."""

    def audit(session: Session, _context: object) -> None:
        with suppress(DBAPIError):
            session.connection().execute(text("INSERT INTO audit VALUES (1)"))

    with Session(engine) as session:
        event.listen(session, "after_flush", audit)
        with pytest.raises(IdentityError, match="rolled back"), acting_as(session, ALICE):
            session.add(new_todo(title="lost"))
            session.commit()


def test_a_flush_whose_error_is_caught_is_told(engine: Engine) -> None:
    """The session is rolled back by then: what follows would be all that is committed."""
    with Session(engine) as session:
        with pytest.raises(IdentityError, match="rolled back"), acting_as(session, ALICE):
            session.add(new_todo(title="lost"))
            session.add(new_todo(title=" "))
            with pytest.raises(DBAPIError):
                session.flush()
        with acting_as(session, ALICE):
            assert titles(session) == []


def test_objects_that_a_savepoint_expired_keep_their_values(engine: Engine) -> None:
    """They are loaded again before they leave."""
    with Session(engine) as session:
        with acting_as(session, ALICE):
            todo = new_todo(title="kept")
            session.add(todo)
            session.flush()
            with pytest.raises(DBAPIError), session.begin_nested():
                todo.title = " "
                session.flush()
        assert todo.title == "kept"


def test_many_threads_share_a_small_pool(application: URL) -> None:
    """Each block sees its own user's rows only, whoever had the connection before."""
    engine = create_engine(application, pool_size=2, max_overflow=0, pool_timeout=30)

    def one(number: int) -> None:
        user, other = (ALICE, BOB) if number % 2 else (BOB, ALICE)
        with Session(engine) as session:
            with acting_as(session, user):
                session.add(new_todo(title=f"{user} {number}"))
            with pytest.raises(ZeroDivisionError), acting_as(session, other):
                session.add(new_todo(title="lost"))
                session.flush()
                raise ZeroDivisionError
            with acting_as(session, user):
                assert {title.split()[0] for title in titles(session)} == {str(user)}

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one, range(60)))
    engine.dispose()


def test_many_tasks_share_a_small_pool(application: URL) -> None:
    """The same for tasks, of which some are cancelled."""

    async def one(engine: object, number: int) -> None:
        user = ALICE if number % 2 else BOB
        async with AsyncSession(engine) as session:  # type: ignore[arg-type]  # an AsyncEngine
            async with acting_as(session, user):
                session.add(new_todo(title=f"{user} {number}"))
                await session.flush()
                if number % 5 == 0:
                    await asyncio.sleep(60)
            async with acting_as(session, user):
                seen = (await session.scalars(select(Todo.title))).all()
                assert {title.split()[0] for title in seen} == {str(user)}

    async def run() -> None:
        engine = create_async_engine(application, pool_size=2, max_overflow=0, pool_timeout=30)
        tasks = [asyncio.create_task(one(engine, number)) for number in range(40)]
        pending = set(tasks)
        while pending:
            _done, pending = await asyncio.wait(pending, timeout=0.2)
            sleeping = [task for task in pending if tasks.index(task) % 5 == 0]
            for task in sleeping:
                task.cancel()
        for task in tasks:
            if not task.cancelled():
                task.result()
        await engine.dispose()

    asyncio.run(run())


def test_a_two_phase_transaction_acts_for_its_user(engine: Engine) -> None:
    """BEGIN is psycopg's own there, and the identity follows it."""
    with Session(engine, twophase=True) as session:
        with pytest.raises(ZeroDivisionError), acting_as(session, ALICE):
            session.add(new_todo(title="lost"))
            assert titles(session) == ["lost"]
            raise ZeroDivisionError  # servers refuse PREPARE TRANSACTION unless it is configured
    with Session(engine) as session, acting_as(session, ALICE):
        assert titles(session) == []
