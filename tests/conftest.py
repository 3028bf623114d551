"""Real PostgreSQL for every test: one embedded server of each major version for the whole run.

The process that controls the run owns the servers, so that they are stopped however it ends; each
test gets scratch databases of its own on them. Most tests use one server: the newest version, the
one that `--postgres` names, or the server that `--database-url` names, which then is the only one.
"""

import os
import secrets
import signal
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from hypothesis.configuration import set_hypothesis_home_dir
from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from migrations import postgres
from schema.postgres.connection import connect
from schema.postgres.embedded import LIKE_NEON, OWNER, embedded
from schema.postgres.installation import VERSIONS, find_installation
from schema.postgres.scratch import Server, open_url
from schema.project import ROOT, scripts
from schema.revisions.runner import upgrade
from schema.roles import APPLICATION, BETTER_AUTH
from tests.support.npm import IN_CI
from tests.support.repo_copy import CHECK, Checkout, Launcher, Result, copy_to, launcher
from tests.support.users import ALICE, BOB

_PASSWORD = secrets.token_urlsafe(12)
"""Of the tests' logins, where a server asks for one."""

_SERVERS = pytest.StashKey[dict[int, dict[str, str]]]()
_MAIN = pytest.StashKey[int]()
_STACK = pytest.StashKey[ExitStack]()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Let the tests run on another version or server, and register what only exists with xdist."""
    parser.addoption(
        "--postgres",
        default=str(VERSIONS[0]),
        help="embedded major version, or a folder: the only one",
    )
    parser.addoption("--database-url", help="a server to test on, instead of embedded ones")
    pluginmanager.register(Xdist())


def _clean_environment() -> None:
    """Keep what surrounds the run from deciding how a test ends."""
    # Started in the background, a program ignores Ctrl-C, and so would everything that it starts.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # A developer's own settings must not decide how a test goes.
    for name in [name for name in os.environ if name.startswith("PG") or name == "DATABASE_URL"]:
        del os.environ[name]
    # Copies of the checkout have no .git, without which `schema check` fails in CI.
    if in_ci := os.environ.pop("CI", None):
        os.environ[IN_CI] = in_ci


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers in the controlling process; its workers are told where they are."""
    set_hypothesis_home_dir(ROOT / ".venv" / "hypothesis")
    _clean_environment()
    if hasattr(config, "workerinput"):
        config.stash[_SERVERS] = config.workerinput["servers"]
        config.stash[_MAIN] = config.workerinput["main"]
        return
    config.stash[_STACK] = ExitStack()
    if not config.option.basetemp:
        # A folder of this run's own, which leaves nothing behind and which no other run clears.
        folder = tempfile.TemporaryDirectory(prefix="todo-schema-tests-")
        config.option.basetemp = config.stash[_STACK].enter_context(folder)
    config.stash[_SERVERS] = {}
    config.stash[_MAIN] = VERSIONS[0]
    if config.option.collectonly:
        return
    if config.option.database_url:
        version, addresses = _given(postgres.parse_url(config.option.database_url))
        config.stash[_MAIN] = version
        config.stash[_SERVERS][version] = addresses
        return
    chosen = config.option.postgres
    for which in VERSIONS if chosen.isdecimal() else [chosen]:
        started = config.stash[_STACK].enter_context(embedded(which))
        config.stash[_SERVERS][started.version] = {
            "owner": started.owner.render_as_string(hide_password=False),
            "superuser": started.superuser.render_as_string(hide_password=False),
            # npm's folders hold a server, but not pg_dump and the others.
            "binaries": str(started.binaries if chosen.isdecimal() else _wheels_programs()),
        }
        if not chosen.isdecimal() or started.version == int(chosen):
            config.stash[_MAIN] = started.version


def _wheels_programs() -> Path:
    return find_installation(VERSIONS[0]).programs


def _given(superuser: URL) -> tuple[int, dict[str, str]]:
    """Make a disposable server that somebody else runs look like Neon, and describe it."""
    password = secrets.token_urlsafe(12)
    with connect(superuser.set(database="template1"), autocommit=True) as connection:
        number = connection.exec_driver_sql("SHOW server_version_num").scalar_one()
        known = connection.exec_driver_sql(f"SELECT FROM pg_roles WHERE rolname = '{OWNER}'")
        if known.rowcount == 0:
            connection.exec_driver_sql(LIKE_NEON)
        connection.exec_driver_sql(f"ALTER ROLE {OWNER} PASSWORD '{password}'")
        # Who has made the group roles there, another run perhaps, is the only one to grant them.
        for role in (APPLICATION, BETTER_AUTH):
            made = connection.exec_driver_sql(f"SELECT FROM pg_roles WHERE rolname = '{role}'")
            if made.rowcount:
                connection.exec_driver_sql(f"GRANT {role} TO {OWNER} WITH ADMIN OPTION")
    owner = superuser.set(username=OWNER, password=password)
    return int(number) // 10000, {
        "owner": owner.render_as_string(hide_password=False),
        "superuser": superuser.render_as_string(hide_password=False),
        "binaries": str(_wheels_programs()),
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers."""
    if _STACK in config.stash:
        config.stash[_STACK].close()


class Xdist:
    """Tells workers where the servers are; its own class, because xdist may be absent."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:  # noqa: ANN401  # xdist is untyped
        """Hand the servers' addresses to a worker."""
        node.workerinput["servers"] = node.config.stash[_SERVERS]
        node.workerinput["main"] = node.config.stash[_MAIN]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `any_server` once on each version."""
    if "any_server" in metafunc.fixturenames:
        started = metafunc.config.stash[_SERVERS]
        versions = sorted(started) or [metafunc.config.stash[_MAIN]]
        metafunc.parametrize(
            "any_server", versions, indirect=True, ids=lambda version: f"pg{version}"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what a test's `sample` leaves out: cases at even distances stay quick."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sample"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for found in cases.values():
        marker = found[0].get_closest_marker("sample")
        number = marker.args[0] if marker else len(found)
        quick = {place * len(found) // number for place in range(number)}
        for place, item in enumerate(found):
            if place not in quick:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _no_bytecode_of_copies() -> None:
    """Let tests, and the processes that they start, read bytecode from now on, but write none.

    The bytecode of every copy of the checkout would stay in .venv, and a revision that a test
    writes twice within a second would run as it was first.
    """
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[dict[int, Server]]:
    """The embedded servers, by major version, opened as the role that is like Neon's owner."""
    with ExitStack() as stack:
        yield {
            version: stack.enter_context(open_url(make_url(addresses["owner"])))
            for version, addresses in request.config.stash[_SERVERS].items()
        }


