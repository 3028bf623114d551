"""`schema adopt`: print the result as a page or as JSON."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.text import Text
from sqlalchemy import URL

from migrations.postgres import visible
from schema.cli import database_url as urls
from schema.cli.drift import as_fields, listed, repair
from schema.cli.exits import exit_codes, print_result
from schema.cli.output import json_document, progress
from schema.errors import CannotRunError
from schema.live import adopt as live_adopt
from schema.live import history_schemas
from schema.live.adopt import Match
from schema.live.difference import Difference
from schema.project import scripts
from schema.text import pluralize

_FIELDS = (
    "adopted",
    "error",
    "server",
    "revision",
    "head",
    "behind",
    "unverified",
    "differences",
    "foreign",
    "remedy",
    "sql",
)


@dataclass(frozen=True)
class Adoption:
    """What was found, and what is in the way."""

    found: Match
    differences: Sequence[Difference] = ()
    remedy: str | None = None
    sql: str | None = None


def run(database_url: str | None, *, as_json: bool) -> None:
    """Find the revision that the database equals, and stamp it."""
    with exit_codes(error_document if as_json else None), progress() as show:
        result = adopt(urls.target(database_url), show)
    print_result(document(result) if as_json else page(result), ok=result.found.equals)


def adopt(target: URL, show: Callable[[str], None], recorded: str | None = None) -> Adoption:
    """Find the revision that the database equals, and stamp it if there is one.

    `recorded` is the only revision that it may be, where that is known from elsewhere.
    """
    directory = scripts()
    history = history_schemas.committed(directory)
    show("the database")
    live = live_adopt.read_database(target)
    if recorded is not None and recorded not in history:
        raise CannotRunError(f"This checkout has no revision {recorded}; check out another.")
    found = live_adopt.match(live, history, recorded)
    with (
        history_schemas.open_closest_server(live, show) as server,
        history_schemas.at_revision(server, directory, found.revision) as copy,
    ):
        if not found.equals:
            tried = live_adopt.differences(live, copy, history)
            remedy = live_adopt.remedy(tried, found.revision)
            return Adoption(found, tried.differences, remedy, tried.script or None)
        show("stamp")
        live_adopt.stamp(target, directory, found.revision, copy.schema, show)
    return Adoption(found)


def document(result: Adoption) -> str:
    """Format the result as JSON; README.md describes the fields."""
    found = result.found
    return json_document(
        _FIELDS,
        adopted=found.equals,
        server=found.server,
        revision=found.revision,
        head=found.head,
        behind=found.behind,
        unverified=found.unverified,
        differences=[as_fields(one) for one in result.differences],
        foreign=found.foreign,
        remedy=result.remedy,
        sql=result.sql,
    )


def error_document(message: str) -> str:
    """Format an error as JSON."""
    return json_document(_FIELDS, error=message, unverified=[], differences=[], foreign=[])


def page(result: Adoption) -> Group:
    """Format the result as text."""
    found = result.found
    distance = history_schemas.describe_distance(found.head, found.behind)
    others = [Text(visible(f"! No revision has: {', '.join(found.foreign)}."), "yellow")]
    if not found.equals:
        number = pluralize(len(result.differences), "difference")
        return Group(
            Text(f"PostgreSQL {found.server}, without a revision.", "bold"),
            Text(f"✗ It equals no revision. The nearest is {found.revision} ({distance}):", "red"),
            Text(f"  {number}:"),
            *listed(result.differences),
            Text(f"  → {result.remedy}"),
            *repair(result.sql),
            *(others if found.foreign else []),
        )
    applies = pluralize(found.behind, "revision") if found.behind else "nothing"
    lines = [
        Text(f"✓ Stamped {found.revision}: what the history owns equals it.", "bold green"),
        Text(f"  The next deploy applies {applies} ({distance})."),
    ]
    if found.unverified:
        revisions = ", ".join(found.unverified)
        warning = (
            f"! Could not be verified, because they change no schema object: {revisions}."
            " They are assumed to be applied."
        )
        lines.append(Text(warning, "yellow"))
    return Group(*lines, *(others if found.foreign else []))
