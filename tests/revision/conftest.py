"""What the tests of written revisions share: servers, and a history with every kind of object."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from schema.postgres.embedded import embedded
from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import open_url
from schema.revision.author import Servers
from tests.revision.workshop import SCHEMA, Workshop, open_workshop
from tests.snapshot.test_snapshot import prepare


@pytest.fixture(scope="module")
def pairs(request: pytest.FixtureRequest) -> Iterator[Callable[[int], Servers]]:
    """For a major version: a server for the history and one for the models, with their roles.

    If `--postgres` names a folder, its servers stand for every version.
    """
    chosen = request.config.option.postgres
    with ExitStack() as stack:

        @cache
        def pair(version: int) -> Servers:
            opened = []
            for _ in range(2):
                which = version if chosen.isdecimal() else chosen
                started = stack.enter_context(embedded(which))
                prepare(started.superuser)
                opened.append(stack.enter_context(open_url(started.owner, started.superuser)))
            return Servers(*opened)

        yield pair


@pytest.fixture
def workshop(
    request: pytest.FixtureRequest,
    pairs: Callable[[int], Servers],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Workshop]:
    """The history of a schema with an object of every kind; the parameter is a major version."""
    servers = pairs(getattr(request, "param", VERSIONS[0]))
    with open_workshop(servers, tmp_path, SCHEMA, monkeypatch) as made:
        yield made
