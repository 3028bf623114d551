"""What a pull request may do: budgets, and the findings that a revision accepts.

The budgets stand in `pyproject.toml`, as the base branch has it: a pull request cannot loosen its
own.

    [tool.schema.review]
    big = 1_000        # rows from which on work on a table counts
    rows = 10_000      # rows of a table that one transaction may write
    bytes = 1_000_000_000  # how much a table may grow
    rewrites = 0       # how often a revision may rewrite a big table
    scans = 0          # how often it may read one from end to end while others wait

    [tool.schema.review.tables.todo]
    rows = 0           # a table may only tighten them

A revision tightens them by `budget = {"rows": 0}`, and accepts a finding by its name and a reason:
`accepts = {"scan todo": "why that is right"}`.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from alembic.script import Script

from schema.errors import CannotRunError
from schema.review.declarations import declared
from schema.review.result import Finding


@dataclass(frozen=True)
class Budget:
    """Limits of one revision on one table."""

    big: int = 1_000
    rows: int = 10_000
    bytes: int = 1_000_000_000
    rewrites: int = 0
    scans: int = 0

    def tightened(self, limits: Mapping[str, int]) -> "Budget":
        """Return the budget with each of these limits that is lower."""
        lower = {name: min(limit, getattr(self, name)) for name, limit in limits.items()}
        return replace(self, **lower)


@dataclass(frozen=True)
class Policy:
    """The budgets of a project."""

    budget: Budget = field(default_factory=Budget)
    tables: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def of(self, table: str, revision: Script | None = None) -> Budget:
        """Return the budget of a table, tightened by the revision."""
        found = self.budget.tightened(self.tables.get(table, {}))
        own = getattr(revision.module, "budget", {}) if revision else {}
        return found.tightened(_limits(own, f"`budget` of {_name(revision)}"))


_NAMES = frozenset(one.name for one in fields(Budget))


def read_policy(pyproject: str) -> Policy:
    """Read the budgets from the text of pyproject.toml.

    Raises:
        CannotRunError: it cannot be read, or names a limit that there is not.

    """
    where = "[tool.schema.review] in pyproject.toml"
    try:
        found = tomllib.loads(pyproject).get("tool", {}).get("schema", {}).get("review", {})
    except tomllib.TOMLDecodeError as error:
        raise CannotRunError(f"pyproject.toml cannot be read: {error}.") from error
    tables = found.pop("tables", {})
    return Policy(
        replace(Budget(), **_limits(found, where)),
        {name: _limits(limits, f"{where}, table {name},") for name, limits in tables.items()},
    )


def _limits(found: object, where: str) -> dict[str, int]:
    """Check that these are limits.

    Raises:
        CannotRunError: they are not.

    """
    named = isinstance(found, dict) and found.keys() <= _NAMES
    if isinstance(found, dict) and named and all(_is_limit(one) for one in found.values()):
        return found
    raise CannotRunError(
        f"{where} must give whole numbers for some of {', '.join(sorted(_NAMES))}, and nothing"
        " else."
    )


def name_of(finding: Finding) -> str:
    """Return the name by which a revision accepts a finding."""
    return f"{finding.kind} {finding.object}"


def _is_limit(value: object) -> bool:
    return type(value) is int and value >= 0


def accept(findings: Iterable[Finding], revisions: Iterable[Script]) -> Iterator[Finding]:
    """Mark what the revisions accept; add a finding for what accepts nothing, or without reason.

    Raises:
        CannotRunError: a revision's `accepts` cannot be read.

    """
    accepted = {one.revision: declared(one, "accepts") for one in revisions}
    # What was tried for all revisions together, any one of them may accept.
    together = {name: reason for names in accepted.values() for name, reason in names.items()}
    used: set[tuple[str, str]] = set()
    for finding in findings:
        name = name_of(finding)
        of = accepted.get(finding.revision, {}) if finding.revision else together
        reason = of.get(name, "").strip()
        if reason:
            used |= {(one, name) for one in accepted if finding.revision in {"", one}}
            yield replace(finding, accepted=reason, blocking=False)
        else:
            yield finding
    for revision, names in accepted.items():
        for name, reason in names.items():
            if (revision, name) not in used:
                why = (
                    "but there is no such finding"
                    if reason.strip()
                    else "but gives no reason for it"
                )
                yield Finding(
                    "acceptance",
                    name,
                    revision,
                    f"The revision accepts “{name}”, {why}.",
                    "Remove it from `accepts`." if reason.strip() else "Say why that is right.",
                )


def _name(revision: Script | None) -> str:
    return Path(revision.path).name if revision else ""
