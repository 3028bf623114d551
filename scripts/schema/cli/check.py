"""`schema check`: print the results as a table or as JSON."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from schema import STARTED
from schema.checks.result import Check
from schema.checks.runner import run_checks
from schema.cli.exits import exit_codes, print_result
from schema.cli.output import coloured, json_document, progress
from schema.postgres.scratch import open_server
from schema.project import scripts
from schema.revisions.history import single_head
from schema.text import pluralize

_FIELDS = ("passed", "error", "head", "server", "seconds", "starting_seconds", "checks")


def run(database_url: str | None, postgres: str, *, lint: bool, as_json: bool, quiet: bool) -> None:
    """Run every check and print the report."""
    with (
        exit_codes(error_document if as_json else None),
        progress() as show,
        open_server(database_url, postgres, show) as server,
    ):
        ready = time.perf_counter()
        checks = list(run_checks(server, show, lint=lint))
    report = Report(
        checks,
        server=server.version,
        head=single_head(scripts()),
        seconds=time.perf_counter() - STARTED,
        starting_seconds=ready - STARTED,
    )
    if quiet and report.passed and not as_json:
        return
    shown = document(report) if as_json else page(report, only_failures=quiet)
    print_result(shown, ok=report.passed)


@dataclass(frozen=True)
class Report:
    """The results of one run of the checks."""

    checks: Sequence[Check]
    server: str
    """The server's version, such as 18.4."""
    head: str | None
    """The head revision, if there is exactly one."""
    seconds: float
    """From the start of the process."""
    starting_seconds: float
    """The part of `seconds` until the server was ready."""

    @property
    def passed(self) -> bool:
        """Whether every check ran and passed."""
        return all(check.passed for check in self.checks)


def document(report: Report) -> str:
    """Format the report as JSON; README.md describes the fields."""
    checks = [
        {
            "name": check.name,
            "passed": check.passed,
            "seconds": round(check.seconds, 3),
            "covered": check.result.covered if check.result else None,
            "failures": [vars(one) for one in check.result.failures] if check.result else [],
            "rows": [vars(one) for one in check.result.rows] if check.result else [],
        }
        for check in report.checks
    ]
    return json_document(
        _FIELDS,
        passed=report.passed,
        head=report.head,
        server=report.server,
        seconds=round(report.seconds, 3),
        starting_seconds=round(report.starting_seconds, 3),
        checks=checks,
    )


def error_document(message: str) -> str:
    """Format an error as JSON."""
    return json_document(_FIELDS, error=message, checks=[])


def page(report: Report, *, only_failures: bool = False) -> Group:
    """Format the report as a table, the failures and a verdict."""
    title = f"The schema at {report.head or 'no single head'}, on PostgreSQL {report.server}"
    table = () if only_failures else (Text(title, "bold"), Text(), _table(report.checks))
    return Group(*table, *_failures(report.checks), Text(), _verdict(report))


def _table(checks: Sequence[Check]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("", "check", "what it covered"):
        table.add_column(heading)
    table.add_column("time", justify="right")
    for check in checks:
        if check.result is None:
            table.add_row("-", check.name, Text("not tried: an earlier check failed", "dim"), "")
            continue
        mark = Text("✓ passes", "green") if check.passed else Text("✗ fails", "bold red")
        table.add_row(mark, check.name, check.result.covered, f"{check.seconds:.2f} s")
    return table


def _failures(checks: Sequence[Check]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for check in checks:
        for failure in check.result.failures if check.result else ():
            lines += [Text(), Text(f"✗ {check.name}: {failure.message}", style="bold red")]
            lines += coloured(failure.detail)
            lines.append(Text(f"  → {failure.remedy}"))
    return lines


def _verdict(report: Report) -> Text:
    number = pluralize(len(report.checks), "check")
    time = f"{report.seconds:.1f} s, of which {report.starting_seconds:.1f} s to start the server"
    if report.passed:
        return Text(f"All {number} pass ({time}).", style="bold green")
    failed = sum(check.passed is False for check in report.checks)
    untried = sum(check.passed is None for check in report.checks)
    rest = f", and {untried} did not run" if untried else ""
    return Text(f"{failed} of {number} failed{rest} ({time}).", style="bold red")
