"""The checks pass on the oldest and the newest supported server; an older one is refused.

The theory: every supported major version has the same schema text; an unsupported server is not
changed.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from migrations.postgres import DRIVER
from schema.errors import CannotRunError
from schema.postgres.connection import connect
from schema.postgres.dev_server import free_port
from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import Server
from schema.project import ROOT, SNAPSHOT
from tests.support.alembic_process import deploy
from tests.support.repo_copy import Launcher

DEBIAN = Path("/usr/lib/postgresql/15/bin")
PASSWORD = "s3cr3t"  # noqa: S105  # must not appear in any output


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_whole_check_on_each_version(run: Launcher, version: int) -> None:
    """`schema check --postgres` passes on each, lint included, with the one schema.txt."""
    before = SNAPSHOT.read_bytes()
    result = run.run(ROOT, "check", "--postgres", str(version))
    assert result.code == 0, result.everything
    assert f"on PostgreSQL {version}." in result.out
    assert "generated files" in result.checks("✓ passes")
    assert SNAPSHOT.read_bytes() == before


def test_snapshot_is_the_same_on_each_version(run: Launcher, any_server: Server) -> None:
    """`schema snapshot` changes no file on any version."""
    url = any_server.maintenance.render_as_string(hide_password=False)
    result = run.run(ROOT, "snapshot", "--database-url", url)
    assert result.code == 0, result.everything
    assert result.out == "Everything is up to date.\n"


@pytest.fixture
def debian() -> Iterator[URL]:
    """Debian's PostgreSQL 15, if it is installed."""
    if not (DEBIAN / "postgres").exists():
        pytest.skip(f"PostgreSQL 15 is not installed below {DEBIAN} (apt install postgresql-15)")
    user = None
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp())  # the server's user cannot enter pytest's private folder
    if user is not None:
        shutil.chown(folder, user)
    secret = folder / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    secret.chmod(0o644)
    data, port = folder / "data", free_port(0)
    subprocess.run(
        [DEBIAN / "initdb", f"--pgdata={data}", "--username=owner", "--auth=scram-sha-256",
         f"--pwfile={secret}", "--no-sync"],
        user=user, cwd=folder, check=True, capture_output=True,
    )  # fmt: skip  # one call, a line for each kind of argument
    process = subprocess.Popen(
        [DEBIAN / "postgres", "-D", data, f"--port={port}", "--listen_addresses=127.0.0.1",
         f"--unix_socket_directories={folder}"],
        user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip  # one call, a line for each kind of argument
    try:
        url = URL.create(DRIVER, "owner", PASSWORD, "127.0.0.1", port, "postgres")
        for _ in range(100):
            try:
                with connect(url):
                    break
            except CannotRunError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def contents(url: URL) -> list[str]:
    """List the objects of the cluster that a run could change."""
    with connect(url) as connection:
        return list(
            connection.exec_driver_sql(
                "SELECT 'database ' || datname FROM pg_database"
                " UNION ALL SELECT 'role ' || rolname FROM pg_roles"
                " UNION ALL SELECT 'relation ' || relname FROM pg_class WHERE oid >= 16384"
                " ORDER BY 1"
            ).scalars()
        )


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "snapshot"])
def test_version_that_is_too_old(run: Launcher, debian: URL, command: str) -> None:
    """PostgreSQL 15 is refused in one sentence, and not changed."""
    before = contents(debian)
    text = debian.set(drivername="postgresql").render_as_string(hide_password=False)
    result = run.run(ROOT, command, "--database-url", text)
    assert result.code == 2, result.everything
    assert result.out == ""
    where = f"postgres on 127.0.0.1:{debian.port} as owner"
    expected = f"PostgreSQL 15 at {where} is too old; 16 is the oldest that is supported."
    assert result.err == f"schema: {expected}\n"
    assert contents(debian) == before


@pytest.mark.slow
def test_deploy_to_a_version_that_is_too_old(run: Launcher, debian: URL) -> None:
    """A deploy to PostgreSQL 15 is refused, and changes nothing."""
    before = contents(debian)
    result = deploy(run, ROOT, debian)
    assert result.code == 2, result.everything
    expected = (
        "The server is PostgreSQL 15, and 16 is the oldest supported version; upgrade the server"
        " first."
    )
    assert result.err == f"FAILED: {expected}\n"
    assert contents(debian) == before
