"""Merged revisions are immutable: a database that ran the old text will not run it again."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from schema.checks.result import Failure
from schema.project import REVISIONS_DIR, ROOT

BRANCHES = ("origin/HEAD", "origin/main", "main")
"""The main branch, by the names that it may have; the first one that exists is used."""


class NotComparableError(Exception):
    """git cannot find the merged revisions; the message is the reason."""


def check() -> tuple[list[Failure], str]:
    """Compare the revision files with the merged ones.

    Returns the failures, and the reason why nothing could be compared ("" if it could). If nothing
    could be compared, the check fails only if CI is set.
    """
    try:
        return list(_changed(_merge_base())), ""
    except NotComparableError as error:
        if not os.environ.get("CI"):
            return [], str(error)
        message = f"Merged revisions cannot be compared: {error}."
        remedy = "Give the job the whole history: fetch-depth: 0 in actions/checkout."
        return [Failure(message, remedy)], str(error)


def _changed(base: str) -> Iterator[Failure]:
    changes = _git("diff", "--name-status", "--no-renames", base, "--", str(REVISIONS_DIR))
    for line in changes.splitlines():
        status, _, name = line.partition("\t")
        if status != "A" and name.endswith(".py"):
            verb = "was deleted" if status == "D" else "has changed"
            yield Failure(
                f"{Path(name).name} {verb} since it was merged ({base[:10]}).",
                f"Restore it (git checkout {base[:10]} -- {name}) and write a new revision:"
                " databases that ran the old text will not run it again.",
            )


def _merge_base() -> str:
    """Return the commit where this branch left the main one."""
    _git("rev-parse", "--git-dir")
    if _git("rev-parse", "--show-cdup").strip():
        raise NotComparableError("the checkout is inside another repository")
    existing = [one for one in BRANCHES if _succeeds("rev-parse", "--verify", "--quiet", one)]
    if not existing:
        raise NotComparableError("there is no branch main")
    for branch in existing:
        try:
            return _git("merge-base", "HEAD", branch).strip()
        except NotComparableError:
            continue
    if _git("rev-parse", "--is-shallow-repository").strip() == "true":
        raise NotComparableError("the clone is shallow")
    raise NotComparableError(f"HEAD and {existing[0]} have no common commit")


def _git(*arguments: str) -> str:
    """Run git in the checkout and return its standard output.

    Raises:
        NotComparableError: git is missing or fails.

    """
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise NotComparableError("git is not installed") from error
    if done.returncode != 0:
        if "dubious ownership" in done.stderr:
            raise NotComparableError("git refuses a checkout that belongs to another user")
        if "not a git repository" in done.stderr:
            raise NotComparableError("the checkout is no git repository")
        lines = done.stderr.strip().splitlines() or ["git gives no reason"]
        raise NotComparableError(lines[-1].removeprefix("fatal: "))
    return done.stdout


def _succeeds(*arguments: str) -> bool:
    try:
        _git(*arguments)
    except NotComparableError:
        return False
    return True
