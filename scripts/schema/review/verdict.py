"""The verdict, and the five sentences that say why."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from schema.review.execution.walk import Walked
from schema.review.pages.wording import deployment, duration
from schema.review.result import (
    Break,
    Finding,
    Lock,
    ObjectChange,
    Reversal,
    Step,
    is_blocking,
)
from schema.text import capitalized, pluralize

_NAMED = 3
"""How many names a sentence has, before it counts the others."""


def verdict_of(findings: Sequence[Finding]) -> Literal["blocked", "decide", "safe"]:
    """Return the verdict: by the kinds of findings, never by a time."""
    if any(one.blocking for one in findings):
        return "blocked"
    return "decide" if findings else "safe"


def sentences(
    walked: Walked,
    objects: Sequence[ObjectChange],
    findings: Sequence[Finding],
    breaks: Sequence[Break],
) -> tuple[str, ...]:
    """Say what changes, who waits, what a downgrade loses, what to decide, what to deploy first."""
    if walked.failure is not None:
        failed = walked.failure
        return (
            f"The {failed.direction} of {failed.revision} fails: {failed.error.rstrip('.')}.",
            "What stands behind it was not run.",
            *_decisions(findings),
        )
    found = [
        *_changes(objects),
        *_waits(walked.steps),
        *_reversal(walked.reversals, walked.discarded),
        *_decisions(findings),
        *([deployment(breaks)] if breaks else []),
    ]
    return tuple(found[:5])


def _changes(objects: Sequence[ObjectChange]) -> Iterator[str]:
    if not objects:
        yield "The schema does not change."
        return
    parts = []
    for change in ("added", "changed", "removed"):
        names = [f"{one.name}{_parts(one)}" for one in objects if one.change == change]
        if names:
            verb = "is" if len(names) == 1 else "are"
            parts.append(f"{_listed(names)} {verb} {change}")
    yield f"{capitalized('; '.join(parts))}."


def _parts(changed: ObjectChange) -> str:
    """Name the parts of a changed object, with the sign of each."""
    if changed.change != "changed":
        return ""
    signs: dict[str, set[str]] = {}
    for line in changed.difference.splitlines():
        if line[:1] in "+-" and line[1:6] == "     " and line[6:7] != " ":
            signs.setdefault(line[6:].partition("  ")[0], set()).add(line[0])
    parts = [f"{'~' if len(sign) > 1 else next(iter(sign))} {name}" for name, sign in signs.items()]
    more = [f"{len(parts) - _NAMED} more"] if len(parts) > _NAMED else []
    return f" ({', '.join([*parts[:_NAMED], *more])})" if parts else ""


def _waits(steps: Sequence[Step]) -> Iterator[str]:
    """Say who waits for what, the longest first."""
    longest: dict[str, Lock] = {}
    for step in steps:
        for transaction in step.transactions if step.direction == "upgrade" else ():
            for statement in transaction.statements:
                for lock in statement.locks:
                    if is_blocking(lock):
                        other = longest.get(lock.relation, lock)
                        stronger = max(lock, other, key=lambda one: "reads" in one.blocks)
                        seconds = max(lock.seconds, other.seconds)
                        longest[lock.relation] = replace(stronger, seconds=seconds)
    if not longest:
        yield "No reader and no writer has to wait."
        return
    # By name: a time would change the order from run to run.
    words = [
        f"{lock.blocks} of {name} wait {duration(lock.seconds)} on {pluralize(lock.rows, 'row')}"
        for name, lock in sorted(longest.items())
    ]
    yield f"{capitalized(_listed(words))}."


def _reversal(reversals: Sequence[Reversal], discarded: Sequence[str]) -> Iterator[str]:
    lost = sorted({name for one in reversals for name in one.lost})
    final = [one for one in reversals if one.state == "irreversible"]
    if final:
        text = f"{pluralize(len(final), 'revision')} cannot be reverted"
        yield (
            f"{text}; {_listed(lost)} {'is' if len(lost) == 1 else 'are'} lost."
            if lost
            else f"{text}."
        )
    elif lost:
        yield f"A downgrade does not bring back {_listed(lost)}."
    elif discarded:
        yield f"A downgrade discards what will be in {_listed(discarded)}."
    elif reversals:
        yield "Down and up again, every row and value that was there is there."


def _decisions(findings: Sequence[Finding]) -> Iterator[str]:
    blocking = [one for one in findings if one.blocking]
    if blocking:
        names = list(dict.fromkeys(f"{one.kind} {one.object}" for one in blocking))
        number = pluralize(len(blocking), "finding")
        yield f"{number} must be fixed or accepted: {_listed(names)}."
        return
    open_ones = [one for one in findings if not one.accepted]
    accepted = len(findings) - len(open_ones)
    if open_ones:
        names = list(dict.fromkeys(f"{one.kind} {one.object}" for one in open_ones))
        yield f"Decide whether this is meant: {_listed(names)}."
    if accepted:
        number = pluralize(accepted, "finding")
        yield f"{number} accepted by the revisions, with reasons."


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_NAMED])
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if shown[1:] else shown)
