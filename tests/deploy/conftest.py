"""The deploy's tests run on a history that no change of the schema moves.

It is the beginning of the product's history, which cannot change any more: merged revisions are
immutable. So these tests can say which revision makes which table.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import URL

from migrations import snapshot
from migrations.snapshot import fingerprints
from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from schema.revisions import schemas
from schema.revisions.history import revisions_oldest_first
from schema.revisions.runner import upgrade
from tests.support.frozen import LAST
from tests.support.repo_copy import Checkout, copy_to


@pytest.fixture(scope="session")
def frozen(tmp_path_factory: pytest.TempPathFactory, main_server: Server) -> Path:
    """Return a checkout whose history ends at LAST, with the generated files of that history."""
    copy = copy_to(tmp_path_factory.mktemp("frozen") / "checkout")
    directory = ScriptDirectory(str(copy.root / "migrations"))
    names = [revision.revision for revision in revisions_oldest_first(directory)]
    for later in names[names.index(LAST) + 1 :]:
        (path,) = copy.versions.glob(f"*_{later}_*.py")
        path.unlink()
    with main_server.database() as url:
        history = schemas.build(url, ScriptDirectory(str(copy.root / "migrations")))
    copy.snapshot.write_text(snapshot.layout(history[LAST], LAST), encoding="utf-8")
    fingerprints_file = copy.root / "migrations" / "fingerprints.txt"
    fingerprints_file.write_text(fingerprints.write(history), encoding="utf-8")
    return copy.root


@pytest.fixture(scope="session")
def head_template(server: Server, frozen: Path) -> Iterator[URL]:
    """Build a database at LAST that nobody connects to: clone it."""
    with server.database() as url:
        with connect(url) as connection:
            upgrade(connection, ScriptDirectory(str(frozen / "migrations")))
        yield url


@pytest.fixture
def copy(tmp_path: Path, frozen: Path) -> Checkout:
    """Return a copy of the frozen checkout, of the test's own, to break."""
    return copy_to(tmp_path / "checkout", frozen)
