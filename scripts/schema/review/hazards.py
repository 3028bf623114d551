"""What is dangerous in how a revision ran: findings from its trace.

The rules follow from PostgreSQL's documentation, Explicit Locking: a lock is kept to the end of its
transaction, and those who wait for it wait for all that the transaction does meanwhile.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from alembic.script import Script

from schema.review.alternatives import alternative
from schema.review.policy import Budget, Policy
from schema.review.result import Finding, Lock, Size, Statement, Step, Transaction, is_blocking
from schema.text import capitalized, pluralize

_IS_BLOCK = re.compile(r"\s*(DO|CALL|SELECT|WITH)\b", re.IGNORECASE)
"""Several commands may hide in it, so that it can work on rows while it holds its own locks."""

type Rows = dict[str, int]


def batched_tables(steps: Iterable[Step]) -> frozenset[str]:
    """Return the tables that more than one transaction of the upgrades writes."""
    found: Counter[str] = Counter()
    for step in steps:
        for transaction in step.transactions if step.direction == "upgrade" else ():
            for one in transaction.statements:
                found.update(dict.fromkeys(one.written, one.transactions))
    return frozenset(table for table, number in found.items() if number > 1)


def of_step(
    step: Step, revision: Script, rows: Rows, policy: Policy, batches: frozenset[str]
) -> Iterator[Finding]:
    """Find the hazards of an upgrade.

    `rows` counts those of each table before it; `batches` are the tables that several transactions
    of the pull request write.
    """
    found = [
        finding
        for transaction in step.transactions
        for finding in _of_transaction(transaction, revision, rows, policy, batches)
    ]
    held = {one.object for one in found if one.kind == "held"}
    told = [one for one in found if one.kind != "several" or one.object not in held]
    yield from _within_budget(_once(told), revision, policy)


def of_growth(sizes: Iterable[Size], revision: Script, policy: Policy) -> Iterator[Finding]:
    """Find the tables that grow by more than the budget of a revision's table."""
    for one in sizes:
        if one.bytes_before is None or one.bytes_after is None:
            continue
        limit = policy.of(one.table, revision).bytes
        if one.bytes_after - one.bytes_before > limit:
            yield Finding(
                "budget",
                one.table,
                revision.revision,
                f"{one.table} grows by more than the {limit:,} bytes of its budget.",
                "Split the change, or accept it with the reason.",
            )


def _of_transaction(
    transaction: Transaction,
    revision: Script,
    rows: Rows,
    policy: Policy,
    batches: frozenset[str],
) -> Iterator[Finding]:
    blocking: dict[str, Lock] = {}
    written: Counter[str] = Counter()
    for statement in transaction.statements:
        earlier = dict(blocking)
        blocking |= {lock.relation: lock for lock in statement.locks if is_blocking(lock)}
        heavy = set(_heavy(statement, rows, revision, policy))
        yield from _work(statement, blocking, heavy, revision)
        holding = blocking if _IS_BLOCK.match(statement.sql) else earlier
        yield from _held(statement, holding, heavy, revision)
        yield from _several(statement, earlier, blocking, revision)
        for table, number in statement.written.items():
            written[table] += statement.most.get(table, number)
            batched = table in batches or statement.transactions > 1
            budget = policy.of(table, revision)
            if _too_many(written[table], rows.get(table, 0), budget, batched=batched):
                yield _backfill(table, written[table], statement, revision)


def _heavy(
    statement: Statement, rows: Rows, revision: Script, policy: Policy
) -> Iterator[tuple[str, str]]:
    """Yield the work of a statement that is in proportion to the rows of a big table."""
    for what, tables in (("rewrite", statement.rewrites), ("scan", statement.scans)):
        for table in tables:
            if rows.get(table, 0) >= policy.of(table, revision).big:
                yield what, table
    for table, number in statement.written.items():
        most = statement.most.get(table, number)
        batched = statement.transactions > 1
        if _too_many(most, rows.get(table, 0), policy.of(table, revision), batched=batched):
            yield "backfill", table


