"""The lint as a process of its own, beside the other proofs: a URL in, an outcome out."""

import sys
import time
from pathlib import Path

from sqlalchemy import URL, make_url

from ..beside import write
from ..database import connect
from ..proof import Failure, Outcome, counted
from ..repository import ROOT, scripts
from ..statements import record
from . import agreement, findings, safety, style
from .clean import Clean


def check(empty: URL) -> Outcome:
    """Prove on an empty database that what runs is what `--sql` shows, and lint it."""
    directory = scripts()
    try:
        with connect(empty) as connection:
            recorded = record(connection, directory)
    except Exception as error:  # noqa: BLE001  # a revision may raise whatever it likes
        message = f"The history does not run up and down: {type(error).__name__}."
        return Outcome("no statement", [Failure(message, "See the round trip.")])
    files = sorted((ROOT / "migrations").rglob("*.sql"))
    clean = Clean()
    found = [
        *agreement.check(directory, recorded),
        *safety.check(recorded, clean),
        *style.check(recorded, files, clean),
    ]
    clean.save()
    revisions = {Path(direction.revision.path) for direction in recorded}
    number = sum(len(direction.statements) for direction in recorded)
    covered = f"{counted(number, 'statement')}, up and down; {counted(len(files), '.sql file')}"
    settled = findings.settle(found, [*sorted(revisions), *files])
    return Outcome(covered, [one.failure() for one in settled])


if __name__ == "__main__":
    start = time.perf_counter()
    write(check(make_url(sys.stdin.readline().strip())), time.perf_counter() - start)
