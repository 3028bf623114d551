"""What git knows of the main branch: which revisions are merged, and so must not change."""

import subprocess

from schema.project import ROOT

BRANCHES = ("origin/HEAD", "origin/main", "main")
"""The main branch, by the names that it may have; the first one that exists is used."""


class NotComparableError(Exception):
    """git cannot find the merged revisions; the message is the reason."""


def merge_base() -> str:
    """Return the commit where this branch left the main one.

    Raises:
        NotComparableError: git cannot tell.

    """
    existing = _main_branches()
    for branch in existing:
        try:
            return git("merge-base", "HEAD", branch).strip()
        except NotComparableError:
            continue
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        raise NotComparableError("the clone is shallow")
    raise NotComparableError(f"HEAD and {existing[0]} have no common commit")


def main_branches() -> list[str]:
    """Return every branch that may be the main one: of each remote, and the local one.

    Raises:
        NotComparableError: there is none, or git cannot tell.

    """
    remotes = git("for-each-ref", "--format=%(refname:short)", "refs/remotes").split()
    names = ("main", "master", "HEAD")
    found = [one for one in remotes if one.rpartition("/")[2] in names]
    return [*_main_branches()[:1], *found]


def _main_branches() -> list[str]:
    git("rev-parse", "--git-dir")
    if git("rev-parse", "--show-cdup").strip():
        raise NotComparableError("the checkout is inside another repository")
    existing = [one for one in BRANCHES if _succeeds("rev-parse", "--verify", "--quiet", one)]
    if not existing:
        raise NotComparableError("there is no branch main")
    return existing


def git(*arguments: str) -> str:
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
        git(*arguments)
    except NotComparableError:
        return False
    return True
