"""The API of the wheel: `acting_as` in SQLAlchemy sessions, and the checks at the start."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import Trace
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool, QueuePool
from sqlmodel import Session, col, select

from models import (
    IdentityError,
    IncompatibleDatabaseError,
    NotIsolatedError,
    Todo,
    acting_as,
    assert_compatible,
    assert_isolated,
    metadata,
)
from models.version import HISTORY, __version__
from schema.postgres.connection import connect
from tests.support.servers import conninfo
from tests.support.todos import new_todo
from tests.support.users import ALICE, BOB
from tests.support.wire import trips

pytestmark = pytest.mark.usefixtures("users")


@pytest.fixture
def engine(application: URL) -> Iterator[Engine]:
    """The application's engine with one pooled connection, used by every transaction."""
    engine = create_engine(application, poolclass=QueuePool, pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


def titles(session: Session) -> list[str]:
    """Return the titles of all todos that the session can see."""
    return list(session.exec(select(Todo.title).order_by(col(Todo.title))).all())


def test_each_transaction_of_the_block_acts_for_the_user(engine: Engine) -> None:
    """After a commit in the block the next transaction acts for the same user; the end commits."""
    with Session(engine) as session, acting_as(session, ALICE):
        session.add(new_todo(user_id=ALICE, title="one"))
        session.commit()
        session.add(new_todo(user_id=ALICE, title="two"))
    with Session(engine) as session, acting_as(session, ALICE):
        assert titles(session) == ["one", "two"]


def test_nothing_of_an_identity_is_left_on_the_connection(engine: Engine) -> None:
    """On a pooled connection the next transaction does not have the last identity."""
    with Session(engine) as session, acting_as(session, ALICE):
        session.add(new_todo(user_id=ALICE, title="Alice's"))
    with Session(engine) as session:
        with acting_as(session, BOB):
            assert titles(session) == []
        assert titles(session) == []  # without identity


def test_a_block_that_raises_is_rolled_back(engine: Engine) -> None:
    """An exception rolls the block back, and the session has no identity afterwards."""
    with Session(engine) as session:
        with pytest.raises(ZeroDivisionError), acting_as(session, ALICE):
            session.add(new_todo(user_id=ALICE, title="lost"))
            session.flush()
            raise ZeroDivisionError
        with acting_as(session, ALICE):
            assert titles(session) == []


def test_acting_for_another_user_inside_the_block_is_an_error(engine: Engine) -> None:
    """A nested block for another user is refused: its rows would mix with the first user's."""
    with Session(engine) as session, acting_as(session, ALICE):
        with acting_as(session, ALICE):
            session.add(new_todo(user_id=ALICE, title="nested"))
        with pytest.raises(IdentityError, match=f"acts for user {ALICE} already"):
            with acting_as(session, BOB):
                pass
        assert titles(session) == ["nested"]  # the inner block did not end the outer one


def test_a_transaction_that_has_begun_cannot_be_claimed(engine: Engine) -> None:
    """A session in a transaction is refused: earlier statements had no identity."""
    with Session(engine) as session:
        assert titles(session) == []
        with pytest.raises(IdentityError, match="without an identity"):
            with acting_as(session, ALICE):
                pass


def test_an_id_that_is_no_uuid_fails_at_once(engine: Engine) -> None:
    """`acting_as` itself rejects an invalid uuid."""
    with Session(engine) as session, pytest.raises(ValueError, match="badly formed"):
        acting_as(session, "alice")  # type: ignore[arg-type]  # the mistake


def test_a_session_that_hides_an_error_says_that_nothing_was_committed(engine: Engine) -> None:
    """A caught error leaves the transaction failed: COMMIT would roll back without an error."""
    with Session(engine) as session:
        with pytest.raises(IdentityError, match="rolled back"), acting_as(session, ALICE):
            session.add(new_todo(user_id=ALICE, title="lost"))
            session.flush()
            with pytest.raises(DBAPIError):
                session.execute(text("SELECT 1 / 0"))
        with acting_as(session, ALICE):
            with pytest.raises(DBAPIError), session.begin_nested():
                session.execute(text("SELECT 1 / 0"))
            session.add(new_todo(user_id=ALICE, title="kept"))
        with acting_as(session, ALICE):
            assert titles(session) == ["kept"]


def test_an_async_session_that_hides_an_error_says_so(application: URL) -> None:
    """The same, awaited."""

    async def run() -> None:
        engine = create_async_engine(application, poolclass=NullPool)
        async with AsyncSession(engine) as session:
            with pytest.raises(IdentityError, match="rolled back"):
                async with acting_as(session, ALICE):
                    session.add(new_todo(user_id=ALICE, title="lost"))
                    await session.flush()
                    with pytest.raises(DBAPIError):
                        await session.execute(text("SELECT 1 / 0"))
            async with acting_as(session, ALICE):
                assert (await session.execute(select(Todo))).all() == []
        await engine.dispose()

    asyncio.run(run())


def test_async_sessions_act_alike(application: URL) -> None:
    """Async: identity, commit, rollback, another user."""

    async def run() -> None:
        engine = create_async_engine(application, poolclass=NullPool)
        async with AsyncSession(engine) as session:
            async with acting_as(session, ALICE):
                session.add(new_todo(user_id=ALICE, title="one"))
                await session.commit()
                session.add(new_todo(user_id=ALICE, title="two"))
            async with acting_as(session, ALICE):
                found = (await session.execute(select(Todo.title))).scalars().all()
                assert sorted(found) == ["one", "two"]
                with pytest.raises(IdentityError):
                    async with acting_as(session, BOB):
                        pass
            async with acting_as(session, BOB):
                assert (await session.execute(select(Todo))).all() == []
            with pytest.raises(ZeroDivisionError):
                async with acting_as(session, ALICE):
                    session.add(new_todo(user_id=ALICE, title="lost"))
                    await session.flush()
                    raise ZeroDivisionError
            assert (await session.execute(select(Todo))).all() == []
        await engine.dispose()

    asyncio.run(run())


def test_assert_isolated_accepts_the_applications_login(application: URL) -> None:
    """A login in todo_app is accepted."""
    with connect(application) as connection:
        assert_isolated(connection)
        with Session(connection) as session:
            assert_isolated(session)
    with psycopg.connect(conninfo(application)) as connection_of_psycopg:
        assert_isolated(connection_of_psycopg)


def test_assert_isolated_refuses_the_owner(head: URL) -> None:
    """The owner is refused: like Neon's owner it sees all rows."""
    with connect(head) as connection, pytest.raises(NotIsolatedError, match="sees every user's"):
        assert_isolated(connection)


@pytest.mark.parametrize("as_group", [False, True], ids=["login", "set-role"])
def test_assert_isolated_refuses_a_login_of_better_auth(
    head: URL, application: URL, better_auth: URL, *, as_group: bool
) -> None:
    """A login in both group roles or in Better Auth's is refused: it can read all sessions."""
    with connect(better_auth) as connection:
        with pytest.raises(NotIsolatedError, match="holds todo_auth"):
            assert_isolated(connection)
    with connect(head) as owner:
        owner.exec_driver_sql(f"GRANT todo_auth TO {application.username}")
        owner.commit()
        try:
            with connect(application) as connection:
                if as_group:  # RESET ROLE returns to the login
                    connection.exec_driver_sql("SET ROLE todo_app")
                with pytest.raises(NotIsolatedError, match="holds todo_auth"):
                    assert_isolated(connection)
        finally:
            owner.exec_driver_sql(f"REVOKE todo_auth FROM {application.username}")
            owner.commit()


def test_assert_isolated_refuses_what_the_session_can_become(
    application: URL, superusers: dict[int, URL]
) -> None:
    """SET ROLE leads to a role that row security does not limit, though nothing is inherited."""
    (superuser, *_) = superusers.values()
    with connect(superuser, autocommit=True) as connection:
        connection.exec_driver_sql("CREATE ROLE bypassing NOLOGIN BYPASSRLS")
        connection.exec_driver_sql(
            f"GRANT bypassing TO {application.username} WITH INHERIT FALSE, SET TRUE"
        )
        try:
            with connect(application) as login:
                with pytest.raises(NotIsolatedError, match="can become bypassing"):
                    assert_isolated(login)
        finally:
            connection.exec_driver_sql("DROP ROLE bypassing")


def test_assert_isolated_refuses_a_database_without_the_tables(empty: URL) -> None:
    """A database without the tables is refused."""
    with connect(empty) as connection, pytest.raises(NotIsolatedError, match="has no table"):
        assert_isolated(connection)


def test_the_wheels_version_names_its_head() -> None:
    """The installed version ends with the head revision."""
    assert __version__.endswith(f"+{HISTORY[-1]}")


def test_assert_compatible_accepts_its_own_head(application: URL) -> None:
    """The application's login may read the revision."""
    with connect(application) as connection:
        assert_compatible(connection)


def move(head: URL, revision: str) -> None:
    """Set the revision of the database."""
    with connect(head) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})
        connection.commit()


