"""The database isolates users, whatever the query.

The tests connect as logins of one group role each, like an application and Better Auth, and not as
the owner, which like Neon's owner ignores row security.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg.errors
import pytest
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from schema.postgres.connection import connect
from tests.support.users import ALICE, BOB

# Columns that only Better Auth may read, by table.
SECRETS = {
    "session": ("token", '"ipAddress"', '"userAgent"'),
    "account": ("password", '"accessToken"', '"refreshToken"', '"idToken"'),
    "verification": ("identifier", "value"),
}


@pytest.fixture(autouse=True)
def _users(better_auth: URL) -> None:
    """Insert two users with a session each, as Better Auth does."""
    with connect(better_auth) as connection:
        for user, name in ((ALICE, "alice"), (BOB, "bob")):
            connection.execute(
                text('INSERT INTO "user" (id, name, email) VALUES (:id, :name, :email)'),
                {"id": user, "name": name, "email": f"{name}@example.invalid"},
            )
            connection.execute(
                text(
                    'INSERT INTO session ("userId", token, "expiresAt", "updatedAt")'
                    " VALUES (:id, :token, now(), now())"
                ),
                {"id": user, "token": f"token of {name}"},
            )
        connection.commit()


@contextmanager
def acting(application: URL, user: UUID | str | None) -> Iterator[Connection]:
    """Open a transaction of the application that acts for that user."""
    with connect(application) as connection, connection.begin():
        if user is not None:
            connection.execute(
                text("SELECT set_config('app.user_id', :user, true)"), {"user": str(user)}
            )
        yield connection


def add_todo(connection: Connection, owner: UUID, title: str = "buy milk") -> UUID:
    """Insert a todo of that owner, and return its id."""
    inserted: UUID = connection.execute(
        text("INSERT INTO todo (user_id, title) VALUES (:owner, :title) RETURNING id"),
        {"owner": owner, "title": title},
    ).scalar_one()
    return inserted


def count(connection: Connection, query: str) -> int:
    """Return the number of rows that a statement returns or changes."""
    return connection.execute(text(query)).rowcount


def test_each_user_works_with_their_own_todos(application: URL) -> None:
    """Each user can write and read their own todos, which no other test here requires."""
    with acting(application, ALICE) as connection:
        add_todo(connection, ALICE)
        assert count(connection, "SELECT FROM todo") == 1
        assert count(connection, "UPDATE todo SET title = 'buy oat milk'") == 1
        assert count(connection, "DELETE FROM todo") == 1


def test_a_forgotten_where_stays_within_the_user(application: URL) -> None:
    """Statements without a condition read and change the acting user's rows only."""
    for user in (ALICE, BOB):
        with acting(application, user) as connection:
            add_todo(connection, user)
    with acting(application, ALICE) as connection:
        owners = connection.execute(text("SELECT user_id FROM todo")).scalars().all()
        assert owners == [ALICE]
        assert count(connection, "UPDATE todo SET title = 'mine'") == 1
        assert count(connection, "DELETE FROM todo") == 1
    with acting(application, BOB) as connection:
        assert connection.execute(text("SELECT title FROM todo")).scalars().all() == ["buy milk"]


def test_another_users_id_leads_nowhere(application: URL) -> None:
    """A user who knows both ids of another user's row cannot read, change or delete it."""
    with acting(application, BOB) as connection:
        todo = add_todo(connection, BOB)
    where = f"WHERE user_id = '{BOB}' AND id = '{todo}'"
    with acting(application, ALICE) as connection:
        assert count(connection, f"SELECT FROM todo {where}") == 0
        assert count(connection, f"SELECT FROM todo {where} FOR UPDATE") == 0
        assert count(connection, f"UPDATE todo SET title = 'stolen' {where}") == 0
        assert count(connection, f"DELETE FROM todo {where}") == 0


@pytest.mark.parametrize(
    "statement",
    [
        f"INSERT INTO todo (user_id, title) VALUES ('{BOB}', 'planted')",
        f"UPDATE todo SET user_id = '{BOB}'",
        f"""
        INSERT INTO todo SELECT * FROM todo ON CONFLICT (user_id, id)
        DO UPDATE SET user_id = '{BOB}'
        """,
    ],
    ids=["insert", "update", "upsert"],
)
def test_no_row_can_be_given_to_another_user(application: URL, statement: str) -> None:
    """An INSERT or UPDATE that would give a row to another user is refused."""
    with acting(application, ALICE) as connection:
        add_todo(connection, ALICE)
        with pytest.raises(DBAPIError, match="row-level security") as refusal:
            connection.execute(text(statement))
        assert isinstance(refusal.value.orig, psycopg.errors.InsufficientPrivilege)


