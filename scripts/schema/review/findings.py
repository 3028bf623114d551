"""All findings of a review, from what ran, what was compared and what was tried."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from alembic.script import Script

from schema.errors import CannotRunError
from schema.postgres.connection import missing_extension
from schema.review import hazards
from schema.review.execution.walk import Walked
from schema.review.models.program import START_UP
from schema.review.policy import Policy
from schema.review.result import AccessChange, Break, Failure, Finding, Reversal
from schema.text import pluralize


def of_walk(walked: Walked, revisions: Iterable[Script], policy: Policy) -> Iterator[Finding]:
    """Find what is wrong in how the revisions ran, and in what their downgrades restore."""
    by_id = {one.revision: one for one in revisions}
    batches = hazards.batched_tables(walked.steps)
    for step in walked.steps:
        if step.direction == "upgrade":
            revision = by_id[step.revision]
            rows = walked.rows[step.revision]
            yield from hazards.of_step(step, revision, rows, policy, batches)
            growth = walked.growth.get(step.revision, [])
            yield from hazards.of_growth(growth, revision, policy)
    for reversal in walked.reversals:
        yield from _of_reversal(reversal, Path(by_id[reversal.revision].path).name)
    for name, of in sorted(walked.invalid.items()):
        yield Finding(
            "invalid",
            name,
            of,
            f"The revision leaves the index {name} INVALID: no query uses it, and every write"
            " maintains it.",
            "Drop it with DROP INDEX CONCURRENTLY, and build it again.",
        )
    if walked.failure is not None:
        yield _of_failure(walked.failure)


def of_both(
    walked: Walked, judged: Walked, revisions: Sequence[Script], policy: Policy
) -> Iterator[Finding]:
    """Find what is wrong in two runs, each finding once: on given rows, and on generated ones."""
    seen = set()
    runs = [walked] if judged is walked else [walked, judged]
    for run in runs:
        for one in of_walk(run, revisions, policy):
            if (one.kind, one.object, one.revision) not in seen:
                seen.add((one.kind, one.object, one.revision))
                yield one


def of_access(changes: Iterable[AccessChange], unsafe: Iterable[str]) -> Iterator[Finding]:
    """Find what a role can do that it could not before, and functions that run others' code."""
    for one in changes:
        if one.widened:
            yield Finding(
                "access",
                f"{one.role} {one.command} {one.object}",
                "",
                f"{one.role} reaches more by {one.command} on {one.object}:"
                f" {one.before} before, {one.after} now.",
                f"{_narrower(one)}, or accept it in one of the new revisions, if it is meant.",
            )
    for signature in unsafe:
        yield Finding(
            "definer",
            signature,
            "",
            f"{signature} runs with its owner's rights, and finds its tables and functions by its"
            " caller's search_path.",
            "Add SET search_path = '' and write the names with their schemas, or make it SECURITY"
            " INVOKER.",
        )


def _narrower(change: AccessChange) -> str:
    """Advise how a role reaches no more than before."""
    if change.object.startswith("view "):
        return "Make the view WITH (security_invoker = true)"
    if change.object.startswith("function "):
        return "Make the function SECURITY INVOKER, or check the caller in it"
    if change.before == "no table" or change.after.endswith("without row security"):
        name = change.object
        return f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, with a policy for a user's own rows"
    return "Narrow the grant or the policy"


def of_breaks(breaks: Sequence[Break]) -> Iterator[Finding]:
    """Find what running code cannot do after, or new code before.

    If each order breaks something, or the new models meet it too, no deploy is safe.
    """
    both = {one.models for one in breaks} == {"base", "new"}
    told = [one for one in breaks if one.models == "base" and not _is_told_by_another(one, breaks)]
    for table in sorted({one.table for one in told}):
        mine = [one for one in told if one.table == table]
        lasting = any(one.lasting for one in mine)
        errors = list(dict.fromkeys(one.error for one in mine))[:2]
        yield Finding(
            "breaks",
            table,
            "",
            " ".join(_cannot(mine, error, again=error != errors[0]) for error in errors),
            _deploy(errors) if both or lasting else "Deploy the code before the migration.",
            blocking=both or lasting,
        )


