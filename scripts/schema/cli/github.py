"""`schema github`: write a comment, or an issue about drift."""

import json
import re
from pathlib import Path
from typing import Any

import typer

from schema.cli.exits import exit_codes
from schema.errors import CannotRunError
from schema.github import comment as comments
from schema.github import issue as issues
from schema.github import release as releases
from schema.github.api import open_repository
from schema.github.pull_requests import number_of


def comment(page: Path, head: str) -> None:
    """Write the page as the comment of the pull request with that head."""
    with exit_codes():
        if not re.fullmatch(r"[0-9a-f]{40}", head):
            raise CannotRunError("The head must be a commit of 40 hexadecimal digits.")
        text = comments.read_page(page)
        with open_repository() as github:
            address = comments.write(github, number_of(github, head), text, head)
    typer.echo(f"Wrote {address}.")


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


def _page(found: dict[str, Any]) -> str:
    """Say what differs, without a password and without a row."""
    difference = comments.harmless(str(found["difference"]))
    return (
        f"At revision `{found['revision']}` the database differs in"
        f" {found['difference_count']} facts that only the history has (-) or only the database"
        f" has (+).\n\n```diff\n{difference}\n```\n\n{found['remedy']}\n"
    )