def _too_many(written: int, rows: int, budget: Budget, *, batched: bool) -> bool:
    """Whether a transaction writes more rows of a table than the budget has.

    Where no other transaction writes it, a tenth of a big table is too much: nothing bounds the
    statement, and a larger table has more than the budget.
    """
    unbounded = not batched and rows >= budget.big and written >= max(rows / 10, budget.big / 2)
    return rows > 0 and (unbounded or written > budget.rows)


def _work(
    statement: Statement,
    blocking: dict[str, Lock],
    heavy: set[tuple[str, str]],
    revision: Script,
) -> Iterator[Finding]:
    """Find the rewrites, and the scans while others wait for the table."""
    for what, table in sorted(heavy):
        lock = blocking.get(table)
        if what == "rewrite":
            waits = lock.blocks if lock else "reads and writes"
            yield Finding(
                "rewrite",
                table,
                revision.revision,
                f"{table} is written anew, row by row, while {waits} wait.",
                alternative("rewrite", statement.sql),
                statement.line,
            )
        elif what == "scan" and lock:
            yield Finding(
                "scan",
                table,
                revision.revision,
                f"{table} is read from end to end while {lock.blocks} wait.",
                alternative("scan", statement.sql),
                statement.line,
            )


def _held(
    statement: Statement,
    earlier: dict[str, Lock],
    heavy: set[tuple[str, str]],
    revision: Script,
) -> Iterator[Finding]:
    """Find the locks of earlier statements that are held during work on rows."""
    if not heavy:
        return
    verbs = {"rewrite": "written anew", "scan": "read from end to end", "backfill": "filled"}
    what, worked = min(heavy, key=lambda one: (list(verbs).index(one[0]), one[1]))
    for table, lock in sorted(earlier.items()):
        if what != "backfill" and table == worked:
            continue  # the rewrite or scan itself says so
        yield Finding(
            "held",
            table,
            revision.revision,
            f"{capitalized(lock.blocks)} of {table} wait while {worked} is {verbs[what]}: an"
            " earlier statement of the transaction holds its lock.",
            alternative("held", statement.sql),
            statement.line,
        )


def _several(
    statement: Statement, earlier: dict[str, Lock], now: dict[str, Lock], revision: Script
) -> Iterator[Finding]:
    """Find a lock that is held while the transaction waits for another one."""
    more = sorted(now.keys() - earlier.keys())
    if more:
        for table, lock in sorted(earlier.items()):
            yield Finding(
                "several",
                table,
                revision.revision,
                f"{capitalized(lock.blocks)} of {table} wait while the transaction waits for"
                f" {', '.join(more)}.",
                alternative("several", statement.sql),
                statement.line,
                blocking=False,
            )


def _backfill(table: str, rows: int, statement: Statement, revision: Script) -> Finding:
    return Finding(
        "backfill",
        table,
        revision.revision,
        f"One transaction writes {pluralize(rows, 'row')} of {table}: their writers wait to its"
        " end, and VACUUM cannot clean up behind it.",
        alternative("backfill", statement.sql),
        statement.line,
    )


def _once(findings: Iterable[Finding]) -> list[Finding]:
    """Keep the last finding of each kind and object: its figures are the transaction's."""
    return list({(one.kind, one.object, one.line): one for one in findings}.values())


def _within_budget(findings: list[Finding], revision: Script, policy: Policy) -> Iterator[Finding]:
    """Leave out the rewrites and scans that the budget allows, and the second one of each name."""
    seen: set[tuple[str, str]] = set()
    used: Counter[tuple[str, str]] = Counter()
    for one in findings:
        if one.kind in {"rewrite", "scan"}:
            budget = policy.of(one.object, revision)
            used[one.kind, one.object] += 1
            limit = budget.rewrites if one.kind == "rewrite" else budget.scans
            if used[one.kind, one.object] <= limit:
                continue
        if (one.kind, one.object) not in seen:
            seen.add((one.kind, one.object))
            yield one
