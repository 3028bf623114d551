"""`schema doctor`: print the results as a page or as JSON."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from sqlalchemy import URL

from migrations.postgres import describe_url, visible
from schema.cli import database_url as urls
from schema.cli.exits import exit_codes, print_result
from schema.cli.output import json_document, progress
from schema.live import doctor as live_doctor
from schema.live.doctor import ready
from schema.live.environment import Check
from schema.project import scripts
from schema.text import pluralize

_FIELDS = ("ready", "error", "database", "checks")


def run(database_url: str | None, *, as_json: bool) -> None:
    """Examine the database and print what to fix."""
    with exit_codes(error_document if as_json else None), progress() as show:
        target = urls.target(database_url)
        show("the database")
        directory = scripts()
        examined = live_doctor.examine(target, directory)
        checks = [*examined.checks, *live_doctor.compared(examined, directory, show)]
    print_result(document(target, checks) if as_json else page(target, checks), ok=ready(checks))


def document(target: URL, checks: Sequence[Check]) -> str:
    """Format the checks as JSON; README.md describes the fields."""
    rows = [
        {
            "name": check.name,
            "ready": check.ready,
            "found": check.found,
            "fix": list(check.fix),
            "notes": list(check.notes),
        }
        for check in checks
    ]
    return json_document(_FIELDS, ready=ready(checks), database=describe_url(target), checks=rows)


def error_document(message: str) -> str:
    """Format an error as JSON."""
    return json_document(_FIELDS, error=message, checks=[])


def page(target: URL, checks: Sequence[Check]) -> Group:
    """Format the checks as a table, the problems and notes, and a verdict."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("", "check", "found"):
        table.add_column(heading)
    lines: list[RenderableType] = []
    for check in checks:
        mark = Text("✓ fine", "green")
        if check.notes:
            mark = Text("! note", "yellow")
        if check.fix:
            mark = Text("✗ fix", "bold red")
        table.add_row(mark, check.name, Text(visible(check.found)))
        lines += [Text(visible(f"✗ {check.name}: {one}"), "bold red") for one in check.fix]
        lines += [Text(visible(f"! {check.name}: {one}"), "yellow") for one in check.notes]
    number = sum(len(check.fix) for check in checks)
    verdict = Text("Ready for a deploy.", "bold green")
    if number:
        verdict = Text(f"{pluralize(number, 'thing')} to fix before a deploy.", "bold red")
    title = Text(describe_url(target), "bold")
    between = [Text()] if lines else []
    return Group(title, Text(), table, *between, *lines, Text(), verdict)
