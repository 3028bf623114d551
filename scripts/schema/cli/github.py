"""`schema github`: write a comment, or an issue about drift."""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from schema.cli.exits import exit_codes
from schema.errors import CannotRunError
from schema.github import comment as comments
from schema.github import issue as issues
from schema.github import release as releases
from schema.github.api import open_repository
from schema.github.pull_requests import is_at, number_of
from schema.text import fenced


def comment(page: Path, head: str, number: int | None, source: str | None) -> None:
    """Write the page as the comment of the pull request with that head.

    Without a page, the comment says that the review could not run.
    """
    with exit_codes():
        if not re.fullmatch(r"[0-9a-f]{40}", head):
            raise CannotRunError("The head must be a commit of 40 hexadecimal digits.")
        text = _text_of(page)
        with open_repository() as github:
            if number is not None:
                of = number if is_at(github, number, head) else None
            else:
                of = number_of(github, source or "", head)
            written = None if of is None else comments.write(github, of, text, head)
    if written is None:
        typer.echo("The pull request was closed or pushed to; nothing was written.")
    else:
        typer.echo(f"Wrote {written}.")


def _text_of(page: Path) -> str:
    """Return the page, or what to say without a usable one: an older page must not stay."""
    try:
        if page.is_symlink() or page.exists():
            return comments.read_page(page)
    except CannotRunError as error:
        typer.echo(str(error), err=True)
    return f"### ✗ The review could not run\n\nIts run says why{_this_run()}.\n"


def _this_run() -> str:
    """Return where the run can be read, as GitHub's environment has it."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (os.environ.get(name, "") for name in names)
    return f": {server}/{repository}/actions/runs/{run}" if server and run else ""


def issue(document: Path) -> None:
    """Open, update or close the issue about drift."""
    with exit_codes():
        found = _read(document)
        if found.get("drift") is None:
            raise CannotRunError(
                f"The database could not be compared ({found.get('error')}), so the issue stays as"
                " it is."
            )
        with open_repository() as github:
            said = issues.report(github, _page(found) if found["drift"] else None)
    typer.echo(said)


def release(tag: str, folder: Path) -> None:
    """Make the release of a tag, with what `schema release` wrote."""
    with exit_codes(), open_repository() as github:
        address = releases.publish(github, tag, folder)
    typer.echo(f"Released {address}.")


def _read(document: Path) -> dict[str, Any]:
    try:
        found = json.loads(document.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CannotRunError(
            f"{document.name} cannot be read; it must be what schema drift --json printed."
        ) from error
    if not isinstance(found, dict):
        raise CannotRunError(f"{document.name} is not what schema drift --json prints.")
    return found


def _harmless(value: Any) -> Any:  # noqa: ANN401  # any JSON
    if isinstance(value, str):
        return comments.harmless(value)
    return [_harmless(one) for one in value] if isinstance(value, list) else value


def _page(found: dict[str, Any]) -> str:
    """Say what differs, without a password and without a row."""
    found = {name: _harmless(value) for name, value in found.items()}
    parts = []
    if found.get("equals") and found["equals"] != found["revision"]:
        parts.append(
            f"`alembic_version` records `{found['revision']}`, but the schema equals"
            f" `{found['equals']}`."
        )
    if found["difference_count"]:
        parts.append(
            f"At revision `{found['revision']}` the database differs in"
            f" {found['difference_count']} facts that only the history has (-) or only the database"
            f" has (+).\n\n{fenced(found['difference'], 'diff')}"
        )
    parts += [f"Not looked at: {one}" for one in found.get("limitations") or ()]
    parts.append(str(found["remedy"]))
    parts.append(f"<sub>Seen on {datetime.now(UTC):%Y-%m-%d}{_this_run()}</sub>")
    return "\n\n".join(parts) + "\n"
