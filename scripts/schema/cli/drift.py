"""`schema drift`: print the result as a page or as JSON."""

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from migrations.postgres import visible
from schema.cli import database_url as urls
from schema.cli.exits import exit_codes, print_result
from schema.cli.output import coloured, json_document, progress
from schema.live import comparison, history_schemas
from schema.live import drift as live_drift
from schema.live.difference import Difference, Severity
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
    "differences",
    "difference_count",
    "difference",
    "notes",
    "foreign",
    "remedy",
    "sql",
)

_COLOURS = {Severity.ISOLATION: "bold red", Severity.DATA: "red", Severity.BEHAVIOUR: "yellow"}


def run(database_url: str | None, *, as_json: bool) -> None:
    """Compare the database with the history and print the difference."""
    with exit_codes(error_document if as_json else None), progress() as show:
        show("the database")
        found = live_drift.examine(urls.target(database_url), scripts(), show)
    print_result(document(found) if as_json else page(found), ok=not found.drifted)


def document(drift: Drift) -> str:
    """Format the comparison as JSON; README.md describes the fields."""
    found = drift.found
    return json_document(
        _FIELDS,
        drift=drift.drifted,
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
        differences=[as_fields(one) for one in drift.differences],
        difference_count=len(drift.differences),
        difference=drift.text,
        notes=[as_fields(one) for one in drift.notes],
        foreign=drift.foreign,
        remedy=comparison.remedy(found),
        sql=_script(drift),
    )


def error_document(message: str) -> str:
    """Format an error as JSON."""
    return json_document(
        _FIELDS, error=message, limitations=[], unverified=[], differences=[], notes=[], foreign=[]
    )


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
    if not drift.drifted:
        verdict = "✓ No drift: what the history owns is as the history builds it."
        return Group(*lines, Text(verdict, "bold green"), *_notes(drift))
    if drift.differences:
        number = pluralize(len(drift.differences), "difference")
        lines.append(Text(f"✗ Drift: {number} from the history at {found.nearest}.", "bold red"))
        lines += listed(drift.differences)
    lines += coloured(drift.text)
    if remedy := comparison.remedy(found):
        lines.append(Text(f"  → {remedy}"))
    return Group(*lines, *repair(_script(drift)), *_untried(drift), *_notes(drift))


def listed(differences: Iterable[Difference]) -> Iterator[Text]:
    """Format differences, one a line, with what each endangers."""
    for one in differences:
        why = f" (to undo it: {one.obstacle})" if one.obstacle else ""
        line = visible(f"  {one.severity:9}  {one.sentence}{why}")
        yield Text(line, _COLOURS.get(one.severity, ""))


def repair(script: str | None) -> Iterator[Text]:
    """Format SQL to paste."""
    if script and visible(script) != script:
        yield Text("  → Names hold control characters: take the SQL that undoes it from --json.")
    elif script:
        yield Text(
            "  → SQL that undoes what it can, tried on a copy without rows. It drops nothing that"
            " holds rows; if rows stand in its way, it fails and changes nothing:"
        )
        yield from (Text(f"    {line}") for line in script.splitlines())


def as_fields(difference: Difference) -> dict[str, object]:
    """Return the fields of a difference in JSON."""
    return {
        "object": difference.object,
        "part": difference.part,
        "was": difference.was,
        "is": difference.found,
        "severity": difference.severity,
        "sentence": difference.sentence,
        "sql": difference.sql,
        "obstacle": difference.obstacle,
    }


def _notes(drift: Drift) -> Iterator[Text]:
    for one in drift.notes:
        yield Text(visible(f"! {one.sentence}."), "yellow")
    if drift.foreign:
        yield Text(visible(f"! No revision has: {', '.join(drift.foreign)}."), "yellow")


def _script(drift: Drift) -> str | None:
    return drift.script or comparison.stamp_sql(drift.found)


def _untried(drift: Drift) -> Iterator[Text]:
    """Format the SQL about logins and the platform: a copy has neither."""
    mine = [
        visible(one.sql) for one in drift.differences if one.sql and one.sql not in drift.script
    ]
    if mine:
        yield Text("  → SQL for what is beside the schema, not tried:")
        yield from (
            Text(f"    {line}") for sql in mine for line in f"{sql.rstrip(';')};".split("\n")
        )