def test_assert_compatible_refuses_an_earlier_database(head: URL, application: URL) -> None:
    """An earlier revision is refused: the deploy has not run yet."""
    move(head, HISTORY[0])
    with connect(application) as connection:
        with pytest.raises(IncompatibleDatabaseError, match="deploy it first"):
            assert_compatible(connection)


def test_assert_compatible_judges_a_later_database_by_its_columns(
    head: URL, application: URL
) -> None:
    """A later revision is accepted only with all mapped columns."""
    move(head, "ffffffffffff")
    with connect(head, autocommit=True) as owner:
        owner.exec_driver_sql("ALTER TABLE todo ADD COLUMN priority integer")
        with connect(application) as connection:
            assert_compatible(connection)
        owner.exec_driver_sql("ALTER TABLE todo DROP COLUMN description")
        owner.exec_driver_sql("ALTER TABLE todo ALTER COLUMN title TYPE varchar(500)")
    with connect(application) as connection:
        with pytest.raises(IncompatibleDatabaseError) as refusal:
            assert_compatible(connection)
    assert "todo.description (text)" in str(refusal.value)
    assert "todo.title (text)" in str(refusal.value)


def test_every_mapped_column_has_the_type_that_assert_compatible_expects(head: URL) -> None:
    """The compared type names are PostgreSQL's, which can differ from SQLAlchemy's."""
    move(head, "ffffffffffff")
    with connect(head) as connection:
        assert_compatible(connection)
    assert metadata.tables


