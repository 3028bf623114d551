"""The checks that an application makes at its start: its login, and the database's revision."""

import asyncio
import enum
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row
from sqlalchemy import URL, MetaData, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel

from models import (
    IncompatibleDatabaseError,
    NotIsolatedError,
    assert_compatible,
    assert_isolated,
    metadata,
)
from models.version import HISTORY, __version__
from schema.postgres.connection import connect
from tests.support.servers import conninfo
from tests.support.users import ALICE


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


@contextmanager
def granted(owner: URL, grant: str, revoke: str) -> Iterator[None]:
    """Change what a login may do, for the length of the block."""
    with connect(owner, autocommit=True) as connection:
        connection.exec_driver_sql(grant)
        try:
            yield
        finally:
            connection.exec_driver_sql(revoke)


@pytest.mark.parametrize("attribute", ["REPLICATION", "CREATEROLE", "IN ROLE pg_read_server_files"])
def test_assert_isolated_refuses_what_leads_around_row_security(
    application: URL, superusers: dict[int, URL], attribute: str
) -> None:
    """Attributes and predefined roles: the files of the server hold every row."""
    (superuser, *_) = superusers.values()
    name = f"around_{uuid.uuid4().hex[:8]}"
    with connect(superuser, autocommit=True) as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD '{name}' {attribute}")
        connection.exec_driver_sql(f"GRANT todo_app TO {name}")
        try:
            with connect(application.set(username=name, password=name)) as login:
                with pytest.raises(NotIsolatedError, match="can become"):
                    assert_isolated(login)
        finally:
            connection.exec_driver_sql(f"DROP ROLE {name}")


def test_assert_isolated_refuses_a_name_that_means_another_table(
    head: URL, application: URL
) -> None:
    """A view in front of the table runs with its owner's rights."""
    name = application.username
    with connect(head, autocommit=True) as owner:
        owner.exec_driver_sql(f'CREATE SCHEMA "{name}"')
        owner.exec_driver_sql(f'CREATE VIEW "{name}".todo AS SELECT * FROM public.todo')
        owner.exec_driver_sql(f'GRANT USAGE ON SCHEMA "{name}" TO todo_app')
        owner.exec_driver_sql(f'GRANT SELECT ON "{name}".todo TO todo_app')
    with connect(application) as connection:
        with pytest.raises(NotIsolatedError, match=r"does not mean public\.todo"):
            assert_isolated(connection)


def test_assert_isolated_refuses_an_identity_from_the_settings(application: URL) -> None:
    """The URL's options name a user: every query without a block would be theirs."""
    options = {"options": f"-capp.user_id={ALICE}"}
    with connect(application.update_query_dict(options)) as connection:
        with pytest.raises(NotIsolatedError, match="acts for a user before any block"):
            assert_isolated(connection)


def test_the_assertions_use_their_own_rows(application: URL) -> None:
    """The connection may make dictionaries of its rows."""
    with psycopg.connect(conninfo(application), row_factory=dict_row) as connection:
        assert_isolated(connection)
        assert_compatible(connection)


def test_assert_compatible_refuses_two_records(head: URL, application: URL) -> None:
    """A linear history has one revision at a time."""
    with connect(head, autocommit=True) as owner:
        owner.exec_driver_sql("INSERT INTO alembic_version VALUES ('ffffffffffff')")
    with connect(application) as connection:
        with pytest.raises(IncompatibleDatabaseError, match="records 2 revisions"):
            assert_compatible(connection)


def test_assert_isolated_requires_the_applications_group(head: URL, application: URL) -> None:
    """A login that holds no group role sees nothing, and is not the application's."""
    name = application.username
    with granted(head, f"REVOKE todo_app FROM {name}", f"GRANT todo_app TO {name}"):
        with connect(application) as connection:
            with pytest.raises(NotIsolatedError, match="does not hold todo_app"):
                assert_isolated(connection)


@pytest.mark.parametrize(
    ("privilege", "found"),
    [
        ("TRUNCATE ON todo", "TRUNCATE on todo"),
        ("SELECT ON session", "SELECT on session"),
        ("SELECT (value) ON verification", "SELECT on verification"),
    ],
)
@pytest.mark.parametrize("inherited", [False, True], ids=["own", "through-a-role"])
def test_assert_isolated_refuses_privileges_beyond_the_groups(
    head: URL, application: URL, privilege: str, found: str, *, inherited: bool
) -> None:
    """Privileges of its own, or of a role that it can become: TRUNCATE ignores row security."""
    name = application.username
    with connect(head, autocommit=True) as owner:
        holder = f"holder_{uuid.uuid4().hex[:8]}" if inherited else name
        if inherited:
            owner.exec_driver_sql(f"CREATE ROLE {holder} ROLE {name}")
        owner.exec_driver_sql(f"GRANT {privilege} TO {holder}")
        try:
            with connect(application) as connection:
                with pytest.raises(NotIsolatedError, match=found):
                    assert_isolated(connection)
        finally:
            owner.exec_driver_sql(f"REVOKE {privilege} FROM {holder}")
            if inherited:
                owner.exec_driver_sql(f"DROP ROLE {holder}")


