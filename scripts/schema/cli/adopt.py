"""`schema adopt`: print the result as a page or as JSON."""

from collections.abc import Callable

from rich.console import Group
from rich.text import Text
from sqlalchemy import URL

from schema.cli import database_url as urls
from schema.cli.exits import exit_codes, print_result
from schema.cli.output import coloured, json_document, progress
from schema.errors import CannotRunError
from schema.live import adopt as live_adopt
from schema.live import history_schemas
from schema.live.adopt import REMEDY, Match
from schema.project import scripts
from schema.text import pluralize

_FIELDS = (
    "adopted",
    "error",
    "server",
    "compared_on",
    "revision",
    "head",
    "behind",
    "unverified",
    "difference_count",
    "difference",
    "remedy",
)


def run(database_url: str | None, *, as_json: bool) -> None:
    """Find the revision that the database equals, and stamp it."""
    with exit_codes(error_document if as_json else None), progress() as show:
        found = adopt(urls.target(database_url), show)
    print_result(document(found) if as_json else page(found), ok=not found.difference)


def adopt(target: URL, show: Callable[[str], None], recorded: str | None = None) -> Match:
    """Find the revision that the database equals, and stamp it if there is one.

    `recorded` is the only revision that it may be, where that is known from elsewhere.
    """
    directory = scripts()
    history_schemas.require_linear_history(directory)
    show("the database")
    live = live_adopt.read_database(target)
    with history_schemas.open_closest_server(live, show) as server:
        history = history_schemas.build(server, directory)
        if recorded is not None and recorded not in history:
            raise CannotRunError(f"This checkout has no revision {recorded}; check out another.")
        known = history if recorded is None else {recorded: history[recorded]}
        found = live_adopt.match(live, known, server)
    if not found.difference:
        show("stamp")
        live_adopt.stamp(target, directory, found.revision, history[found.revision], show)
    return found


def document(found: Match) -> str:
    """Format the result as JSON; README.md describes the fields."""
    return json_document(
        _FIELDS,
        adopted=not found.difference,
        server=found.server,
        compared_on=found.compared_on,
        revision=found.revision,
        head=found.head,
        behind=found.behind,
        unverified=found.unverified,
        difference_count=found.difference_count,
        difference=found.difference,
        remedy=REMEDY.format(revision=found.revision) if found.difference else None,
    )


def error_document(message: str) -> str:
    """Format an error as JSON."""
    return json_document(_FIELDS, error=message, unverified=[])


def page(found: Match) -> Group:
    """Format the result as text."""
    distance = history_schemas.describe_distance(found.head, found.behind)
    if found.difference:
        facts = pluralize(found.difference_count, "fact")
        return Group(
            Text(f"PostgreSQL {found.server}, without a revision.", "bold"),
            Text(f"✗ It equals no revision. The nearest is {found.revision} ({distance}):", "red"),
            Text(f"  {facts} only in the history (-) or only in the database (+)."),
            *coloured(found.difference),
            Text(f"  → {REMEDY.format(revision=found.revision)}"),
        )
    applies = pluralize(found.behind, "revision") if found.behind else "nothing"
    lines = [
        Text(f"✓ Stamped {found.revision}: the schema equals it.", "bold green"),
        Text(f"  The next deploy applies {applies} ({distance})."),
    ]
    if found.unverified:
        revisions = ", ".join(found.unverified)
        warning = (
            f"! Could not be verified, because they change no schema object: {revisions}."
            " They are assumed to be applied."
        )
        lines.append(Text(warning, "yellow"))
    return Group(*lines)
