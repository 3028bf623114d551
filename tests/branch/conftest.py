"""A stand-in for Neon, with a parent at head that holds users' rows, and the command against it."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import URL

from migrations.postgres import parse_url
from schema.access.declared import declared_samples
from schema.postgres.connection import connect
from schema.postgres.embedded import OWNER, embedded
from schema.project import ROOT
from schema.revisions.runner import upgrade_database
from schema.rows.generator import fill_database
from tests.branch.stand_in.server import StandIn, stand_in
from tests.branch.stand_in.state import DATABASE, PROJECT, Branch
from tests.support.github import REPOSITORY, GitHub, github
from tests.support.repo_copy import COMMAND, Launcher, Result

KEY = "key-of-the-tests"

type Schema = Callable[..., Result]


@pytest.fixture(scope="module")
def project() -> Iterator[StandIn]:
    """A project whose default branch is at head and holds rows; its servers are its own."""
    with embedded() as server, stand_in(server) as started:
        url = url_of(started.state.main)
        upgrade_database(url)
        fill_database(url, declared_samples())
        yield started


@pytest.fixture
def neon(project: StandIn) -> Iterator[StandIn]:
    """The project as it was before any test."""
    yield project
    state = project.state
    project.order({})
    state.limit, state.page_size, state.failing = 10, 100, 0
    state.keys = {KEY: "all"}
    state.main.api["protected"] = False
    for branch in list(state.branches.values()):
        if branch is not state.main:
            branch.compute.close()
            state.branches.pop(branch.api["id"], None)


@pytest.fixture
def hub() -> Iterator[GitHub]:
    """A repository on GitHub, without a pull request."""
    with github() as started:
        yield started


@pytest.fixture
def schema(run: Launcher, neon: StandIn, hub: GitHub) -> Schema:
    """Run `schema branch` with these arguments, as in a pull request's job."""

    def branch(*arguments: str, **environment: str) -> Result:
        of_the_job = {"GITHUB_API_URL": hub.address, "GITHUB_REPOSITORY": REPOSITORY}
        given = environment_of(neon) | of_the_job | environment
        code = f"import os; os.environ.update({given!r}); {COMMAND}"
        return run.run(ROOT, "branch", *arguments, code=code)

    return branch


def environment_of(neon: StandIn) -> dict[str, str]:
    """Return the settings of a command that uses this project."""
    return {
        "NEON_PROJECT_ID": PROJECT,
        "NEON_API_KEY": KEY,
        "NEON_API_URL": neon.address,
    }


def url_of(branch: Branch) -> URL:
    """Return the URL of a branch's database, as its owner."""
    url = URL.create("postgresql+psycopg", OWNER, branch.password, "127.0.0.1")
    return url.set(port=branch.compute.port, database=DATABASE)


def scalar(url: URL | str, query: str) -> object:
    """Return the single value of a query."""
    with connect(parse_url(url) if isinstance(url, str) else url) as connection:
        return connection.exec_driver_sql(query).scalar()


def execute(url: str, statement: str) -> None:
    """Execute a statement, as a push's migrations do."""
    with connect(parse_url(url), autocommit=True) as connection:
        connection.exec_driver_sql(statement)
