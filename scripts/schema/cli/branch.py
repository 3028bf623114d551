"""`schema branch`: make, show and delete Neon branches. No output but `url`'s has a password."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text
from sqlalchemy import URL
from tenacity import Retrying, retry_if_exception, stop_after_attempt

from migrations.postgres import url_from_environment
from schema.access.declared import declared_samples
from schema.branch import lifecycle, masking
from schema.branch.attempt import attempt
from schema.branch.branches import (
    PREFIX,
    Branch,
    Kind,
    all_branches,
    branch_name,
    find,
    kind_of,
    printable,
)
from schema.branch.database import database_url, is_password_refused, wait_until_reachable
from schema.branch.lifecycle import Made, Wanted
from schema.branch.neon import API, Neon, open_project
from schema.cli.adopt import adopt
from schema.cli.exits import exit_codes, print_result
from schema.cli.github_log import mask
from schema.cli.output import json_document, progress
from schema.errors import CannotRunError
from schema.github.api import open_repository
from schema.github.pull_requests import is_closed
from schema.postgres.logins import url_with_password
from schema.postgres.signals import terminable
from schema.project import scripts
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


def create(
    target: Target, parent: str | None, kind: Kind | None, days: int, output: str | None
) -> None:
    """Make the branch, or bring it to its parent's state, and wait until one can connect.

    `output` names an output of a GitHub job to which its URL is written, in hexadecimal.
    """
    with _command(target, kind) as (neon, show):
        if output is not None:
            _require_output()
        wanted = Wanted(target.full_name, parent, kind, days, target.database)
        made = lifecycle.create(neon, wanted, show)
        if target.pull_request is not None:
            # A pull request's code gets the URL, and a branch has its parent's password.
            lifecycle.renew_password(neon, made.branch, target.database, show)
            _require_open(neon, target, show)
        url, revision = _started(neon, made, target.database, show)
        if output is not None:
            _write_output(output, url)
    _print_made(made, revision)


def create_restore_point(parent: str | None, days: int, *, when_behind: bool) -> None:
    """Keep the parent's state as it is now, if there is something to deploy."""
    with _command() as (neon, show):
        if when_behind:
            database = url_from_environment()
            mask(database.password)
            if wait_until_reachable(database, show) == scripts().get_current_head():
                typer.echo("The database is at the head: there is nothing to go back from.")
                return
        made = lifecycle.create_restore_point(neon, parent, days, show)
    point, of = made.branch, made.parent
    typer.echo(
        f"Restore point {point.name} keeps branch {of.name} as it was at"
        f" {point.lsn or 'that moment'}, until {_time(point)}. To go back to it:\n\n"
        f"curl -X POST {API}/projects/{neon.project}/branches/{of.id}/restore \\\n"
        '  -H "Authorization: Bearer $NEON_API_KEY" -H "Content-Type: application/json" \\\n'
        f'  -d \'{{"source_branch_id": "{point.id}", "preserve_under_name": "before-going-back"}}\''
    )


def reset(target: Target, parent: str | None, days: int) -> None:
    """Bring the branch back to its parent's state."""
    with _command(target) as (neon, show):
        wanted = Wanted(target.full_name, parent, None, days, target.database)
        made = lifecycle.reset(neon, wanted, show)
        _, revision = _started(neon, made, target.database, show)
    _print_made(made, revision)


def url(target: Target) -> None:
    """Print the URL of the branch's database, with the password."""
    with _command() as (neon, _show):
        branch = find(neon, target.full_name)
        if branch is None:
            raise CannotRunError(
                f"There is no branch {target.full_name}; make it: schema branch create"
                f" {target.full_name}."
            )
        if kind_of(neon, branch) == "anonymised":
            masking.require_masked(neon, branch.id)
        found = database_url(neon, branch, target.database)
        mask(found.password)
    typer.echo(url_with_password(found))


def show_all(*, as_json: bool) -> None:
    """List our branches."""
    with _command(error_document=_error if as_json else None) as (neon, show):
        show("branches")
        branches = all_branches(neon)
    names = {one.id: one.name for one in branches}
    ours = [one for one in branches if one.name.startswith(PREFIX)]
    print_result(_document(ours, names) if as_json else _page(ours, names), ok=True)


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
        branches = [one for one in all_branches(neon) if one.pull_request is not None]
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


def kind_from(*, copy: bool, schema_only: bool, anonymised: bool) -> Kind | None:
    """Return the kind that the options ask for; None if they ask for none."""
    if copy + schema_only + anonymised > 1:
        raise typer.BadParameter("--copy, --schema-only and --anonymised contradict each other.")
    kinds: dict[Kind, bool] = {
        "copy": copy,
        "schema-only": schema_only,
        "anonymised": anonymised,
    }
    return next((kind for kind, asked in kinds.items() if asked), None)


