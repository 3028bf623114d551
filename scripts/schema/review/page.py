"""The page of a review: what the new revisions change, and how they ran, up, down and up again."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alembic.script import Script

from migrations import snapshot
from schema.errors import CannotRunError
from schema.project import REVISIONS_DIR, ROOT, SNAPSHOT, own_environment, scripts
from schema.revisions.history import is_irreversible, revisions_oldest_first
from schema.revisions.merged import NotComparableError, git, merge_base
from schema.text import fenced, pluralize

type Show = Callable[[str], None]

_UNKNOWN_REVISION = "is not in migrations/versions"
"""What a deploy says of a database that is ahead of this checkout."""


@dataclass(frozen=True)
class Ran:
    """A command that ran, and what it said."""

    what: str
    seconds: float
    ok: bool
    said: str


def new_revisions(base: str) -> list[Script]:
    """List the revisions that the main branch does not have, oldest first.

    Raises:
        CannotRunError: git cannot tell which they are.

    """
    try:
        listed = git("diff", "--name-only", "--diff-filter=A", base, "--", str(REVISIONS_DIR))
    except NotComparableError as error:
        raise CannotRunError(f"What is new cannot be found: {error}.") from error
    added = {Path(line).name for line in listed.splitlines()}
    return [one for one in revisions_oldest_first(scripts()) if Path(one.path).name in added]


def find_base() -> str:
    """Return the commit where this branch left the main one.

    Raises:
        CannotRunError: git cannot tell.

    """
    try:
        return merge_base()
    except NotComparableError as error:
        raise CannotRunError(
            f"The main branch's commit to compare with cannot be found: {error}."
        ) from error


def try_on(url: str, revisions: list[Script], show: Show) -> list[Ran]:
    """Upgrade, downgrade to below the new revisions, and upgrade again, as a deploy does.

    It stops at the first failure. Nothing is downgraded below an irreversible revision.
    """
    below = revisions[0].down_revision
    target = below if isinstance(below, str) else "base"
    steps = [("upgrade", "head"), ("downgrade", target), ("upgrade", "head")]
    if any(map(is_irreversible, revisions)):
        steps = steps[:1]
    found: list[Ran] = []
    for verb, where in steps:
        show(f"{verb} {where}")
        found.append(_run([sys.executable, "-m", "alembic", verb, where], url, verb))
        if not found[-1].ok:
            break
    return found


def check(show: Show) -> Ran:
    """Run `schema check` on the embedded server, with its lint."""
    show("schema check")
    command = [sys.executable, "-P", "-m", "schema.cli.main", "check", "--quiet"]
    return _run(command, "", "schema check")


def schema_difference(base: str) -> str:
    """Return how the committed schema differs from the base's, each line below its object."""
    try:
        before = git("show", f"{base}:{SNAPSHOT.relative_to(ROOT)}")
    except NotComparableError as error:
        raise CannotRunError(f"The schemas cannot be compared: {error}.") from error
    return snapshot.text_difference(before, SNAPSHOT.read_text(encoding="utf-8"))


def declared(revision: Script) -> list[str]:
    """List what a revision declares: what it loses or assumes, and what its lint allows."""
    found = [
        f"{word} `{what}`: {reason}"
        for word in ("loses", "assumes")
        for what, reason in (getattr(revision.module, word, None) or {}).items()
    ]
    text = Path(revision.path).read_text(encoding="utf-8")
    return found + [f"lint {line}" for line in re.findall(r"# lint: (allow .*)", text)]


def markdown(
    revisions: list[Script], tried: list[Ran], checked: Ran, difference: str
) -> tuple[str, bool]:
    """Return the page, and whether everything succeeded."""
    ok = checked.ok and all(one.ok for one in tried)
    number = pluralize(len(revisions), "new revision")
    verdict = "✓" if ok else "✗"
    where = (
        "on a Neon branch of its own"
        if tried
        else "on the embedded server only: this run has no secret for Neon"
    )
    title = f"{number}, tried {where}" if revisions else "No new revision"
    parts = [f"### {verdict} {title}"]
    for one in revisions:
        irreversible = " **It cannot be reverted.**" if is_irreversible(one) else ""
        parts.append(f"* `{one.revision}` {one.doc}{irreversible}")
        parts += [f"  * {line}" for line in declared(one)]
    if tried and "Nothing to do" in tried[0].said:
        parts.append(
            "\n**The first upgrade had nothing to do: the branch was not at its parent's state. Run"
            " all jobs of the review again.**"
        )
    if any(_UNKNOWN_REVISION in one.said for one in tried):
        parts.append(
            "\n**The branch's parent has a revision that this pull request lacks: merge main, then"
            " `schema rebase`.**"
        )
    for ran in (*tried, checked):
        parts.append(f"\n{'✓' if ran.ok else '✗'} {ran.what}, {ran.seconds:.1f} s")
        if ran.said.strip() and (tried or not ran.ok):
            parts.append(_folded("What it said", ran.said, "", shown=not ran.ok))
    if difference:
        parts.append(_folded("What changes in the schema", difference, "diff"))
    return "\n".join(parts) + "\n", ok


def _run(command: list[str], url: str, what: str) -> Ran:
    environment = own_environment() | ({"DATABASE_URL": url} if url else {})
    start = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={name: value for name, value in environment.items() if name != "DATABASE_URL_HEX"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - start
    return Ran(what, seconds, done.returncode == 0, done.stderr + done.stdout)


def _folded(title: str, text: str, language: str, *, shown: bool = False) -> str:
    return (
        f"\n<details{' open' if shown else ''}><summary>{title}</summary>\n\n"
        f"{fenced(text, language)}\n\n</details>"
    )


def given_url() -> str:
    """Return the database to throw away: DATABASE_URL_HEX, or "".

    GitHub drops an output that contains a masked secret, so the URL comes in hexadecimal.

    Raises:
        CannotRunError: it is no URL in hexadecimal.

    """
    text = os.environ.get("DATABASE_URL_HEX", "").strip()
    try:
        return bytes.fromhex(text).decode()
    except ValueError:
        raise CannotRunError("DATABASE_URL_HEX is no URL in hexadecimal.") from None
