"""What the tests of written revisions share: servers, and a history with every kind of object."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from schema.postgres.embedded import embedded
from schema.postgres.scratch import open_url
from schema.revision.author import Servers
from tests.revision.workshop import SCHEMA, Workshop, open_workshop
from tests.snapshot.test_snapshot import prepare


@pytest.fixture(scope="module")
def pair() -> Iterator[Servers]:
    """One server for the history and one for the models, with the roles of the schema."""
    with ExitStack() as stack:
        opened = []
        for _ in range(2):
            started = stack.enter_context(embedded())
            prepare(started.superuser)
            opened.append(stack.enter_context(open_url(started.owner, started.superuser)))
        yield Servers(*opened)


@pytest.fixture
def workshop(pair: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """The history of a schema with an object of every kind."""
    with open_workshop(pair, tmp_path, SCHEMA, monkeypatch) as made:
        yield made
