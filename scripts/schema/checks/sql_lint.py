"""The executed SQL equals the output of `--sql`, and the linters find nothing in it.

It runs in its own process, which reads a URL and writes a result.
"""

import sys
import time
from pathlib import Path

from sqlalchemy import URL, make_url

from schema.checks.check_process import write_result
from schema.checks.result import CheckResult, Failure
from schema.postgres.connection import connect
from schema.project import ROOT, scripts
from schema.revisions.history import functions, parse
from schema.sql_lint import findings, offline_sql, sqlfluff, squawk
from schema.sql_lint.cache import CleanTexts
from schema.sql_lint.capture import record
from schema.sql_lint.findings import Finding
from schema.text import pluralize


def check(empty: URL) -> CheckResult:
    """Upgrade and downgrade an empty database, and lint the executed SQL."""
    directory = scripts()
    try:
        with connect(empty) as connection:
            recorded = record(connection, directory)
    except Exception as error:  # noqa: BLE001  # a revision may raise whatever it likes
        message = f"The upgrade or downgrade of the history fails: {type(error).__name__}."
        return CheckResult("no statement", [Failure(message, "See the failure of the round trip.")])
    files = sorted((ROOT / "migrations").rglob("*.sql"))
    clean = CleanTexts()
    found = [
        *offline_sql.check(directory, recorded),
        *squawk.check(recorded, clean),
        *sqlfluff.check(recorded, files, clean),
    ]
    clean.save()
    revisions = {Path(direction.revision.path) for direction in recorded}
    number = sum(len(direction.statements) for direction in recorded)
    covered = f"{pluralize(number, 'statement')}, up and down; {pluralize(len(files), '.sql file')}"
    reverted = {Path(one.revision.path) for one in recorded if not one.upgrade}
    untried = {path.name: _downgrade(path) for path in revisions - reverted}
    remaining = [
        one
        for one in findings.apply_allowances(found, [*sorted(revisions), *files])
        if not (one.rule == "unused" and one.line in untried.get(one.file, ()))
    ]
    return CheckResult(covered, [_failure(one) for one in remaining])


def _downgrade(path: Path) -> range:
    """Return the lines of a downgrade: below an irreversible revision none is executed."""
    function = functions(parse(path)).get("downgrade")
    return range(function.lineno, (function.end_lineno or 0) + 1) if function else range(0)


def _failure(finding: Finding) -> Failure:
    message = f"{finding.file}:{finding.line}: {finding.rule}: {finding.message}"
    remedy = f"Fix it, or accept it with a comment above: # lint: allow {finding.rule}: <reason>."
    return Failure(message, remedy, finding.sql)


if __name__ == "__main__":
    start = time.perf_counter()
    write_result(check(make_url(sys.stdin.readline().strip())), time.perf_counter() - start)
