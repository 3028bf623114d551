"""`schema drift`: print the result as a page or as JSON."""

from rich.console import Group, RenderableType
from rich.text import Text

from schema.cli import database_url as urls
from schema.cli.exits import exit_codes, print_result
from schema.cli.output import coloured, json_document, progress
from schema.live import comparison, history_schemas
from schema.live import drift as live_drift
from schema.live.drift import Drift
from schema.project import scripts
from schema.text import pluralize

_FIELDS = (
    "drift",
    "error",
    "server",
    "compared_on",
    "revision",
    "revision_read",
    "head",
    "behind",
    "limitations",
    "equals",
    "nearest",
    "unverified",
    "difference_count",
    "difference",
    "remedy",
)


def run(database_url: str | None, *, as_json: bool) -> None:
    """Compare the database with the history and print the difference."""
    with exit_codes(error_document if as_json else None), progress() as show:
        directory = scripts()
        show("the database")
        live = live_drift.read_database(urls.target(database_url), directory)
        with history_schemas.open_closest_server(live, show) as server:
            found = live_drift.compare(live, server, history_schemas.build(server, directory))
    print_result(document(found) if as_json else page(found), ok=not found.found.drifted)


def document(drift: Drift) -> str:
    """Format the comparison as JSON; README.md describes the fields."""
    found = drift.found
    return json_document(
        _FIELDS,
        drift=found.drifted,
        server=drift.live.server,
        compared_on=drift.compared_on,
        revision=found.revision or found.nearest,
        revision_read=found.revision is not None,
        head=found.head,
        behind=found.behind,
        limitations=drift.limitations,
        equals=found.equals,
        nearest=found.nearest,
        unverified=found.unverified,
        difference_count=found.difference_count,
        difference=found.difference,
        remedy=comparison.remedy(found),
    )


def error_document(message: str) -> str:
    """Format an error as JSON."""
    return json_document(_FIELDS, error=message, limitations=[], unverified=[])


def page(drift: Drift) -> Group:
    """Format the comparison as text."""
    found = drift.found
    at = "at" if found.revision else "nearest to"
    where = f"PostgreSQL {drift.live.server}, {at} {found.revision or found.nearest}"
    lines: list[RenderableType] = []
    if found.record_differs:
        lines.append(Text(f"✗ {comparison.sentence(found)}.", "bold red"))
    lines.append(
        Text(f"{where}; {history_schemas.describe_distance(found.head, found.behind)}.", "bold")
    )
    lines += [Text(f"! {sentence}", "yellow") for sentence in drift.limitations]
    if not found.drifted:
        facts = pluralize(len(drift.live.facts), "fact")
        verdict = f"✓ No drift: {facts}, as the history builds them on PostgreSQL"
        return Group(*lines, Text(f"{verdict} {drift.compared_on}.", "bold green"))
    if found.difference:
        facts = pluralize(found.difference_count, "fact")
        history = f"the history at {found.nearest}" if found.record_differs else "the history"
        verdict = f"✗ Drift: {facts} only in {history} (-) or only in the database (+)."
        lines += [Text(verdict, "bold red"), *coloured(found.difference)]
    return Group(*lines, Text(f"  → {comparison.remedy(found)}"))
