"""The workflow files, and their steps run here as GitHub's runner runs them.

The commands, their order and their environment come from the YAML itself. A test says what an
expression is worth; one that it does not name is an error.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are not worth a dependency

from schema.project import ROOT

FOLDER = ROOT / ".github" / "workflows"

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}", re.DOTALL)

type Values = Mapping[str, str]
"""What expressions are worth, by their text."""


@dataclass(frozen=True)
class Done:
    """A step that ran."""

    command: str
    code: int
    out: str
    err: str


def workflow(name: str) -> dict[str, Any]:
    """Read a workflow file."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))
    return found


def workflows() -> Iterator[tuple[str, dict[str, Any]]]:
    """Read every workflow file, by name."""
    for path in sorted(FOLDER.glob("*.yml")):
        yield path.stem, workflow(path.stem)


def evaluate(text: object, values: Values) -> str:
    """Replace each expression by what it is worth."""
    return _EXPRESSION.sub(lambda found: values[" ".join(found[1].split())], str(text))


def run_steps(
    name: str, job: str, values: Values, root: Path, environment: dict[str, str]
) -> tuple[list[Done], dict[str, str]]:
    """Run a job's commands in a checkout; return them, and the outputs of its steps."""
    described = workflow(name)["jobs"][job]
    failed = False
    done: list[Done] = []
    outputs: dict[str, str] = {}
    for step in described["steps"]:
        if "run" not in step or not _wanted(step, values, failed=failed):
            continue
        output = root / ".output"
        output.write_text("", encoding="utf-8")
        given = (described.get("env") or {}) | (step.get("env") or {})
        own = {key: evaluate(value, values) for key, value in given.items()}
        process = subprocess.run(
            ["sh", "-e", "-c", evaluate(step["run"], values)],
            cwd=root,
            env=environment | own | {"GITHUB_OUTPUT": str(output), "GITHUB_ACTIONS": "true"},
            capture_output=True,
            text=True,
            check=False,
        )
        done.append(Done(step["run"], process.returncode, process.stdout, process.stderr))
        failed = failed or (process.returncode != 0 and not step.get("continue-on-error"))
        for line in output.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            outputs[key] = value
        output.unlink()
    return done, outputs


def _wanted(step: dict[str, Any], values: Values, *, failed: bool) -> bool:
    condition = " ".join(str(step.get("if", "success()")).split())
    known = {"success()": not failed, "failure()": failed, "always()": True}
    known["failure() || cancelled()"] = failed
    if condition in known:
        return known[condition]
    return not failed and values[condition] == "true"