def test_both_assertions_can_be_awaited(head: URL, application: URL, better_auth: URL) -> None:
    """They ask the same of an async connection, of SQLAlchemy or psycopg, and of a session."""

    async def ask(url: URL) -> None:
        engine = create_async_engine(url)
        try:
            async with engine.connect() as connection:
                await assert_isolated(connection)
                await assert_compatible(connection)
            async with AsyncSession(engine) as session:
                await assert_isolated(session)
                await assert_compatible(session)
            async with await psycopg.AsyncConnection.connect(conninfo(url)) as plain:
                await assert_isolated(plain)
                await assert_compatible(plain)
        finally:
            await engine.dispose()

    asyncio.run(ask(application))
    with pytest.raises(NotIsolatedError):
        asyncio.run(ask(better_auth))
    move(head, HISTORY[0])
    with pytest.raises(IncompatibleDatabaseError):
        asyncio.run(ask(application))


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


class Mood(enum.Enum):
    """A type that SQLModel makes of an enum, whose name needs quotes."""

    GOOD = "good"
    BAD = "bad"


later = registry(metadata=MetaData())

OF_SQLALCHEMY: dict[str, sa.types.TypeEngine[Any]] = {
    "text": sa.Text(),
    "varchar": sa.String(50),
    "char": sa.CHAR(3),
    "smallint": sa.SmallInteger(),
    "bigint": sa.BigInteger(),
    "numeric": sa.Numeric(10, 2),
    "real": sa.REAL(),
    "double": sa.Double(),
    "float": sa.Float(),
    "float_24": sa.Float(24),
    "timestamptz": sa.DateTime(timezone=True),
    "timetz": sa.Time(timezone=True),
    "interval": sa.Interval(),
    "json": sa.JSON(),
    "jsonb": postgresql.JSONB(),
    "array": sa.ARRAY(sa.Text()),
    "array_of_arrays": postgresql.ARRAY(sa.Integer(), dimensions=2),
    "array_of_varchar": postgresql.ARRAY(sa.String(10)),
    "bytea": sa.LargeBinary(),
    "inet": postgresql.INET(),
    "cidr": postgresql.CIDR(),
    "macaddr": postgresql.MACADDR(),
    "bit": postgresql.BIT(3),
    "varbit": postgresql.BIT(varying=True),
    "money": postgresql.MONEY(),
    "oid": postgresql.OID(),
    "tsvector": postgresql.TSVECTOR(),
    "tsquery": postgresql.TSQUERY(),
    "range": postgresql.INT8RANGE(),
    "multirange": postgresql.TSTZMULTIRANGE(),
    "uuid": sa.Uuid(),
    "enum": postgresql.ENUM("a", "b", name="Some Type"),
    "named": sa.Enum("a", "b", name="lower_type"),
    "domain": postgresql.DOMAIN("short_text", sa.Text()),
    "jsonpath": postgresql.JSONPATH(),
}


class Later(SQLModel, registry=later):
    """Every Python type for which SQLModel chooses a column's type."""

    number: int = Field(primary_key=True)
    words: str
    short: str = Field(max_length=20)
    ratio: float
    amount: Decimal = Field(max_digits=8, decimal_places=3)
    yes: bool
    at: datetime
    on: date
    daily: time
    lasting: timedelta
    raw: bytes
    key: uuid.UUID
    mood: Mood


class Everything(Later, table=True):
    """With every type that a model may name."""

    __tablename__ = "everything"


for name, kind in OF_SQLALCHEMY.items():
    Everything.__table__.append_column(sa.Column(name, kind))  # type: ignore[attr-defined]  # SQLModel's


def test_assert_compatible_knows_every_type(
    head: URL, application: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At an unknown later revision, each column counts with its own type, and with no other."""
    monkeypatch.setattr("models.startup.metadata", later.metadata)
    move(head, "ffffffffffff")
    with connect(head) as owner:
        later.metadata.create_all(owner)
        owner.commit()
    with connect(application) as connection:
        assert_compatible(connection)
    columns = [column.name for column in later.metadata.tables["everything"].columns]
    assert len(columns) > 40
    with connect(head, autocommit=True) as owner:
        for column in columns:
            owner.exec_driver_sql(f'ALTER TABLE everything RENAME "{column}" TO kept')
            other = "text" if column in {"number", "raw"} else "bytea"
            other = "integer" if column == "bytea" else other
            owner.exec_driver_sql(f'ALTER TABLE everything ADD "{column}" {other}')
            with connect(application) as connection:
                with pytest.raises(IncompatibleDatabaseError) as refusal:
                    assert_compatible(connection)
            assert f"lacks everything.{column} (" in str(refusal.value)
            owner.exec_driver_sql(f'ALTER TABLE everything DROP "{column}"')
            owner.exec_driver_sql(f'ALTER TABLE everything RENAME kept TO "{column}"')
