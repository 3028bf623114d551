"""`schema branch`: make, show and delete Neon branches. No output but `url`'s has a password."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text
from sqlalchemy import URL

from schema.access.declared import declared_samples
from schema.branch import lifecycle
from schema.branch.attempt import attempt
from schema.branch.branches import Branch, Kind, branch_name, find, our_branches
from schema.branch.database import database_url, wait_until_reachable
from schema.branch.lifecycle import Wanted
from schema.branch.neon import Neon, open_project
from schema.cli.adopt import adopt
from schema.cli.exits import exit_codes, print_result
from schema.cli.github_log import mask
from schema.cli.output import json_document, progress
from schema.errors import CannotRunError
from schema.github.api import open_repository
from schema.github.pull_requests import is_closed
from schema.postgres.logins import url_with_password
from schema.rows.generator import fill_database
from schema.text import pluralize

_FIELDS = ("error", "branches")

type Show = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """The branch that the arguments name."""

    name: str | None
    pull_request: int | None
    database: str | None = None

    @property
    def full_name(self) -> str:
        """The whole name; CannotRunError if it cannot be one."""
        return branch_name(self.name, self.pull_request)


def create(target: Target, parent: str | None, kind: Kind, days: int, output: str | None) -> None:
    """Make the branch, or bring it to its parent's state, and wait until one can connect.

    `output` names an output of a GitHub job to which its URL is written, in hexadecimal.
    """
    with _command() as (neon, show):
        branch = lifecycle.create(neon, Wanted(target.full_name, parent, kind, days), show)
        url, revision = _started(neon, branch, kind, target.database, show)
        if output is not None:
            _write_output(output, url)
    _print_made(branch, kind, revision)


def create_restore_point(parent: str | None, days: int) -> None:
    """Keep the parent's state as it is now."""
    with _command() as (neon, show):
        branch = lifecycle.create_restore_point(neon, parent, days, show)
    typer.echo(
        f"Restore point {branch.name} ({branch.id}) keeps branch {branch.parent} as it was at"
        f" {branch.lsn or 'that moment'}, until {_time(branch)}. How to go back: README.md,"
        " Neon branches."
    )


def reset(target: Target, parent: str | None, days: int) -> None:
    """Bring the branch back to its parent's state."""
    with _command() as (neon, show):
        branch, kind = lifecycle.reset(neon, target.full_name, parent, days, show)
        _, revision = _started(neon, branch, kind, target.database, show)
    _print_made(branch, kind, revision)


def url(target: Target) -> None:
    """Print the URL of the branch's database, with the password."""
    with _command() as (neon, _show):
        branch = find(neon, target.full_name)
        if branch is None:
            raise CannotRunError(
                f"There is no branch {target.full_name}; make it: schema branch create."
            )
        found = database_url(neon, branch, target.database)
        mask(found.password)
    typer.echo(url_with_password(found))


def show_all(*, as_json: bool) -> None:
    """List our branches."""
    with _command(_error if as_json else None) as (neon, show):
        show("branches")
        branches = our_branches(neon)
    print_result(_document(branches) if as_json else _page(branches), ok=True)


def delete(target: Target) -> None:
    """Delete the branch, if there is one."""
    with _command() as (neon, show):
        there = lifecycle.delete(neon, target.full_name, show)
    name = target.full_name
    typer.echo(f"Branch {name} is deleted." if there else f"There is no branch {name}.")


def prune() -> None:
    """Delete the branches of closed pull requests; go on after one that cannot be."""
    failed = 0
    with _command() as (neon, show), open_repository() as github:
        branches = [one for one in our_branches(neon) if one.pull_request is not None]
        for branch in branches:
            show(branch.name)
            try:
                if not is_closed(github, branch.pull_request or 0):
                    typer.echo(f"{branch.name}: its pull request is open.")
                    continue
                lifecycle.delete(neon, branch.name, show)
                typer.echo(f"{branch.name}: deleted, its pull request is closed.")
            except CannotRunError as error:
                failed += 1
                typer.echo(f"{branch.name}: stays. {error}", err=True)
        if not branches:
            typer.echo("There is no branch of a pull request.")
    if failed:
        raise typer.Exit(2)


