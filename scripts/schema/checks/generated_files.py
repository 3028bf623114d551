"""The generated files are up to date with the migrations."""

from collections.abc import Sequence

from sqlalchemy import URL

from schema.access.probe import Access
from schema.checks.result import CheckResult, Failure
from schema.generate import files
from schema.revisions.schemas import Schemas

REMEDY = "Run `schema snapshot`, read what it changes (git diff), and commit it."


def check(head: URL, history: Schemas, accesses: Sequence[Access]) -> CheckResult:
    """Compare each committed file with its newly rendered text."""
    failures = []
    rendered = files.render(head, history, accesses)
    for path, text in rendered.items():
        name, before = files.name(path), files.read(path)
        if not before:
            failures.append(Failure(f"{name} is missing.", REMEDY))
        elif before != text:
            message = f"{name} (-) is not what the migrations build (+)."
            failures.append(Failure(message, REMEDY, files.difference(path, before, text)))
    return CheckResult(", ".join(path.name for path in rendered), failures)
