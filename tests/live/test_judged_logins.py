"""Logins that row security does not limit are reported; safe ones and administrators are not.

The theory: row security isolates users only for logins without certain attributes, memberships and
settings. Each of these is reported, with SQL that takes it away where that is safe.

The roles belong to a server, so these tests have one of their own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from sqlalchemy import URL

from schema.live import logins, read
from schema.live.difference import Difference, Severity
from schema.postgres.connection import connect
from schema.postgres.embedded import Embedded, embedded
from schema.project import scripts
from schema.revisions.runner import upgrade
from tests.support.alembic_process import execute

LOGIN = "CREATE ROLE app LOGIN IN ROLE todo_app"


@pytest.fixture(scope="module")
def own_server(request: pytest.FixtureRequest) -> Iterator[Embedded]:
    """A server with a database at head."""
    with embedded(request.config.getoption("--postgres")) as started:
        execute(started.owner, "CREATE DATABASE todo")
        with connect(started.owner.set(database="todo")) as connection:
            upgrade(connection, scripts())
        yield started


@pytest.fixture
def superuser(own_server: Embedded) -> Iterator[URL]:
    """The superuser's URL of that database; roles and settings that a test made go afterwards."""
    url = own_server.superuser.set(database="todo")
    yield url
    execute(url, "ALTER ROLE ALL RESET ALL", "ALTER ROLE neondb_owner RESET ALL")
    with connect(url) as connection:
        made = connection.exec_driver_sql(
            "SELECT quote_ident(rolname) FROM pg_roles WHERE rolname !~ '^(pg_|todo_|neon|cloud_)'"
        )
        names = ", ".join(made.scalars())
    if names:
        execute(url, f"DROP OWNED BY {names}", f"DROP ROLE {names}")


def judge(url: URL) -> list[Difference]:
    """Do the same as the commands."""
    return read.read(url, logins.judge)


@contextmanager
def made(url: URL, statements: Sequence[str]) -> Iterator[list[Difference]]:
    """Execute the statements and judge, as the superuser and as a login."""
    execute(url, *statements)
    found = judge(url)
    execute(url, "CREATE ROLE looking_on LOGIN")
    assert judge(url.set(username="looking_on")) == found
    execute(url, "DROP ROLE looking_on")
    yield found


@pytest.mark.parametrize(
    "statements",
    [
        [LOGIN, "CREATE ROLE auth LOGIN IN ROLE todo_auth"],
        ["CREATE ROLE team IN ROLE todo_app", "CREATE ROLE app LOGIN IN ROLE team"],
        [LOGIN, "ALTER ROLE app SET statement_timeout = '5s'"],
        [LOGIN, "ALTER ROLE app SET search_path = '$user', public"],
        [LOGIN, "ALTER ROLE app SET search_path = pg_catalog, public, pg_temp"],
        [LOGIN, "ALTER ROLE app SET row_security = true"],
        [LOGIN, "ALTER ROLE ALL SET work_mem = '8MB'"],
        ["CREATE ROLE team IN ROLE todo_app", "ALTER ROLE team SET row_security = off"],
        ["GRANT todo_app TO neondb_owner WITH INHERIT TRUE, SET TRUE"],
        ["CREATE ROLE admin LOGIN CREATEROLE BYPASSRLS",
         "GRANT todo_app TO admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"],
        ["CREATE ROLE dba LOGIN SUPERUSER BYPASSRLS"],
        ["CREATE ROLE other LOGIN BYPASSRLS", "ALTER ROLE other SET row_security = off"],
    ],
    ids=[
        "made-by-schema-roles",
        "through-a-team",
        "timeout",
        "usual-search-path",
        "search-path-with-catalog",
        "row-security-on",
        "memory",
        "setting-of-a-team",
        "owner",
        "role-that-made-the-group",
        "superuser",
        "no-member",
    ],
)  # fmt: skip
def test_what_is_no_risk(superuser: URL, statements: list[str]) -> None:
    """The logins of `schema roles`, the owner and administrators are not reported."""
    with made(superuser, statements) as found:
        assert found == []
    execute(superuser, "REVOKE todo_app FROM neondb_owner GRANTED BY cloud_admin")


