"""How the revisions ran, on the page: statements, locks, lints and numbers."""

from collections.abc import Iterator, Sequence
from itertools import islice

from schema.review.pages import wording
from schema.review.pages.blocks import (
    Block,
    Code,
    Detail,
    Fold,
    Grid,
    Heading,
    Items,
    Line,
    Listing,
    Paragraph,
    Row,
    Strong,
)
from schema.review.pages.effects import more
from schema.review.result import Finding, Review, Size, Statement, Step, Transaction
from schema.text import pluralize

SHOWN_ROWS = 15
"""Rows of an upgrade's table from which on it is folded."""

type Findings = dict[tuple[str, int], list[Finding]]
"""By revision and line."""


def steps(review: Review, detail: Detail) -> Iterator[tuple[Block, ...]]:
    """Show each upgrade and downgrade: a table with a row per statement."""
    hazards: Findings = {}
    for one in review.findings:
        if one.line:
            hazards.setdefault((one.revision, one.line), []).append(one)
    if not review.steps:
        return
    heading: tuple[Block, ...] = (Heading(("How it ran",)),)
    for step in review.steps[: detail.most]:
        yield (*heading, *_step(step, hazards, detail))
        heading = ()
    if left := tuple(more(len(review.steps), detail)):
        yield left


def _step(step: Step, hazards: Findings, detail: Detail) -> Iterator[Block]:
    statements = [one for transaction in step.transactions for one in transaction.statements]
    title: Line = (
        f"{step.direction} of {wording.cut(step.revision, detail.text)}:"
        f" {wording.duration(step.seconds)},"
        f" {pluralize(len(statements), 'statement')} in"
        f" {pluralize(len(step.transactions), 'transaction')}",
    )
    if not detail.downgrades and step.direction == "downgrade":
        yield Paragraph(title)
        return
    rows = tuple(islice(_rows(step, hazards), detail.most))
    number = len(statements) + len(step.transactions)
    blocks: list[Block] = [
        Grid(("SQL", "time", "locks on what was there", "rewrites, reads, writes", "hazard"), rows),
        *more(number, detail),
    ]
    if detail.sql and any(wording.is_cut(one.sql) for one in statements):
        blocks.append(Fold(("The SQL in full",), (Listing(_in_full(statements), "sql"),)))
    if step.direction == "downgrade" or number > SHOWN_ROWS:
        yield Fold(title, tuple(blocks))
    else:
        yield Heading(title, 3)
        yield from blocks


def _rows(step: Step, hazards: Findings) -> Iterator[Row]:
    for number, transaction in enumerate(step.transactions, 1):
        yield _group(number, transaction)
        for one in transaction.statements:
            yield _statement(one, hazards.get((step.revision, one.line), []))


def _group(number: int, transaction: Transaction) -> Row:
    words = "outside a transaction" if transaction.alone else f"transaction {number:,}"
    held: Line = ()
    if transaction.held:
        place = transaction.slowest
        slowest = (
            wording.duration(transaction.statements[place].seconds)
            if 0 <= place < len(transaction.statements)
            else "?"
        )
        held = (
            f"held while statement {place + 1:,} ran ({slowest}): ",
            *wording.joined([wording.lock(one) for one in transaction.held]),
        )
    return Row(((Strong(words),), (wording.duration(transaction.seconds),), held, (), ()), True)


def _times(one: Statement) -> str:
    return f", {one.times:,} times" if one.times > 1 else ""


def _statement(one: Statement, hazards: Sequence[Finding]) -> Row:
    found = dict.fromkeys(
        f"{'(accepted) ' if hazard.accepted else '✗ ' if hazard.blocking else '! '}{hazard.kind}"
        for hazard in hazards
    )
    line = f" line {one.line}" if one.line else ""
    return Row(
        (
            (Code(wording.one_line(one.sql)), f"{line}{_times(one)}"),
            (wording.duration(one.seconds),),
            # Of locks that block nothing there are many, and they decide nothing.
            wording.joined([wording.lock(lock) for lock in one.locks if lock.blocks]),
            wording.effects(one),
            (", ".join(found),),
        )
    )


def _in_full(statements: Sequence[Statement]) -> str:
    return "\n\n".join(f"{one.sql.strip().removesuffix(';')};" for one in statements)


def lints(review: Review, detail: Detail) -> Iterator[Block]:
    """Show what static analysis says, beside what the run showed."""
    if not review.lints:
        return
    order = list(wording.LINTS)
    found = sorted(review.lints, key=lambda one: order.index(one.status))
    numbers = [
        f"{number:,} {status}"
        for status in order
        if (number := sum(one.status == status for one in found))
    ]
    rows = [
        Row(
            (
                (wording.lint_status(one),),
                (Code(wording.cut(one.rule, detail.text)),),
                (
                    Code(wording.cut(one.revision, detail.text)),
                    f" line {one.line}" if one.line else "",
                ),
                (wording.cut(one.message, detail.text),),
            )
        )
        for one in found[: detail.most]
    ]
    yield Heading((f"Lint: {', '.join(numbers)}",))
    yield Grid(("what the run showed", "rule", "where", "message"), tuple(rows))
    yield from more(len(found), detail)


def numbers(review: Review, detail: Detail) -> Iterator[Block]:
    """Show sizes, on what it ran, how long it took, and what was not looked at."""
    if not (review.sizes or review.server or review.not_covered):
        return
    yield Heading(("Sizes, and what was not looked at",))
    if review.server:
        kind = "generated" if review.generated else "the given database's"
        yield Paragraph(
            (
                f"PostgreSQL {wording.cut(review.server, detail.text)},"
                f" {kind} rows: {review.rows:,};"
                f" {wording.duration(review.seconds)} in all.",
            )
        )
    if review.sizes:
        rows = tuple(_size(one, detail) for one in review.sizes[: detail.most])
        yield Grid(("table", "rows before", "rows after", "size before", "size after"), rows)
        yield from more(len(review.sizes), detail)
    if review.not_covered:
        lines = tuple(
            ("Not looked at: ", wording.cut(one, detail.text))
            for one in review.not_covered[: detail.most]
        )
        yield Items(lines)
        yield from more(len(review.not_covered), detail)


def _size(one: Size, detail: Detail) -> Row:
    return Row(
        (
            (Code(wording.cut(one.table, detail.text)),),
            (wording.count(one.rows_before),),
            (wording.count(one.rows_after),),
            (wording.size(one.bytes_before),),
            (wording.size(one.bytes_after),),
        )
    )
