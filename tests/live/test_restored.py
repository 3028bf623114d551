"""A restored database that has lost its own privileges is recognised, with SQL to bring them back.

The theory: pg_restore without --create leaves the new database's privileges at PostgreSQL's
defaults. Then each other fact of the database itself is missing too. Any other state of them is a
change like others.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from migrations import snapshot
from migrations.snapshot import Fact, Snapshot
from schema.live import read
from schema.live.difference import Severity
from schema.live.restored import restored_without_acl
from schema.postgres.scratch import Server
from tests.support.alembic_process import execute
from tests.support.servers import conninfo

CONNECT = Fact("database", "grant to PUBLIC", "CONNECT")
DEFAULT = Fact("database", "grant to PUBLIC", "CONNECT, TEMPORARY")
TABLE = Fact("table t", "row security", "enabled")


def facts_of(url: URL) -> Snapshot:
    """Read the snapshot with Alembic's table."""
    return read.read(url, lambda connection: snapshot.read(connection, version_table=True))


@pytest.fixture
def programs(server: Server, binaries: dict[int, Path]) -> Path:
    """The folder of pg_dump and pg_restore."""
    return binaries[read.major(server.version)]


@pytest.fixture
def superuser(empty: URL, server: Server, superusers: dict[int, URL]) -> Iterator[URL]:
    """The superuser's URL of the empty database."""
    own = superusers[read.major(server.version)]
    yield own.set(database=empty.database)
    # The owner cannot drop it while a superuser's session is just ending.
    execute(own, f"DROP DATABASE {empty.database} WITH (FORCE)")


@pytest.fixture
def restored(head: URL, empty: URL, superuser: URL, programs: Path, tmp_path: Path) -> URL:
    """A database that was restored without --create from a dump of `head`."""
    dump = str(tmp_path / "dump")
    for command in (
        [str(programs / "pg_dump"), "-Fc", f"--file={dump}", conninfo(head)],
        [str(programs / "pg_restore"), f"--dbname={conninfo(superuser)}", dump],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return empty


def test_a_restored_dump(head: URL, restored: URL) -> None:
    """Only the database's privileges differ after pg_restore, and the SQL brings them back."""
    expected, found = facts_of(head), facts_of(restored)
    one = restored_without_acl(expected, found, str(restored.database))
    assert one is not None
    assert (one.object, one.part, one.was, one.found) == (*CONNECT, DEFAULT.definition)
    assert one.severity is Severity.ISOLATION
    assert one.sentence.startswith("the database was probably restored without its own privileges")
    assert one.sql == f'REVOKE TEMPORARY ON DATABASE "{restored.database}" FROM PUBLIC'
    execute(restored, one.sql)
    assert facts_of(restored) == expected
    assert restored_without_acl(expected, facts_of(restored), str(restored.database)) is None


@pytest.mark.parametrize(
    ("expected", "found", "sql"),
    [
        ((CONNECT, TABLE), (DEFAULT,), 'REVOKE TEMPORARY ON DATABASE "x""y" FROM PUBLIC'),
        (
            (
                Fact("database", "grant to PUBLIC", "none"),
                Fact("database", "grant to todo_app", "CONNECT"),
                Fact("database", "setting work_mem", "8MB"),
            ),
            (DEFAULT, TABLE),
            'REVOKE CONNECT, TEMPORARY ON DATABASE "x""y" FROM PUBLIC; GRANT CONNECT ON DATABASE'
            ' "x""y" TO todo_app',
        ),
    ],
    ids=["public", "all"],
)
def test_what_was_lost(expected: Snapshot, found: Snapshot, sql: str) -> None:
    """The SQL brings back what the history grants."""
    one = restored_without_acl(expected, found, 'x"y')
    assert one is not None
    assert one.sql == sql


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ((CONNECT,), (CONNECT,)),
        ((DEFAULT,), (DEFAULT,)),
        ((CONNECT,), (DEFAULT, Fact("database", "setting work_mem", "8MB"))),
        ((CONNECT,), (Fact("database", "grant to PUBLIC", "CONNECT, CREATE, TEMPORARY"),)),
        ((CONNECT,), ()),
    ],
    ids=["nothing", "defaults", "another-setting", "another-grant", "not-read"],
)
def test_what_is_no_restore(expected: Snapshot, found: Snapshot) -> None:
    """Another state of the database's own facts is a change like any other."""
    assert restored_without_acl(expected, found, "x") is None