@contextmanager
def _command(
    target: Target | None = None,
    kind: Kind | None = None,
    error_document: Callable[[str], str] | None = None,
) -> Iterator[tuple[Neon, Show]]:
    """Open the project for a command; the key is masked before anything is printed.

    A signal unwinds the program; the message then says which branch may be left.
    """
    mask(os.environ.get("NEON_API_KEY"))
    with exit_codes(error_document), terminable(), progress() as show, open_project() as neon:
        show("Neon")
        try:
            yield neon, show
        except KeyboardInterrupt:
            if target is not None:
                name = target.full_name
                what = f" with --{kind}" if kind else ", and say what it was"
                typer.echo(
                    f"schema: interrupted; branch {name} may be left half made, or be gone: run"
                    f" this again{what}, or schema branch delete {name}.",
                    err=True,
                )
            raise


def _started(neon: Neon, made: Made, database: str | None, show: Show) -> tuple[URL, str]:
    """Wait for the compute, fill a schema-only branch; return the database's URL and revision."""
    found, revision = _reached(neon, made.branch, database, show)
    if made.kind == "schema-only":
        revision = _fill(neon, made, found, database, show)
    return found, revision


def _reached(neon: Neon, branch: Branch, database: str | None, show: Show) -> tuple[URL, str]:
    """Connect, and return the URL and the revision.

    Another run may renew the password meanwhile: then the URL is asked for again.
    """

    def reach() -> tuple[URL, str]:
        found = database_url(neon, branch, database)
        mask(found.password)
        return found, wait_until_reachable(found, show)

    attempts = Retrying(
        retry=retry_if_exception(is_password_refused),
        stop=stop_after_attempt(5),
        reraise=True,
    )
    return attempts(reach)


def _fill(neon: Neon, made: Made, target: URL, database: str | None, show: Show) -> str:
    """Stamp the parent's revision, whose row was not copied, make rows, return the revision.

    The schema alone does not say it: a revision may change rows only.
    """
    of = database_url(neon, made.parent, database)
    mask(of.password)
    recorded = wait_until_reachable(of, show)
    left = f"Branch {made.branch.name} is left, without rows."
    if not recorded:
        raise CannotRunError(f"Its parent {made.parent.name} records no revision. {left}")
    result = adopt(target, show, recorded)
    if not result.found.equals:
        raise CannotRunError(
            f"Its parent {made.parent.name} records {recorded}, but has another schema; compare"
            f" them: schema drift. {left}"
        )
    show("rows")
    fill_database(target, declared_samples())
    return recorded


def _require_open(neon: Neon, target: Target, show: Show) -> None:
    """Delete the branch again if its pull request was closed while it was made."""
    if not os.environ.get("GITHUB_TOKEN"):
        return
    with open_repository() as github:
        if is_closed(github, target.pull_request or 0):
            lifecycle.delete(neon, target.full_name, show)
            raise CannotRunError(
                f"Pull request {target.pull_request} is closed: its branch was deleted."
            )


def _require_output() -> None:
    path = os.environ.get("GITHUB_OUTPUT")
    if not path:
        raise CannotRunError("GITHUB_OUTPUT is not set: --github-output is for a job on GitHub.")
    try:
        Path(path).open("a", encoding="utf-8").close()
    except OSError as error:
        raise CannotRunError(f"GITHUB_OUTPUT cannot be written ({error.strerror}).") from error


def _write_output(name: str, url: URL) -> None:
    """Write the URL to GITHUB_OUTPUT: GitHub drops an output that contains a masked secret."""
    path = os.environ["GITHUB_OUTPUT"]
    text = url_with_password(url).encode().hex()
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{name}={text}\n")


def _print_made(made: Made, revision: str) -> None:
    what = {
        "copy": f"a copy of {made.parent.name}",
        "schema-only": f"the schema of {made.parent.name} with made rows",
        "anonymised": f"a copy of {made.parent.name} with masked columns",
    }[made.kind]
    at = f"at revision {revision}" if revision else "without a revision"
    typer.echo(f"Branch {made.branch.name}, {what}, {at}, until {_time(made.branch)}.")


def _time(branch: Branch) -> str:
    return f"{branch.expires_at:%Y-%m-%d %H:%M} UTC" if branch.expires_at else "it is deleted"


def _document(branches: Sequence[Branch], names: Mapping[str, str]) -> str:
    """Format the branches as JSON; README.md describes the fields."""
    return json_document(
        _FIELDS,
        branches=[
            {
                "name": one.name,
                "id": one.id,
                "kind": one.kind,
                "parent": names.get(one.parent),
                "pull_request": one.pull_request,
                "created_at": one.created_at.isoformat(),
                "expires_at": one.expires_at.isoformat() if one.expires_at else None,
                "state": one.state,
            }
            for one in branches
        ],
    )


def _error(message: str) -> str:
    return json_document(_FIELDS, error=message, branches=[])


def _page(branches: Sequence[Branch], names: Mapping[str, str]) -> Group:
    if not branches:
        return Group(Text(f"There is no branch whose name begins with {PREFIX}."))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("branch", no_wrap=True)
    for heading in ("kind", "parent", "until", "state"):
        table.add_column(heading, overflow="fold")
    for one in branches:
        until = f"{one.expires_at:%Y-%m-%d}" if one.expires_at else "no expiry"
        cells = (one.name, one.kind, names.get(one.parent, "-"), until, one.state)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return Group(table)