def _is_told_by_another(one: Break, breaks: Sequence[Break]) -> bool:
    """Whether it only repeats, at the application's start, that a table does not fit."""
    return one.table == "assert_compatible" and any(
        other.models == "base" and other.command != START_UP and (other.lasting or not one.lasting)
        for other in breaks
    )


def _cannot(breaks: Sequence[Break], error: str, *, again: bool) -> str:
    """Say what fails with this error."""
    commands = dict.fromkeys(one.command for one in breaks if one.error == error)
    cannot = "start" if START_UP in commands else f"{', '.join(commands)} {breaks[0].table}"
    who = "It" if again else "The application that is running"
    return f"{who} cannot {cannot} any more: {error}."


# The first pattern that an error matches says what to do.
_BY_CAUSE = (
    ("permission denied", "Grant it to the role, or keep the privilege."),
    (
        "is of type|and the models read|operator does not exist|invalid input syntax",
        "Add a new column beside it.",
    ),
    (
        "does not exist",
        "Keep the old name or column until no running release uses it: migrations/README.md,"
        " Changing a table that is in use.",
    ),
    (
        "violates not-null",
        "Add it nullable or with a default first, and require it when every running release"
        " writes it.",
    ),
    (
        "violates check|too long|out of range",
        "Let the running release's values in until it is replaced.",
    ),
    ("a trigger or a function raised", "Change the trigger or function."),
)


def _deploy(errors: Iterable[str]) -> str:
    """Say how to avoid these errors, if no order of deployment does."""
    found = {
        next((advice for cause, advice in _BY_CAUSE if re.search(cause, error)), "")
        for error in errors
    }
    return " ".join(advice for _, advice in _BY_CAUSE if advice in found) or (
        "Do it in two releases: first a schema that the running release and the next one can use."
    )


def _of_reversal(reversal: Reversal, file: str) -> Iterator[Finding]:
    if reversal.state == "irreversible":
        yield Finding(
            "irreversible",
            file,
            reversal.revision,
            f"The revision cannot be reverted: {reversal.reason or 'it gives no reason'}.",
            "A way back is a restore, or another revision.",
            blocking=False,
        )
    if reversal.state == "inexact":
        yield Finding(
            "downgrade",
            file,
            reversal.revision,
            "The downgrade does not restore the schema"
            + (f": {reversal.reason}." if reversal.reason else " from before the upgrade."),
            "Make it undo exactly what the upgrade does, or let it raise NotImplementedError with"
            " the reason.",
        )
    for name, number in reversal.lost.items():
        if not reversal.declared.get(name, "").strip():
            yield _lost(name, number, reversal.revision)


def _lost(name: str, number: int, revision: str) -> Finding:
    kind = "values" if "." in name else "rows"
    advice = f'Keep them, or declare it in the revision: loses = {{"{name}": "why that is right"}}.'
    if name.rpartition(".")[2] in {"updated_at", "updatedAt"}:
        advice = (
            "A backfill is no change by a user: before it, SELECT"
            " set_config('app.keep_updated_at', 'on', true)."
        )
    message = f"The {kind} of {name} are gone afterwards ({pluralize(number, 'row')})."
    return Finding("loses", name, revision, message, advice)


def _of_failure(failure: Failure) -> Finding:
    rows = "" if failure.rows is None else f" {pluralize(failure.rows, 'row')} stand in its way."
    missing = missing_extension(CannotRunError(failure.error))
    return Finding(
        "fails",
        failure.constraint or failure.revision,
        failure.revision,
        f"The {failure.direction} fails: {failure.error}.{rows}",
        missing or "Fix it; if rows stand in its way, change them first, in an earlier revision.",
        failure.line,
    )
