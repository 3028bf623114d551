"""The database that a command works on: --database-url, or DATABASE_URL.

The theory: a password belongs in the environment, not in an argument, which other users of the
machine can see. So each command that reads an existing database takes DATABASE_URL. Nothing is
written to the database in it unless an option or the command says so.
"""

import json
import secrets
from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from schema.postgres.connection import connect
from schema.postgres.dev_server import free_port
from schema.postgres.embedded import Embedded, embedded
from schema.project import ROOT, scripts
from schema.revisions.runner import upgrade
from tests.support.alembic_process import execute
from tests.support.repo_copy import COMMAND, Launcher, Result

WITH_URL = "import os; os.environ['DATABASE_URL'] = {url!r}; " + COMMAND
PASSWORD = "s3cr3t"  # noqa: S105  # must not appear in any output
READERS = ["drift", "doctor", "adopt"]


def text_of(url: URL) -> str:
    """Format the URL with its password."""
    return url.render_as_string(hide_password=False)


def run_with(run: Launcher, url: URL | str, *arguments: str) -> Result:
    """Run the command with DATABASE_URL."""
    address = url if isinstance(url, str) else text_of(url)
    return run.run(ROOT, *arguments, code=WITH_URL.format(url=address))


def test_the_environment_names_it(run: Launcher, head: URL) -> None:
    """Without the option, DATABASE_URL is read, and nothing warns of its password."""
    url = head.set(password=PASSWORD)
    drift, doctor, adopt = (run_with(run, url, command, "--json") for command in READERS)
    assert (drift.code, json.loads(drift.out)["drift"]) == (0, False), drift.everything
    assert (doctor.code, json.loads(doctor.out)["ready"]) == (0, True), doctor.everything
    assert "is already at revision" in json.loads(adopt.out)["error"]
    assert not any(result.warning for result in (drift, doctor, adopt))


def test_the_option_comes_first(run: Launcher, head: URL) -> None:
    """The option names another database than DATABASE_URL."""
    result = run_with(
        run, "postgresql://127.0.0.1:1/other", "doctor", "--database-url", text_of(head)
    )
    assert result.code == 0, result.everything


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(
    "value", ["", pytest.param(" ", marks=pytest.mark.slow)], ids=["empty", "blank"]
)
def test_no_database_is_named(run: Launcher, command: str, value: str) -> None:
    """The error is one sentence, in JSON too."""
    result = run_with(run, value, command, "--json")
    assert result.code == 2
    assert json.loads(result.out)["error"] == result.err.removeprefix("schema: ").strip()
    assert "set DATABASE_URL" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.sample(3)
@pytest.mark.parametrize("command", [*READERS, "check", "snapshot", "rebase", "roles"])
@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{PASSWORD}@127.0.0.1:1/db",
        pytest.param(f"postgresql://127.0.0.1:1/db?password={PASSWORD}", marks=pytest.mark.slow),
    ],
    ids=["before-the-host", "parameter"],
)
def test_a_password_in_an_argument(run: Launcher, command: str, url: str) -> None:
    """Each command warns of it in one line, and works on."""
    result = run.run(ROOT, command, "--database-url", url)
    assert len(result.warning.splitlines()) == 1, result.everything
    assert PASSWORD not in result.everything
    assert "No connection to db" in result.err
    without = run.run(ROOT, command, "--database-url", "postgresql://u@127.0.0.1:1/db?user=u:a")
    assert without.warning == ""


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("postgresql://127.0.0.1:1/db", "check that a server runs at 127.0.0.1, and the port."),
        ("postgresql://ep-x-pooler.invalid/db", "try the direct host, whose name has no -pooler."),
        ("postgresql://nowhere.invalid/db", "check the host's name."),
    ],
)
def test_a_refused_connection(run: Launcher, url: str, advice: str) -> None:
    """The error says what to check."""
    result = run_with(run, url, "drift")
    assert result.code == 2
    assert result.err.endswith(f"; {advice}\n"), result.everything


@pytest.fixture(scope="module")
def own_server() -> Iterator[Embedded]:
    """A server for logins, which requires passwords, with a database at head."""
    with embedded(port=free_port(0)) as started:
        execute(started.owner, "CREATE DATABASE todo")
        with connect(started.owner.set(database="todo")) as connection:
            upgrade(connection, scripts())
        yield started


def roles(url: URL) -> set[str]:
    """Read the names of all roles."""
    with connect(url) as connection:
        return set(connection.exec_driver_sql("SELECT rolname FROM pg_roles").scalars())


def test_roles_are_not_made_by_surprise(run: Launcher, own_server: Embedded) -> None:
    """With DATABASE_URL alone the SQL is printed; --apply makes the logins there."""
    url = own_server.owner.set(database="todo")
    names = [f"login_{secrets.token_hex(4)}" for _ in range(2)]
    named = ("roles", "--application", names[0], "--better-auth", names[1])
    before = roles(url)
    printed = run_with(run, url, *named)
    assert printed.out.count("CREATE ROLE") == 2, printed.everything
    assert roles(url) == before
    applied = run_with(run, url, *named, "--apply")
    assert (applied.code, applied.warning) == (0, ""), applied.everything
    assert roles(url) == before | set(names)
    assert run.run(ROOT, *named, "--apply").err.startswith("schema: No database is named")


@pytest.mark.parametrize(
    ("attributes", "as_superuser", "what"),
    [
        ("NOLOGIN", False, "it is NOLOGIN (ALTER ROLE {name} LOGIN)"),
        ("LOGIN", True, "it has no password (in psql: \\password {name})"),
        ("LOGIN PASSWORD 'x' VALID UNTIL '2020-01-01'", False, "its password has expired"),
        ("LOGIN PASSWORD 'x'", True, "keeps its password"),
    ],
    ids=["nologin", "no-password", "expired", "fine"],
)
def test_an_existing_role_that_cannot_log_in(
    run: Launcher, own_server: Embedded, attributes: str, what: str, *, as_superuser: bool
) -> None:
    """What keeps it from logging in is said, with what to do."""
    name = f"login_{secrets.token_hex(4)}"
    owner = own_server.owner.set(database="todo")
    execute(owner, f"CREATE ROLE {name} {attributes}")
    url = own_server.superuser.set(database="todo") if as_superuser else owner
    result = run_with(
        run, url, "roles", "--apply", "--application", name, "--better-auth", f"{name}_auth"
    )
    assert result.code == 0, result.everything
    assert f"{name} exists: it has todo_app" in result.out
    assert what.format(name=name) in result.out
