"""The lint as a process of its own, beside the other proofs: a URL in, an outcome out."""

import sys
import time
from pathlib import Path

from schema.text import pluralize
from sqlalchemy import URL, make_url

from schema.checks.result import CheckResult, Failure
from schema.checks.subprocess import write_result
from schema.postgres.connection import connect
from schema.project import ROOT, scripts
from schema.sql_lint import findings, offline_sql, sqlfluff, squawk
from schema.sql_lint.cache import CleanTexts
from schema.sql_lint.capture import record


def check(empty: URL) -> CheckResult:
    """Prove on an empty database that what runs is what `--sql` shows, and lint it."""
    directory = scripts()
    try:
        with connect(empty) as connection:
            recorded = record(connection, directory)
    except Exception as error:  # noqa: BLE001  # a revision may raise whatever it likes
        message = f"The history does not run up and down: {type(error).__name__}."
        return CheckResult("no statement", [Failure(message, "See the round trip.")])
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
    settled = findings.apply_allowances(found, [*sorted(revisions), *files])
    return CheckResult(covered, [one.failure() for one in settled])


if __name__ == "__main__":
    start = time.perf_counter()
    write_result(check(make_url(sys.stdin.readline().strip())), time.perf_counter() - start)