@pytest.mark.parametrize("user", [None, ""], ids=["unset", "empty"])
def test_without_a_user_nothing_is_seen_or_written(application: URL, user: str | None) -> None:
    """A transaction without an identity sees and writes no rows."""
    with acting(application, ALICE) as connection:
        add_todo(connection, ALICE)
    with acting(application, user) as connection:
        assert count(connection, "SELECT FROM todo") == 0
        assert count(connection, 'SELECT FROM "user"') == 0
        assert count(connection, "DELETE FROM todo") == 0
        with pytest.raises(DBAPIError, match="row-level security"):
            add_todo(connection, ALICE)


def test_an_identity_ends_with_its_transaction(application: URL) -> None:
    """On a pooled connection the next transaction has no identity.

    PostgreSQL reverts the setting to the empty string, which must also mean no user.
    """
    with connect(application) as connection:
        with connection.begin():
            connection.execute(text(f"SELECT set_config('app.user_id', '{ALICE}', true)"))
            add_todo(connection, ALICE)
        with connection.begin():
            setting = connection.execute(text("SELECT current_setting('app.user_id', true)"))
            assert setting.scalar_one() == ""
            assert count(connection, "SELECT FROM todo") == 0


def test_an_identity_that_is_no_uuid_is_an_error(application: URL) -> None:
    """An invalid uuid is an error of the application, and must not look like an empty list."""
    with acting(application, "alice") as connection:
        with pytest.raises(DBAPIError, match="invalid input syntax for type uuid"):
            connection.execute(text("SELECT FROM todo"))


def test_a_user_reads_their_own_row_and_changes_none(application: URL) -> None:
    """The application can read the acting user's row; only Better Auth can write it."""
    with acting(application, ALICE) as connection:
        assert connection.execute(text('SELECT name FROM "user"')).scalars().all() == ["alice"]
        with pytest.raises(DBAPIError, match="permission denied"):
            connection.execute(text("UPDATE \"user\" SET name = 'mallory'"))


@pytest.mark.parametrize(
    ("table", "column"),
    [(table, column) for table, columns in SECRETS.items() for column in columns],
)
def test_the_application_reads_no_secret(application: URL, table: str, column: str) -> None:
    """Only Better Auth can read secrets and personal data, even the acting user's."""
    with acting(application, ALICE) as connection:
        with pytest.raises(DBAPIError, match=f"permission denied for table {table}"):
            connection.execute(text(f"SELECT {column} FROM {table}"))


def test_better_auth_touches_no_todo(better_auth: URL) -> None:
    """Better Auth's role can read no todo."""
    with connect(better_auth) as connection:
        with pytest.raises(DBAPIError, match="permission denied for table todo"):
            connection.execute(text("SELECT FROM todo"))


def test_deleting_a_user_deletes_what_is_theirs(better_auth: URL, application: URL) -> None:
    """The foreign keys cascade, although Better Auth's role has no privilege on todo."""
    for user in (ALICE, BOB):
        with acting(application, user) as connection:
            add_todo(connection, user)
    with connect(better_auth) as connection, connection.begin():
        assert count(connection, f"DELETE FROM \"user\" WHERE id = '{ALICE}'") == 1
        assert connection.execute(text('SELECT "userId" FROM session')).scalars().all() == [BOB]
    with acting(application, ALICE) as connection:
        assert count(connection, "SELECT FROM todo") == 0
    with acting(application, BOB) as connection:
        assert count(connection, "SELECT FROM todo") == 1


def test_no_temporary_table_can_hide_a_real_one(application: URL) -> None:
    """The application cannot create a temporary table, which would hide a real one."""
    with acting(application, ALICE) as connection:
        with pytest.raises(DBAPIError, match="permission denied to create temporary tables"):
            connection.execute(text("CREATE TEMPORARY TABLE todo (title text)"))
