"""All findings of a review, from what ran, what was compared and what was tried."""

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
    for step in walked.steps:
        if step.direction == "upgrade":
            revision = by_id[step.revision]
            yield from hazards.of_step(step, revision, walked.rows[step.revision], policy)
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
                "Accept it in the revision if it is meant; otherwise narrow the grant or policy.",
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


def of_breaks(breaks: Sequence[Break]) -> Iterator[Finding]:
    """Find what running code cannot do after, or new code before.

    If each order breaks something, or the new models meet it too, no deploy is safe.
    """
    both = {one.models for one in breaks} == {"base", "new"}
    for table in sorted({one.table for one in breaks if one.models == "base"}):
        mine = [one for one in breaks if one.models == "base" and one.table == table]
        commands = dict.fromkeys(one.command for one in mine)
        cannot = "start" if START_UP in commands else f"{', '.join(commands)} {table}"
        lasting = any(one.lasting for one in mine)
        yield Finding(
            "breaks",
            table,
            "",
            f"The application that is running cannot {cannot} any more: {mine[0].error}.",
            _deploy(both=both, lasting=lasting),
            blocking=both or lasting,
        )


def _deploy(*, both: bool, lasting: bool) -> str:
    if lasting:
        return "Change the models too: they meet it as well."
    if both:
        return "Do it in two releases: first what both understand, then the rest."
    return "Deploy the code before the migration."


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
    for name, rows in reversal.lost.items():
        if not reversal.declared.get(name, "").strip():
            kind = "values" if "." in name else "rows"
            yield Finding(
                "loses",
                name,
                reversal.revision,
                f"The {kind} of {name} are gone afterwards ({pluralize(rows, 'row')}).",
                "Keep them, or declare it in the revision:"
                f' loses = {{"{name}": "why that is right"}}.',
            )


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