@pytest.mark.parametrize(
    ("statements", "part", "sql"),
    [
        (
            [LOGIN, "ALTER ROLE app BYPASSRLS"],
            "attribute bypassrls",
            "ALTER ROLE app NOBYPASSRLS",
        ),
        (
            [LOGIN, "ALTER ROLE app SUPERUSER"],
            "attribute superuser",
            "ALTER ROLE app NOSUPERUSER",
        ),
        (
            [LOGIN, "ALTER ROLE app CREATEROLE"],
            "attribute createrole",
            "ALTER ROLE app NOCREATEROLE",
        ),
        (
            [LOGIN, "ALTER ROLE app REPLICATION"],
            "attribute replication",
            "ALTER ROLE app NOREPLICATION",
        ),
        (
            [LOGIN, "GRANT neon_superuser TO app"],
            "member of neon_superuser",
            "REVOKE neon_superuser FROM app GRANTED BY cloud_admin",
        ),
        (
            [LOGIN, "GRANT pg_read_all_data TO app WITH INHERIT FALSE"],
            "member of pg_read_all_data",
            "REVOKE pg_read_all_data FROM app GRANTED BY cloud_admin",
        ),
        (
            [LOGIN, "GRANT neondb_owner TO app"],
            "member of neondb_owner",
            "REVOKE neondb_owner FROM app GRANTED BY cloud_admin",
        ),
        (
            [LOGIN, "CREATE ROLE seer BYPASSRLS", "GRANT seer TO app"],
            "member of seer",
            "REVOKE seer FROM app GRANTED BY cloud_admin",
        ),
        (
            [LOGIN, "CREATE ROLE seer IN ROLE pg_write_all_data", "GRANT seer TO app"],
            "member of seer",
            "REVOKE seer FROM app GRANTED BY cloud_admin",
        ),
        (
            [LOGIN, "CREATE TABLE public.own ()", "ALTER TABLE public.own OWNER TO app"],
            "owner of objects in schema public",
            None,
        ),
        ([LOGIN, "GRANT todo_auth TO app"], "member of todo_app and of todo_auth", None),
        (
            [LOGIN, "GRANT todo_app TO app WITH ADMIN OPTION"],
            "admin of todo_app",
            "REVOKE ADMIN OPTION FOR todo_app FROM app GRANTED BY cloud_admin",
        ),
        (
            ["CREATE ROLE app LOGIN", "GRANT todo_app TO app WITH ADMIN TRUE, INHERIT FALSE,"
             " SET FALSE"],
            "admin of todo_app",
            "REVOKE ADMIN OPTION FOR todo_app FROM app GRANTED BY cloud_admin",
        ),
        (
            [LOGIN, "ALTER ROLE app SET search_path = other, public"],
            "setting search_path",
            "ALTER ROLE app RESET search_path",
        ),
        (
            [LOGIN, "ALTER ROLE app SET search_path = public, pg_catalog"],
            "setting search_path",
            "ALTER ROLE app RESET search_path",
        ),
        (
            [LOGIN, "ALTER ROLE app IN DATABASE todo SET app.user_id = 'x'"],
            "setting app.user_id in this database",
            "ALTER ROLE app IN DATABASE todo RESET app.user_id",
        ),
        (
            [LOGIN, "CREATE ROLE seer", "ALTER ROLE app SET role = 'seer'"],
            "setting role",
            "ALTER ROLE app RESET role",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_what_isolation_does_not_survive(
    superuser: URL, statements: list[str], part: str, sql: str | None
) -> None:
    """Each is reported once, and is gone after its SQL."""
    with made(superuser, statements) as found:
        (one,) = found
        assert (one.object, one.part, one.severity) == ("role app", part, Severity.ISOLATION)
        assert (one.was, one.sql) == (None, sql)
        assert " app " in one.sentence
        assert not one.sentence.endswith(".")
    if sql is not None:
        execute(superuser, sql)
        assert judge(superuser) == []


@pytest.mark.parametrize(
    ("statement", "role", "severity"),
    [
        ("ALTER ROLE app SET row_security = off", "app", Severity.BEHAVIOUR),
        ("ALTER ROLE app SET default_transaction_read_only = on", "app", Severity.BEHAVIOUR),
        ("ALTER ROLE ALL SET session_replication_role = replica", "ALL", Severity.DATA),
        ("ALTER ROLE neondb_owner SET session_replication_role = replica", "neondb_owner",
         Severity.DATA),
        ("ALTER ROLE neondb_owner SET role = 'todo_app'", "neondb_owner", Severity.BEHAVIOUR),
        ("ALTER ROLE ALL SET search_path = other", "ALL", Severity.ISOLATION),
    ],
)  # fmt: skip
def test_settings(superuser: URL, statement: str, role: str, severity: Severity) -> None:
    """Settings of a login, of every role and of the owner are judged by what they endanger."""
    with made(superuser, [LOGIN, statement]) as found:
        (one,) = found
        assert (one.object, one.severity) == (f"role {role}", severity)
        assert one.sql == re_set(statement)
    execute(superuser, one.sql or "")
    assert judge(superuser) == []


def re_set(statement: str) -> str:
    """Return the statement that undoes ALTER ROLE … SET."""
    head, _, name = statement.partition(" SET ")
    return f"{head} RESET {name.partition(' ')[0]}"


def test_a_member_of_a_member(superuser: URL) -> None:
    """What a team may do is reported once, of the team, and what its member may do of that."""
    statements = [
        "CREATE ROLE team BYPASSRLS IN ROLE todo_app",
        "CREATE ROLE app LOGIN IN ROLE team, pg_monitor",
    ]
    with made(superuser, statements) as found:
        assert [(one.object, one.part) for one in found] == [
            ("role app", "member of pg_monitor"),
            ("role team", "attribute bypassrls"),
        ]


def test_names_are_quoted(superuser: URL) -> None:
    """A name with capitals and quotes can be pasted."""
    statements = ['CREATE ROLE "App ""x" LOGIN BYPASSRLS IN ROLE todo_app']
    with made(superuser, statements) as found:
        (one,) = found
        assert one.object == 'role "App ""x"'
        execute(superuser, one.sql or "")
    assert judge(superuser) == []
