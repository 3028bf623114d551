"""How long a review takes for 10, 50 and 200 new revisions: `python -m tests.review.times`.

The rival is pytest-alembic: its four tests of the same history, in one process, side by side and in
turns. The figures are medians, and ratios to the shortest history; nothing passes or fails here.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from schema.review.runner import Options
from tests.support.repo_copy import Checkout, branch_off, copy_to, equip

_KINDS = (
    ('op.execute("ALTER TABLE todo ADD COLUMN c{n} text")',
     'op.execute("ALTER TABLE todo DROP COLUMN c{n}")'),
    ('op.execute("CREATE TABLE t{n} (id bigint PRIMARY KEY)")', 'op.execute("DROP TABLE t{n}")'),
    ('op.execute("ALTER TABLE todo ADD CONSTRAINT k{n} CHECK (title <> \'{n}\') NOT VALID")',
     'op.execute("ALTER TABLE todo DROP CONSTRAINT k{n}")'),
    ('op.execute("CREATE INDEX i{n} ON tag (user_id, name)")', 'op.execute("DROP INDEX i{n}")'),
    ('op.execute("CREATE VIEW v{n} WITH (security_invoker) AS SELECT id FROM todo")',
     'op.execute("DROP VIEW v{n}")'),
)  # fmt: skip
"""What the revisions do, in turn."""

_PYTEST_ALEMBIC = '''"""pytest-alembic's own tests of this history."""

import pytest
from pytest_alembic.tests import (
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from schema.postgres.scratch import open_server


@pytest.fixture
def alembic_config():
    return {"file": "alembic.ini"}


@pytest.fixture
def alembic_engine():
    with open_server(None, "18", lambda _step: None) as server, server.database() as url:
        engine = create_engine(url, poolclass=NullPool)
        yield engine
        engine.dispose()
'''


def history(folder: Path, number: int) -> Checkout:
    """Make a clone whose branch has so many new revisions."""
    copy = copy_to(folder)
    branch_off(copy)
    parent = copy.head
    for n in range(number):
        up, down = _KINDS[n % len(_KINDS)]
        name = f"{n:012x}"
        copy.add(
            up.replace("{n}", str(n)), down.replace("{n}", str(n)),
            revision=name, parents=parent, name=f"2099_01_01_{n:04}_{name}_step.py",
        )  # fmt: skip  # one line per group
        parent = name
    equip(copy)
    (copy.root / "tests" / "conftest.py").unlink()
    (copy.root / "tests" / "test_rival.py").write_text(_PYTEST_ALEMBIC, encoding="utf-8")
    return copy


def seconds(copy: Checkout, *command: str) -> float:
    """Run a command in the clone, and return how long it took."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *command], cwd=copy.root, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{copy.root}/scripts:{copy.root}"},
    )  # fmt: skip  # one line per group
    if done.returncode not in {0, 1}:
        raise RuntimeError(done.stdout + done.stderr)
    return time.monotonic() - started


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=Options().rows)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("revisions", nargs="*", type=int, default=[10, 50, 200])
    chosen = parser.parse_args()
    review = (
        "-P", "-m", "schema.cli.main", "review", "--rows", str(chosen.rows), "--output", "page.md",
    )  # fmt: skip  # one line per group
    rival = ("-m", "pytest", "-q", "tests/test_rival.py")
    first = 0.0
    for number in chosen.revisions:
        with tempfile.TemporaryDirectory() as folder:
            copy = history(Path(folder) / "checkout", number)
            taken: tuple[list[float], list[float]] = ([], [])
            for _ in range(chosen.runs):
                taken[0].append(seconds(copy, *review))
                taken[1].append(seconds(copy, *rival))
        ours, theirs = map(statistics.median, taken)
        first = first or ours
        sys.stdout.write(
            f"{number} revisions, {chosen.rows:,} rows: review {ours:.1f} s ({ours / first:.2f}"
            f" times the first), pytest-alembic {theirs:.1f} s, ratio {ours / theirs:.2f}\n"
        )
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
