"""Real PostgreSQL for every test: one embedded server of each major version for the whole run.

The process that controls the run owns the servers, so that they are stopped however it ends; each
test gets scratch databases of its own on them.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.pool import NullPool

from schema.alembic_run import upgrade
from schema.database import connect
from schema.embedded import VERSIONS, embedded
from schema.ownership import APPLICATION, BETTER_AUTH
from schema.repository import ROOT, scripts
from schema.server import Server, given

NEWEST = VERSIONS[0]
_SERVERS = pytest.StashKey[dict[int, dict[str, str]]]()
_STACK = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers in the controlling process; its workers are told where they are."""
    # A developer's own settings must not decide how a test goes.
    for name in [name for name in os.environ if name.startswith("PG") or name == "DATABASE_URL"]:
        del os.environ[name]
    if hasattr(config, "workerinput"):
        config.stash[_SERVERS] = config.workerinput["servers"]
        return
    config.stash[_SERVERS] = {}
    config.stash[_STACK] = ExitStack()
    if config.option.collectonly:
        return
    for version in VERSIONS:
        started = config.stash[_STACK].enter_context(embedded(version))
        config.stash[_SERVERS][version] = {
            "owner": started.owner.render_as_string(hide_password=False),
            "superuser": started.superuser.render_as_string(hide_password=False),
            "binaries": str(started.binaries),
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


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Register the hooks that only exist beside xdist."""
    pluginmanager.register(Xdist())


def _owner(config: pytest.Config, version: int) -> URL:
    return make_url(config.stash[_SERVERS][version]["owner"])


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[dict[int, Server]]:
    """The embedded servers, by major version, opened as the role that is like Neon's owner."""
    with ExitStack() as stack:
        yield {
            version: stack.enter_context(given(_owner(request.config, version)))
            for version in VERSIONS
        }


@pytest.fixture(params=VERSIONS, ids=lambda version: f"pg{version}")
def any_server(request: pytest.FixtureRequest, servers: dict[int, Server]) -> Server:
    """Each embedded server in turn: for what may differ between the major versions."""
    version: int = request.param
    return servers[version]


@pytest.fixture(scope="session")
def server(servers: dict[int, Server]) -> Server:
    """The embedded server of the newest major version."""
    return servers[NEWEST]


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
            connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN IN ROLE {role}")
        yield names
        for name in names.values():
            connection.exec_driver_sql(f"DROP ROLE {name}")


@pytest.fixture
def application(head: URL, _logins: dict[str, str]) -> URL:
    """Connects to `head` as an application does: a login in `todo_app`, and nothing else."""
    return head.set(username=_logins[APPLICATION])


@pytest.fixture
def better_auth(head: URL, _logins: dict[str, str]) -> URL:
    """Connects to `head` as Better Auth does: a login in `todo_auth`, and nothing else."""
    return head.set(username=_logins[BETTER_AUTH])


@pytest.fixture
def alembic_engine(empty: URL) -> Iterator[Engine]:
    """What pytest-alembic's own tests run on."""
    engine = create_engine(empty, poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def alembic_config() -> dict[str, str]:
    """What pytest-alembic's own tests run."""
    return {"file": str(ROOT / "alembic.ini")}