@pytest.fixture
def any_server(request: pytest.FixtureRequest, servers: dict[int, Server]) -> Server:
    """Each embedded server in turn: for what may differ between the major versions."""
    version: int = request.param
    return servers[version]


@pytest.fixture(scope="session")
def main_server(servers: dict[int, Server], request: pytest.FixtureRequest) -> Server:
    """The server that most tests use, also where a file has a `server` of its own."""
    return servers[request.config.stash[_MAIN]]


@pytest.fixture(scope="session")
def server(main_server: Server) -> Server:
    """The server that most tests use."""
    return main_server


@pytest.fixture(scope="session")
def superusers(request: pytest.FixtureRequest) -> dict[int, URL]:
    """The superuser's URL on each embedded server: for what no customer of Neon can do."""
    return {
        version: make_url(server["superuser"])
        for version, server in request.config.stash[_SERVERS].items()
    }


@pytest.fixture(scope="session")
def binaries(request: pytest.FixtureRequest) -> dict[int, Path]:
    """The folder of pg_dump, pgbench and the others, by major version."""
    return {
        version: Path(server["binaries"])
        for version, server in request.config.stash[_SERVERS].items()
    }


@pytest.fixture(scope="session")
def head_template(server: Server) -> Iterator[URL]:
    """A database at the head revision that nobody connects to: clone it."""
    with server.database() as url:
        with connect(url) as connection:
            upgrade(connection, scripts())
        yield url


@pytest.fixture
def head(server: Server, head_template: URL) -> Iterator[URL]:
    """A database at the head revision, of the test's own."""
    with server.database(head_template) as url:
        yield url


@pytest.fixture
def empty(server: Server) -> Iterator[URL]:
    """An empty database, of the test's own."""
    with server.database() as url:
        yield url


@pytest.fixture(scope="session")
def _logins(server: Server, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Logins that hold one group role each."""
    request.getfixturevalue("head_template")  # whose revisions make the group roles
    names = {role: f"login_{secrets.token_hex(4)}" for role in (APPLICATION, BETTER_AUTH)}
    with connect(server.maintenance, autocommit=True) as connection:
        for role, name in names.items():
            connection.exec_driver_sql(
                f"CREATE ROLE {name} LOGIN PASSWORD '{_PASSWORD}' IN ROLE {role}"
            )
        yield names
        for name in names.values():
            connection.exec_driver_sql(f"DROP ROLE {name}")


@pytest.fixture
def application(head: URL, _logins: dict[str, str]) -> URL:
    """Connects to `head` as an application does: a login in `todo_app`, and nothing else."""
    return head.set(username=_logins[APPLICATION], password=_PASSWORD)


@pytest.fixture
def better_auth(head: URL, _logins: dict[str, str]) -> URL:
    """Connects to `head` as Better Auth does: a login in `todo_auth`, and nothing else."""
    return head.set(username=_logins[BETTER_AUTH], password=_PASSWORD)


@pytest.fixture
def users(better_auth: URL) -> None:
    """Make Alice and Bob, as Better Auth does."""
    with connect(better_auth) as connection:
        for user in (ALICE, BOB):
            connection.execute(
                text('INSERT INTO "user" (id, name, email) VALUES (:id, :name, :name)'),
                {"id": user, "name": str(user)},
            )
        connection.commit()


@pytest.fixture
def alembic_engine(empty: URL) -> Iterator[Engine]:
    """What pytest-alembic's own tests run on."""
    engine = create_engine(empty, poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def models_server(server: Server, request: pytest.FixtureRequest) -> list[str]:
    """Tell `alembic check` where to build the models, if no embedded server has the version."""
    if request.config.stash[_MAIN] in VERSIONS:
        return []
    return [f"scratch-url={server.maintenance.render_as_string(hide_password=False)}"]


@pytest.fixture
def alembic_config(models_server: list[str]) -> Config:
    """What pytest-alembic's own tests run."""
    return Config(ROOT / "alembic.ini", cmd_opts=Namespace(x=models_server))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Run commands of this checkout, or of copies of it, each in a process of its own."""
    with launcher(tmp_path_factory.mktemp("launcher")) as opened:
        yield opened


@pytest.fixture
def copy(tmp_path: Path) -> Checkout:
    """A copy of the checkout, of the test's own, to break."""
    return copy_to(tmp_path / "checkout")


@pytest.fixture
def check(run: Launcher, copy: Checkout, server: Server) -> Callable[[], Result]:
    """Run `schema check` in the copy, on the shared server."""
    url = server.maintenance.render_as_string(hide_password=False)
    return lambda: run.run(copy.root, *CHECK, "--database-url", url)
