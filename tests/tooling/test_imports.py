"""The import contracts of pyproject.toml are kept, and a violation is reported."""

import subprocess
import sys
from pathlib import Path

import pytest

from schema.project import ROOT
from tests.support.repo_copy import Checkout


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run lint-imports as scripts/lint does, on that checkout."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'scripts'}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contracts_hold() -> None:
    """The checkout keeps all contracts."""
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("scripts/schema/checks/comments.py", "from schema.live import read", "schema.live"),
        ("scripts/schema/postgres/scratch.py", "import schema.checks.result", "schema.checks"),
        ("scripts/schema/revisions/runner.py", "import migrations.deploy.runner", "deploy.runner"),
        ("migrations/deploy/report.py", "import schema.text", "schema.text"),
        ("models/base.py", "import migrations.postgres", "migrations.postgres"),
    ],
    ids=["neighbour", "upwards", "inside-of-the-deploy", "migrations-to-scripts", "models"],
)
def test_an_import_against_an_arrow(copy: Checkout, file: str, line: str, broken: str) -> None:
    """A violation of each contract is reported by name."""
    path = copy.root / file
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    done = lint_imports(copy.root)
    assert done.returncode == 1, done.stdout
    assert broken in done.stdout
