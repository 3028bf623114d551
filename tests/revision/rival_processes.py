"""The rivals of `schema revision`, each in a process, in an environment of their own."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from schema.errors import CannotRunError
from schema.project import ROOT
from tests.revision.rival_ground import Case, Ground, Outcome, execute
from tests.snapshot.test_snapshot import Change

PACKAGES = ("alembic-utils", "alembic-postgresql-enum", "sqlalchemy-declarative-extensions")
_INSTALLED = (*PACKAGES[:2], f"{PACKAGES[2]}[parse]")  # without the extra, it compares no views

VARIANTS: Mapping[str, Sequence[Sequence[str]]] = {
    "Alembic": [[]],
    "configured": [["settings"]],
    "with packages": [
        ["settings", PACKAGES[0], PACKAGES[1]],
        ["settings", PACKAGES[0], "functions of public"],
        ["settings", PACKAGES[2], PACKAGES[1]],
    ],
}
"""What each rival uses. Two packages compare functions, triggers and views: together, they would
make each of them twice. So each runs without the other, and the better outcome of a change counts.
alembic-utils cannot read the functions of a schema that has a range type: it reads those of public
in a run of its own, without `include_schemas`, which makes it read every schema."""

_WORKER = Path(__file__).with_name("rival_worker.py")


def environment(folder: Path) -> Path:
    """Make an environment with the project's packages and the rivals'; return its Python.

    Raises:
        CannotRunError: they cannot be installed.

    """
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    python = folder / "venv" / "bin" / "python"
    locked = ROOT / "requirements.txt"
    commands: list[list[str | Path]] = [
        ["venv", "--quiet", "--python", sys.executable, folder / "venv"],
        ["pip", "install", "--quiet", "--python", python, "--requirement", locked, *_INSTALLED],
    ]
    for arguments in commands:
        done = subprocess.run([uv, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            message = done.stderr.strip().partition("\n")[0]
            raise CannotRunError(f"The rivals cannot be installed: {message}.")
    return python


@dataclass
class Rival:
    """A running rival."""

    uses: Sequence[str]
    process: subprocess.Popen[str]
    versions: Mapping[str, str]
    ground: Ground
    alarms: list[str] = field(default_factory=list)
    """The operations that it finds although nothing differs."""
    left_out: list[str] = field(default_factory=list)
    """What it cannot compare without failing, although nothing differs."""

    def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Let it do a job."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"known": self.alarms, **job}) + "\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def calibrate(self) -> None:
        """Find out what it says although nothing differs.

        Raises:
            CannotRunError: it fails.

        """
        with self.ground.clone(self.ground.full) as url:
            found = self.ask({"do": "calibrate", **self._urls(url)})
        if found["crash"] is not None:
            raise CannotRunError(f"A rival fails on equal schemas: {found['crash']}.")
        self.left_out, self.alarms = found["left out"], found["operations"]

    def measure(self, case: Case) -> Outcome:
        """Let it compare and upgrade a database with rows."""
        with self.ground.clone(case.history) as url:
            found = self.ask({"do": "repair", **self._urls(url, case)})
            outcome = Outcome(crash=found["crash"], operations=found["operations"])
            outcome.detected = bool(outcome.operations)
            outcome.crashes = int(outcome.crash is not None)
            if outcome.detected and outcome.crash is None:
                self.ground.judge(case, url, outcome)
        return outcome

    def is_alarmed(self, change: Change) -> bool:
        """Whether it finds something in statements that change no schema."""
        with self.ground.clone(self.ground.full) as url:
            if "CREATE TABLE alembic_version" in change.sql:
                execute(url, "DROP TABLE alembic_version")
            execute(url, change.sql)
            found = self.ask({"do": "compare", **self._urls(url)})
        return bool(found["operations"]) or found["crash"] is not None

    def _urls(self, database: URL, case: Case | None = None) -> dict[str, str]:
        target = self.ground.bare if case is None else case.target
        urls = {"database": database, "target": target}
        return {name: url.render_as_string(hide_password=False) for name, url in urls.items()}


@contextmanager
def rival(python: Path, uses: Sequence[str], ground: Ground) -> Iterator[Rival]:
    """Start a rival, and end it afterwards."""
    with subprocess.Popen(
        [python, "-P", _WORKER, *uses],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": "0"},  # some packages write a set in any order
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise CannotRunError(f"A rival does not start: {', '.join(uses) or 'Alembic'}.")
        found = Rival(uses, process, json.loads(line), ground)
        try:
            found.calibrate()
            yield found
        finally:
            assert process.stdin is not None
            process.stdin.close()


def best(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the best of several outcomes of a change, with all their crashes."""
    found = max(outcomes, key=lambda one: (one.kept, one.repaired, one.detected, one.crash is None))
    return replace(found, crashes=sum(one.crashes for one in outcomes))