def try_project(parent: str | None, database: str | None) -> None:
    """Run the life of a throwaway branch, and print what differs from what is assumed."""
    with _command() as (neon, show):
        found = list(attempt(neon, parent, database, show, mask))
    different = [one for one in found if not one.true]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("", "what is assumed", "expected", "found"):
        table.add_column(heading)
    for one in found:
        mark = Text("✓", "green") if one.true else Text("✗", "bold red")
        table.add_row(mark, one.what, one.expected, one.found)
    verdict = (
        f"{len(different)} of {pluralize(len(found), 'assumption')} about Neon differ here."
        if different
        else f"All {pluralize(len(found), 'assumption')} about Neon are true here."
    )
    print_result(Group(table, Text(), Text(verdict, "bold")), ok=not different)


def kind_from(*, schema_only: bool, anonymised: bool) -> Kind:
    """Return the kind that the options ask for."""
    if schema_only and anonymised:
        raise typer.BadParameter("--schema-only and --anonymised contradict each other.")
    return "schema-only" if schema_only else "anonymised" if anonymised else "copy"


@contextmanager
def _command(error_document: Callable[[str], str] | None = None) -> Iterator[tuple[Neon, Show]]:
    """Open the project for a command; the key is masked before anything is printed."""
    mask(os.environ.get("NEON_API_KEY"))
    with exit_codes(error_document), progress() as show, open_project() as neon:
        yield neon, show


def _started(
    neon: Neon, branch: Branch, kind: Kind, database: str | None, show: Show
) -> tuple[URL, str]:
    """Wait for the compute, fill a schema-only branch; return the database's URL and revision."""
    found = database_url(neon, branch, database)
    mask(found.password)
    revision = wait_until_reachable(found, show)
    return found, _fill(found, branch, show) if kind == "schema-only" else revision


def _write_output(name: str, url: URL) -> None:
    """Write the URL to GITHUB_OUTPUT: GitHub drops an output that contains a masked secret."""
    path = os.environ.get("GITHUB_OUTPUT")
    if not path:
        raise CannotRunError("GITHUB_OUTPUT is not set: --github-output is for a job on GitHub.")
    text = url_with_password(url).encode().hex()
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{name}={text}\n")


def _fill(target: URL, branch: Branch, show: Show) -> str:
    """Stamp the revision, whose row was not copied, make rows, and return the revision."""
    found = adopt(target, show)
    if found.difference:
        raise CannotRunError(
            f"The schema of {branch.name} equals no revision (the nearest is {found.revision}), so"
            " no rows were made; compare its parent with the history: schema drift."
        )
    show("rows")
    fill_database(target, declared_samples())
    return found.revision


def _print_made(branch: Branch, kind: Kind, revision: str) -> None:
    what = {
        "copy": "a copy of its parent",
        "schema-only": "the parent's schema with made rows",
        "anonymised": "a copy of its parent with masked columns",
    }[kind]
    at = f"at revision {revision}" if revision else "without a revision"
    typer.echo(f"Branch {branch.name} ({branch.id}), {what}, {at}, until {_time(branch)}.")


def _time(branch: Branch) -> str:
    return f"{branch.expires_at:%Y-%m-%d %H:%M} UTC" if branch.expires_at else "it is deleted"


def _document(branches: Sequence[Branch]) -> str:
    """Format the branches as JSON; README.md describes the fields."""
    return json_document(
        _FIELDS,
        branches=[
            {
                "name": one.name,
                "id": one.id,
                "parent": one.parent or None,
                "pull_request": one.pull_request,
                "schema_only": one.schema_only,
                "created_at": one.created_at.isoformat(),
                "expires_at": one.expires_at.isoformat() if one.expires_at else None,
                "state": one.state,
            }
            for one in branches
        ],
    )


def _error(message: str) -> str:
    return json_document(_FIELDS, error=message, branches=[])


def _page(branches: Sequence[Branch]) -> Group:
    if not branches:
        return Group(Text("There is no branch of ours."))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("branch", "id", "parent", "made", "until", "state"):
        table.add_column(heading)
    for one in branches:
        table.add_row(
            one.name,
            one.id,
            one.parent or "-",
            f"{one.created_at:%Y-%m-%d %H:%M}",
            f"{one.expires_at:%Y-%m-%d %H:%M}" if one.expires_at else "no expiry",
            one.state,
        )
    return Group(table)
