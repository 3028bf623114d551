"""What static analysis says of the statements that ran, and whether the run agrees."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from alembic.script import Script

from schema.review.result import Lint, Statement, Step, is_blocking
from schema.sql_lint import capture, squawk
from schema.sql_lint.cache import CleanTexts
from schema.sql_lint.findings import Finding, apply_allowances, plain

type Blocked = frozenset[str]
"""The tables with rows for which others wait, at a statement's end."""


def _rewrites(statement: Statement, _blocked: Blocked) -> bool:
    return bool(statement.rewrites)


def _works_and_blocks(statement: Statement, blocked: Blocked) -> bool:
    return bool(statement.rewrites) or not blocked.isdisjoint(statement.scans)


def _blocks(statement: Statement, _blocked: Blocked) -> bool:
    return any(lock.rows and is_blocking(lock) for lock in statement.locks)


_EFFECTS: dict[str, Callable[[Statement, Blocked], bool]] = {
    "adding-field-with-default": _rewrites,
    "adding-foreign-key-constraint": _works_and_blocks,
    "adding-not-nullable-field": _works_and_blocks,
    "adding-serial-primary-key-field": _works_and_blocks,
    "changing-column-type": _rewrites,
    "constraint-missing-not-valid": _works_and_blocks,
    "disallowed-unique-constraint": _works_and_blocks,
    "require-concurrent-index-creation": _works_and_blocks,
    "require-concurrent-index-deletion": _blocks,
    "require-concurrent-partition-detach": _blocks,
    "require-concurrent-reindex": _works_and_blocks,
}
"""The effect that a rule of squawk warns of, where a run shows it."""


def of_steps(steps: Iterable[Step], revisions: Iterable[Script]) -> list[Lint]:
    """Lint what the upgrades executed; what a comment in the revision accepts is left out."""
    upgrades = {step.revision: step for step in steps if step.direction == "upgrade"}
    ran = [one for one in revisions if one.revision in upgrades]
    recorded = [
        capture.Direction(one, upgrade=True, statements=list(_recorded(upgrades[one.revision])))
        for one in ran
    ]
    files = {Path(one.path).name: one.revision for one in ran}
    found = list(squawk.check(recorded, CleanTexts()))
    kept = [
        one
        for one in apply_allowances(found, [Path(revision.path) for revision in ran])
        if one in found
    ]
    return [_lint(one, files[one.file], upgrades[files[one.file]]) for one in kept]


def _recorded(step: Step) -> Iterator[capture.Statement]:
    for transaction in step.transactions:
        for one in transaction.statements:
            if one.line:
                yield capture.Statement(
                    one.sql, one.line, hand_written=True,
                    in_transaction=not transaction.alone, parametrised=False,
                )  # fmt: skip  # one line per group


def _lint(found: Finding, revision: str, step: Step) -> Lint:
    effect = _EFFECTS.get(found.rule)
    statements = [
        (one, blocked)
        for one, blocked in _with_blocked(step)
        if one.line == found.line and plain(one.sql) == found.sql
    ]
    if effect is None or not statements:
        return Lint(found.rule, revision, found.line, found.message, "unseen")
    seen = any(effect(one, blocked) for one, blocked in statements)
    status: Literal["confirmed", "contradicted"] = "confirmed" if seen else "contradicted"
    return Lint(found.rule, revision, found.line, found.message, status)


def _with_blocked(step: Step) -> Iterator[tuple[Statement, Blocked]]:
    for transaction in step.transactions:
        blocked: set[str] = set()
        for one in transaction.statements:
            blocked |= {lock.relation for lock in one.locks if lock.rows and is_blocking(lock)}
            yield one, frozenset(blocked)
