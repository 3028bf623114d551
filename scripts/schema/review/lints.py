"""What static analysis says of the statements that ran, and whether the run agrees."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from alembic.script import Script

from schema.review.result import Break, Lint, Statement, Step, is_blocking
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


_CLIENTS = frozenset(
    {
        "adding-required-field",
        "ban-drop-column",
        "ban-drop-table",
        "changing-column-type",
        "renaming-column",
        "renaming-table",
    }
)
"""The rules of squawk that warn of what running code cannot do any more."""


def of_steps(
    steps: Iterable[Step], revisions: Iterable[Script], breaks: Sequence[Break] | None = None
) -> list[Lint]:
    """Lint what the upgrades executed; what a comment in the revision accepts is left out.

    Without `breaks` the models were not tried.
    """
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
    return [
        _lint(one, files[one.file], upgrades[files[one.file]], breaks)
        for one in kept
        # PostgreSQL has executed it. squawk cannot read the parameters of a driver.
        if one.rule != "syntax-error"
    ]


def _recorded(step: Step) -> Iterator[capture.Statement]:
    for transaction in step.transactions:
        for one in transaction.statements:
            if one.line:
                yield capture.Statement(
                    one.sql, one.line, hand_written=True,
                    in_transaction=not transaction.alone, parametrised=False,
                )  # fmt: skip  # one line per group


def _lint(found: Finding, revision: str, step: Step, breaks: Sequence[Break] | None) -> Lint:
    statements = [
        (one, blocked)
        for one, blocked in _with_blocked(step)
        if one.line == found.line and plain(one.sql) == found.sql
    ]
    seen = _seen(found, statements, breaks) if statements else None
    status: dict[bool | None, Literal["confirmed", "contradicted", "unseen"]] = {
        True: "confirmed",
        False: "contradicted",
        None: "unseen",
    }
    return Lint(found.rule, revision, found.line, found.message, status[seen])


def _seen(
    found: Finding,
    statements: Iterable[tuple[Statement, Blocked]],
    breaks: Sequence[Break] | None,
) -> bool | None:
    """Whether the run showed the effect; None if it could not."""
    effect = _EFFECTS.get(found.rule)
    shown = [effect(one, blocked) for one, blocked in statements] if effect else []
    if breaks is not None and found.rule in _CLIENTS:
        shown += [_names(found.sql, one.table) for one in breaks if one.models == "base"]
        return any(shown)
    return any(shown) if effect else None


def _names(sql: str, table: str) -> bool:
    """Whether a statement names a table, with or without its schema."""
    name = rf"(?<![\w.])(?:public\.)?{re.escape(table)}(?!\w)"
    return re.search(name, sql.replace('"', ""), re.IGNORECASE) is not None


def _with_blocked(step: Step) -> Iterator[tuple[Statement, Blocked]]:
    for transaction in step.transactions:
        blocked: set[str] = set()
        for one in transaction.statements:
            blocked |= {lock.relation for lock in one.locks if lock.rows and is_blocking(lock)}
            yield one, frozenset(blocked)
