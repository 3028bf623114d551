"""A history of its own, with every kind of object and rows, for the tests of written revisions.

The history is one revision that makes the schema of tests/snapshot/schema.sql; the models are a
metadata whose `create_all` runs the same script and a change. `write` is the one behind `schema
revision`; only the folder of the revisions differs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, MetaData, event

from migrations import snapshot
from schema.postgres.connection import connect, driver_of
from schema.project import ROOT
from schema.revision import author, files
from schema.revision.author import Request, Servers, Written
from schema.revision.decisions import Answers
from schema.revisions.history import is_irreversible, revisions_oldest_first
from schema.revisions.runner import downgrade_step, run, upgrade_step
from tests.snapshot.test_snapshot import DATA
from tests.snapshot.test_snapshot import run as run_sql

SCHEMA = (DATA / "schema.sql").read_text(encoding="utf-8")
ROWS = (Path(__file__).parent / "rows.sql").read_text(encoding="utf-8")

_BASE = '''"""Create everything.

WHY: a test needs a schema with an object of every kind.
"""

from pathlib import Path

from alembic import op

revision = "000000000001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().connection.driver_connection.execute(Path(__file__).with_name("base").read_text())


def downgrade() -> None:
    raise NotImplementedError("It is the base.")
'''

type Rows = dict[str, list[str]]
"""The rows of each table, as JSON texts."""


@dataclass
class Workshop:
    """A folder with the history, and the servers for scratch databases."""

    servers: Servers
    folder: Path
    base: str
    """The SQL of the history."""
    written: list[Path] = field(default_factory=list)

    def write(self, models: str, answers: Answers | None = None) -> Written:
        """Write the revisions that bring the history to a schema, given as SQL."""
        metadata = MetaData()

        @event.listens_for(metadata, "after_create")
        def create(_metadata: MetaData, connection: Connection, **_options: object) -> None:
            run_sql(connection, models)

        request = Request("Change it", None, answers or Answers())
        found = author.write(self.servers, [metadata], request, lambda _step: None)
        self.written = list(found.paths)
        return found

    def begin_with(self, base: str) -> None:
        """Let the history make another schema."""
        (self.folder / "versions" / "base").write_text(base, encoding="utf-8")

    def files(self) -> list[Path]:
        """List the files of the history."""
        return sorted((self.folder / "versions").glob("*.py"))

    def clear(self) -> None:
        """Remove what was written."""
        files.remove(self.written)
        self.written = []

    @contextmanager
    def at_head(self) -> Iterator[URL]:
        """Make a database at the revision before the written ones, with rows."""
        with self.servers.history.database() as url:
            with connect(url) as connection:
                directory = self.scripts()
                first = revisions_oldest_first(directory)[0]
                run(connection, directory, lambda _context: [upgrade_step(directory, first)])
                connection.commit()
            with connect(url) as connection:
                driver_of(connection).execute(ROWS.encode())
                driver_of(connection).commit()
            yield url

    def scripts(self) -> ScriptDirectory:
        """Return the history."""
        settings = Config()
        settings.set_main_option("script_location", str(self.folder))
        return ScriptDirectory.from_config(settings)

    def walk(self, url: URL) -> "Walk":
        """Run the written revisions up, and down as far as they can be reverted."""
        directory = self.scripts()
        names = {path.name for path in self.written}
        new = [one for one in revisions_oldest_first(directory) if Path(one.path).name in names]
        found = Walk(read_rows(url))
        with connect(url) as connection:
            run(connection, directory, lambda _: [upgrade_step(directory, one) for one in new])
            connection.commit()
            found.upgraded = read_rows(url)
            for one in reversed(new):
                if is_irreversible(one):
                    found.irreversible = Path(one.path).read_text(encoding="utf-8")
                    break
                back = downgrade_step(directory, one)
                run(connection, directory, lambda _, back=back: [back])  # type: ignore[misc]
                connection.commit()
        found.downgraded = read_rows(url)
        return found


@dataclass
class Walk:
    """The rows before the written revisions, after their upgrade, and after their downgrade."""

    before: Rows
    upgraded: Rows = field(default_factory=dict)
    downgraded: Rows = field(default_factory=dict)
    irreversible: str | None = None
    """The text of the revision that cannot be reverted."""


def read_rows(url: URL) -> Rows:
    """Read the rows of every table, each sorted."""
    tables = """
        SELECT c.oid::regclass::text FROM pg_class AS c
        WHERE c.relkind IN ('r', 'p')
          AND c.relnamespace::regnamespace::text IN ('public', 'library')
          AND c.relname <> 'alembic_version' ORDER BY 1
    """
    with connect(url) as connection:
        names = connection.exec_driver_sql(tables).scalars().all()
        return {
            name: list(
                connection.exec_driver_sql(
                    f"SELECT to_jsonb(t)::text FROM ONLY {name} AS t ORDER BY 1"
                ).scalars()
            )
            for name in names
        }


@contextmanager
def open_workshop(
    servers: Servers, folder: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workshop]:
    """Make the history in a folder, and let `write` use it."""
    versions = folder / "versions"
    versions.mkdir()
    env = (ROOT / "migrations" / "env.py").read_text(encoding="utf-8")
    (folder / "env.py").write_text(env, encoding="utf-8")
    (versions / "2026_01_01_0000_000000000001_create_everything.py").write_text(_BASE)
    (versions / "base").write_text(base, encoding="utf-8")
    workshop = Workshop(servers, folder, base)
    monkeypatch.setattr(files, "REVISIONS_DIR", versions)
    monkeypatch.setattr(author, "scripts", workshop.scripts)
    monkeypatch.setattr(author, "_refresh", lambda _server: None)
    yield workshop
    workshop.clear()


def schema_of(url: URL) -> snapshot.Snapshot:
    """Read a database's schema."""
    with connect(url) as connection:
        return snapshot.read(connection)