def test_a_session_in_autocommit_is_refused(application: URL) -> None:
    """In autocommit mode the identity would end with its own statement."""
    engine = create_engine(application, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with Session(engine) as session:
        with pytest.raises(IdentityError, match="autocommit"), acting_as(session, ALICE):
            session.exec(select(Todo)).all()


def test_the_isolation_level_of_the_engine_holds(application: URL) -> None:
    """BEGIN has the engine's isolation level, also with the identity in the same message."""
    engine = create_engine(application, poolclass=NullPool, isolation_level="SERIALIZABLE")
    with Session(engine) as session, acting_as(session, ALICE):
        level = session.execute(text("SHOW transaction_isolation")).scalar_one()
        assert level == "serializable"
        assert session.execute(text("SELECT app_user_id()")).scalar_one() == ALICE


def test_an_orm_transaction_takes_three_round_trips(application: URL, tmp_path: Path) -> None:
    """One for BEGIN and the identity, one for the query, one for COMMIT."""
    engine = create_engine(application, poolclass=NullPool)
    with (tmp_path / "trace").open("w") as trace, engine.connect() as connection:
        with Session(connection) as session:
            connection.rollback()
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            driver.pgconn.trace(trace.fileno())
            driver.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
            with acting_as(session, ALICE):
                session.exec(select(Todo)).all()
            driver.pgconn.untrace()
    assert trips(tmp_path / "trace") == 3
