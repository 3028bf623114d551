"""What the page of a review shows, and in which order: the same in Markdown and in HTML."""

from collections.abc import Iterator, Sequence

from schema.review.pages import effects, runs, wording
from schema.review.pages.blocks import (
    Block,
    Code,
    Detail,
    Fold,
    Heading,
    Items,
    Line,
    Listing,
    Page,
    Paragraph,
    Strong,
)
from schema.review.result import Failure, Finding, Review
from schema.text import capitalized, pluralize

SENTENCE = 1_000
"""Characters of one of the five sentences, also where other texts are shorter."""
SQL_TIMES = 10
"""How many times more characters the failed statement may have than a sentence."""


def page(review: Review, detail: Detail | None = None) -> Page:
    """Return the page with so much detail; everything if it is not said."""
    detail = detail or Detail()
    unresolved = [one for one in review.findings if not one.accepted]
    blocking = tuple(_finding(one, detail) for one in unresolved if one.blocking)
    sections = (
        tuple(_open(unresolved, detail)),
        tuple(_accepted(review, detail)),
        tuple(_revisions(review, detail)),
        *effects.objects(review, detail),
        *runs.steps(review, detail),
        tuple(runs.lints(review, detail)),
        tuple(effects.access(review, detail)),
        tuple(effects.reversals(review, detail)),
        tuple(effects.compatibility(review, detail)),
        tuple(runs.numbers(review, detail)),
    )
    return Page(tuple(_head(review, detail)), blocking, tuple(filter(None, sections)))


def _head(review: Review, detail: Detail) -> Iterator[Block]:
    most = detail.text and max(detail.text, SENTENCE)
    sentences = tuple((wording.cut(one, most),) for one in review.sentences)
    if review.verdict == "nothing":
        yield from (Paragraph(line) for line in sentences)
    else:
        yield Heading((_title(review),), 1)
        if sentences:
            yield Items(sentences)
    if review.failure is not None:
        yield from _failure(review.failure, detail)


def _title(review: Review) -> str:
    if review.verdict == "decide":
        return "! Needs a decision"
    if review.verdict == "safe":
        return "✓ Safe"
    reasons = []
    if review.failure is not None:
        reasons.append(f"the {review.failure.direction} of {review.failure.revision[:40]} fails")
    number = sum(one.blocking and not one.accepted for one in review.findings)
    if number:
        reasons.append(pluralize(number, "finding"))
    return "✗ Blocked: " + (", ".join(reasons) or "see below")


def _failure(failure: Failure, detail: Detail) -> Iterator[Block]:
    where = f", line {failure.line}" if failure.line else ""
    line: Line = (
        Strong(f"{capitalized(failure.direction)} of {failure.revision[:40]} fails{where}:"),
        " ",
        Code(wording.cut(failure.error, detail.text)),
    )
    if failure.constraint:
        line += (" Constraint ", Code(wording.cut(failure.constraint, detail.text)), ".")
    if failure.rows is not None:
        line += (f" In its way: {pluralize(failure.rows, 'row')}.",)
    if failure.example:
        line += (" For example ", Code(wording.cut(failure.example, detail.text)), ".")
    yield Paragraph(line)
    yield Listing(wording.cut(failure.sql, detail.text and SQL_TIMES * detail.text), "sql")


def _finding(one: Finding, detail: Detail) -> Line:
    text = detail.text
    line: Line = (
        Strong(one.kind if one.accepted else f"{'✗' if one.blocking else '!'} {one.kind}"),
        " ",
        Code(wording.cut(one.object, text)),
        *((" in ", Code(wording.cut(one.revision, text))) if one.revision else ()),
        f", line {one.line}: " if one.line else ": ",
        wording.cut(one.message, text),
    )
    if one.advice:
        line += (" → ", wording.cut(one.advice, text))
    if one.accepted:
        line += (" ", Strong("Accepted:"), " ", wording.cut(one.accepted, text))
    return line


def _open(unresolved: Sequence[Finding], detail: Detail) -> Iterator[Block]:
    found = [one for one in unresolved if not one.blocking]
    if found:
        yield Items(tuple(_finding(one, detail) for one in found[: detail.most]))
        yield from effects.more(len(found), detail)


def _accepted(review: Review, detail: Detail) -> Iterator[Block]:
    found = [one for one in review.findings if one.accepted]
    if found:
        lines = tuple(_finding(one, detail) for one in found[: detail.most])
        title = pluralize(len(found), "accepted finding")
        yield Fold((title,), (Items(lines), *effects.more(len(found), detail)))


def _revisions(review: Review, detail: Detail) -> Iterator[Block]:
    lines: list[Line] = []
    for one in review.revisions[: detail.most]:
        line: Line = (
            Code(wording.cut(one.id, detail.text)), " ", wording.cut(one.title, detail.text),
            " (", Code(wording.cut(one.file, detail.text)), ")",
        )  # fmt: skip
        if one.irreversible:
            line += (" ", Strong("It cannot be reverted."))
        lines.append(line)
        lines += [
            ("in ", Code(wording.cut(one.id, detail.text)), ": ", wording.cut(words, detail.text))
            for words in one.declared[: detail.most]
        ]
    if lines:
        title: Line = (
            f"{pluralize(len(review.revisions), 'new revision')} above ",
            Code(wording.cut(review.below, detail.text)),
            ", compared with ",
            Code(wording.cut(review.base, detail.text)),
        )
        yield Heading(title)
        yield Items(tuple(lines))
        yield from effects.more(len(review.revisions), detail)
