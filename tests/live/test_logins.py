"""`schema roles`: logins with their group role, which cannot bypass row security."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from schema.errors import CannotRunError
from schema.postgres import logins
from schema.postgres.connection import connect
from schema.postgres.dev_server import free_port
from schema.postgres.embedded import Embedded, embedded
from schema.project import scripts
from schema.revisions.runner import upgrade


@pytest.fixture(scope="module")
def own_server() -> Iterator[Embedded]:
    """A server that requires passwords."""
    with embedded(port=free_port(0)) as started:
        with connect(started.owner, autocommit=True) as connection:
            connection.exec_driver_sql("CREATE DATABASE todo")
        url = started.owner.set(database="todo")
        with connect(url) as connection:
            upgrade(connection, scripts())
        yield started


@pytest.fixture(scope="module")
def owner(own_server: Embedded) -> URL:
    """A database at head there."""
    return own_server.owner.set(database="todo")


def test_the_password_opens_the_login(owner: URL) -> None:
    """The server accepts the password verifier that the command has computed."""
    login = logins.login("first_app", "todo_app")
    assert logins.make(owner, [login]) == [(login, True)]
    with connect(owner.set(username="first_app", password=login.password)) as connection:
        user = connection.exec_driver_sql("SELECT current_user").scalar_one()
        assert user == "first_app"
        assert connection.exec_driver_sql("SELECT row_security_active('todo')").scalar_one()
    with pytest.raises(CannotRunError, match="password authentication failed"):
        with connect(owner.set(username="first_app", password="another")):  # noqa: S106  # wrong
            pass


def test_a_login_that_exists_keeps_its_password(owner: URL) -> None:
    """Running the command again must not lock a running application out."""
    first = logins.login("second_app", "todo_app")
    logins.make(owner, [first])
    again = logins.login("second_app", "todo_app")
    assert logins.make(owner, [again]) == [(again, False)]
    with connect(owner.set(username="second_app", password=first.password)):
        pass


@pytest.mark.parametrize(
    ("role", "what"),
    [
        ("NOLOGIN BYPASSRLS", "BYPASSRLS"),
        ("LOGIN CREATEROLE", "CREATEROLE"),
        ("LOGIN IN ROLE neon_superuser", "BYPASSRLS through neon_superuser"),
        ("LOGIN IN ROLE pg_read_all_data", "the rights of pg_read_all_data"),
        ("LOGIN IN ROLE neondb_owner", "the owner's rights through neondb_owner"),
        ("LOGIN IN ROLE todo_auth", "the rights of todo_auth through todo_auth"),
    ],
)
def test_a_role_that_sees_around_row_security_is_refused(
    own_server: Embedded, owner: URL, role: str, what: str
) -> None:
    """A role that bypasses row security is refused, and the other login is not created."""
    with connect(own_server.superuser, autocommit=True) as connection:
        connection.exec_driver_sql(f"CREATE ROLE unsafe {role}")
        try:
            with pytest.raises(CannotRunError, match=what):
                logins.make(
                    owner, [logins.login("other", "todo_auth"), logins.login("unsafe", "todo_app")]
                )
            made = connection.exec_driver_sql("SELECT FROM pg_roles WHERE rolname = 'other'")
            assert made.rowcount == 0
        finally:
            connection.exec_driver_sql("DROP ROLE unsafe")


@pytest.mark.parametrize(
    "roles",
    [
        ("CREATE ROLE second LOGIN", "CREATE ROLE first LOGIN IN ROLE second"),
        ("CREATE ROLE first LOGIN", "CREATE ROLE second LOGIN IN ROLE first"),
        (
            "CREATE ROLE first LOGIN",
            "CREATE ROLE second LOGIN",
            "CREATE ROLE third LOGIN IN ROLE first, second",
        ),
    ],
    ids=["application-in-auth", "auth-in-application", "a-third-one"],
)
def test_memberships_that_connect_the_logins_are_refused(
    own_server: Embedded, owner: URL, roles: tuple[str, ...]
) -> None:
    """Each holds one group role, but one of them, or another login, would reach both."""
    with connect(own_server.superuser, autocommit=True) as connection:
        for statement in roles:
            connection.exec_driver_sql(statement)
        for name in ("first", "second"):
            connection.exec_driver_sql(f"GRANT {name} TO neondb_owner WITH ADMIN OPTION")
        try:
            with pytest.raises(CannotRunError, match="todo_a"):
                logins.make(owner, logins.pair("first", "second"))
            held = connection.exec_driver_sql(
                "SELECT FROM pg_auth_members AS m WHERE m.member::regrole::text IN"
                " ('first', 'second') AND m.roleid::regrole::text LIKE 'todo_%%'"
            )
            assert held.rowcount == 0
        finally:
            connection.exec_driver_sql("DROP ROLE IF EXISTS third, first, second")


def test_without_the_group_role_nothing_is_made(owner: URL) -> None:
    """Before the first deploy there are no group roles."""
    with pytest.raises(CannotRunError, match="deploy first"):
        logins.make(owner, [logins.login("app", "todo_missing")])


@pytest.mark.parametrize(
    "name", ["", "App", "app-1", "1app", "a" * 64, 'x"; DROP', "todo_app", "todo_auth"]
)
def test_a_name_that_would_not_be_a_logins_is_refused(name: str) -> None:
    """A name that is not valid, or that is a group role, is refused."""
    for pair in ((name, "other"), ("other", name)):
        with pytest.raises(CannotRunError, match="cannot be a login's name"):
            logins.pair(*pair)


def test_one_login_does_not_get_both_group_roles(owner: URL) -> None:
    """The same login cannot have both group roles: it would read the sessions of all users."""
    with pytest.raises(CannotRunError, match="cannot be both logins"):
        logins.pair("one_name", "one_name")
    first = logins.pair("third_app", "third_auth")
    logins.make(owner, first)
    for again in (logins.pair("third_auth", "fresh"), logins.pair("fresh", "third_app")):
        with pytest.raises(CannotRunError, match="has the rights of todo_"):
            logins.make(owner, again)
    with connect(owner) as connection:
        held = connection.exec_driver_sql(
            "SELECT m.member::regrole::text, m.roleid::regrole::text FROM pg_auth_members AS m"
            " WHERE m.member::regrole::text IN ('third_app', 'third_auth', 'fresh') ORDER BY 1"
        ).all()
    assert held == [("third_app", "todo_app"), ("third_auth", "todo_auth")]
