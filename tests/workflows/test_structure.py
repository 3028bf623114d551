"""What every workflow file must keep to.

The theory: a person can run each step; no job has a right that it does not need; no job that runs a
pull request's code can see a secret, or is reached by what a stranger writes.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from schema.project import ROOT
from tests.support.workflows import workflows

type Job = dict[str, Any]

PERSONS = re.compile(
    r"(scripts/[a-z-]+|\.venv/bin/schema [a-z]+|\.venv/bin/alembic upgrade head)( [^\n;&|`]*)?"
)
"""One command of this repository, with its arguments."""

CONTROLLED = re.compile(
    r"\$\{\{[^}]*(head_ref|head\.ref|\.title|\.body|head_commit|\.label|github\.event\.[a-z_.]*name)"
)
"""What a stranger can choose."""


def jobs() -> Iterator[tuple[str, Job]]:
    """Yield every job, with its name and its file's."""
    for file, workflow in workflows():
        for name, job in workflow["jobs"].items():
            yield f"{file}.{name}", job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every step, with the name of its job."""
    for name, job in jobs():
        for step in job.get("steps", ()):
            yield name, step


@pytest.mark.parametrize(("job", "step"), [(n, s) for n, s in steps() if "run" in s])
def test_a_person_can_run_each_step(job: str, step: dict[str, Any]) -> None:
    """Each `run:` is one command of this repository, which exists and may be executed."""
    command = step["run"].strip().replace(" > drift.json", "")
    assert PERSONS.fullmatch(command), f"{job}: {command}"
    program = command.split()[0]
    if program.startswith("scripts/"):
        assert (ROOT / program).stat().st_mode & 0o111


def test_rights() -> None:
    """Nothing is granted on top; each job says what it needs, and ends by itself."""
    for file, workflow in workflows():
        assert workflow["permissions"] == {}, file
    for name, job in jobs():
        assert "permissions" in job, name
        if "uses" not in job:
            assert job["timeout-minutes"] <= 90, name


def test_checkouts_keep_no_credentials() -> None:
    """A step's code cannot push."""
    for name, step in steps():
        if str(step.get("uses", "")).startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, name


def test_actions_are_pinned() -> None:
    """An action is this repository's own, or a commit."""
    for name, step in steps():
        used = step.get("uses", "./")
        assert used.startswith("./") or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", used), name


def test_nothing_a_stranger_writes_reaches_a_shell() -> None:
    """No command interpolates anything, and no variable holds what a stranger can choose.

    The one exception is a branch's name, which a command gets as one quoted argument.
    """
    for name, step in steps():
        assert "${{" not in step.get("run", ""), name
        for value in (step.get("env") or {}).values():
            assert not CONTROLLED.search(str(value)), name


def test_the_key_is_never_where_a_pull_requests_code_runs() -> None:
    """A job that checks out a pull request's head has no secret and no environment."""
    heads = 0
    for name, job in jobs():
        text = str(job)
        refs = [
            one["with"].get("ref", "")
            for one in job.get("steps", ())
            if str(one.get("uses", "")).startswith("actions/checkout@")
        ]
        if any("head" in ref for ref in refs):
            heads += 1
            assert "environment" not in job, name
            assert "secrets.NEON" not in text, name
            assert "write" not in str(job["permissions"]), name
        if "NEON_API_KEY" in text:
            keyed = [one for one in job["steps"] if "NEON_API_KEY" in str(one)]
            assert len(keyed) == 1, name
            assert all("head" not in ref for ref in refs), name
        if "write" in str(job["permissions"]):
            assert all("head" not in ref for ref in refs), name
    assert heads == 1


def test_a_deploy_is_never_cancelled() -> None:
    """Nor a clean-up, which a merge would cancel otherwise."""
    for file, workflow in workflows():
        if file in {"deploy", "clean-up", "drift"}:
            assert workflow["concurrency"]["cancel-in-progress"] is False, file


def test_the_gate_waits_for_every_job() -> None:
    """A job that nobody waits for may fail unseen."""
    every = dict(workflows())["ci"]["jobs"]
    assert set(every["ci"]["needs"]) == set(every) - {"ci"}
