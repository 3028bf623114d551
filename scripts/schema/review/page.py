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

from schema.errors import CannotRunError
from schema.project import REVISIONS_DIR, ROOT, SNAPSHOT, own_environment, scripts
from schema.revisions.history import is_irreversible, revisions_oldest_first
from schema.revisions.merged import NotComparableError, git, merge_base
from schema.text import pluralize

type Show = Callable[[str], None]


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
    """Return how the committed schema differs from the base's."""
    try:
        text = git("diff", "--unified=2", base, "--", str(SNAPSHOT))
    except NotComparableError as error:
        raise CannotRunError(f"The schemas cannot be compared: {error}.") from error
    lines = text.splitlines()
    begin = next((n for n, line in enumerate(lines) if line.startswith("@@")), len(lines))
    return "\n".join(line for line in lines[begin:] if not line.startswith("@@"))


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
    for ran in (*tried, checked):
        parts.append(f"\n{'✓' if ran.ok else '✗'} {ran.what}, {ran.seconds:.1f} s")
        if ran.said.strip() and (tried or not ran.ok):
            parts.append(_folded("What it said", ran.said, ""))
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
    return Ran(what, seconds, done.returncode == 0, done.stdout + done.stderr)


def _folded(title: str, text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return (
        f"\n<details><summary>{title}</summary>\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n\n"
        "</details>"
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
