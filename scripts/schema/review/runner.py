"""A review from beginning to end: what a pull request does to the schema, from a run of it."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from alembic.script import Script
from sqlalchemy import URL

from schema.postgres.scratch import open_server
from schema.project import ROOT
from schema.review import findings, lints
from schema.review.declarations import EXAMPLES, declared
from schema.review.execution import databases
from schema.review.execution.walk import Walked, walk
from schema.review.models.compatibility import Compatibility
from schema.review.models.statements import export_models, new_models
from schema.review.objects import changed_objects
from schema.review.pages.diagram import affected
from schema.review.policy import Policy, accept, read_policy
from schema.review.pull_request import PullRequest, read_pull_request, text_at
from schema.review.result import Finding, Review, Revision, Size
from schema.review.trial import Tried, try_small
from schema.review.verdict import sentences, verdict_of
from schema.revisions.history import is_irreversible

type Show = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to review."""

    base: str | None = None
    """The ref to compare with; the main branch without one."""
    given: URL | None = None
    """A database to throw away, with rows; otherwise one is made."""
    postgres: str = "18"
    rows: int = 100_000


def review(options: Options, show: Show) -> Review:
    """Review the new revisions of this checkout.

    Raises:
        CannotRunError: they cannot be found, or the database cannot be used.

    """
    started = time.monotonic()
    pull_request = read_pull_request(options.base)
    if not pull_request.new:
        return _nothing(pull_request)
    pyproject = ROOT / "pyproject.toml"
    text = text_at(pull_request.base, pyproject)
    policy = read_policy(pyproject.read_text(encoding="utf-8") if text is None else text)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="schema-review-"))
        base = export_models(pull_request.base, Path(folder))
        new = new_models(
            Path(folder), [one.revision for one in (*pull_request.merged, *pull_request.new)]
        )
        models = stack.enter_context(Compatibility(base, new))  # imported meanwhile
        server = stack.enter_context(open_server(None, options.postgres, show))
        # Roles belong to a server: those of one run must not be there when the other one begins.
        another = stack.enter_context(open_server(None, options.postgres, show))
        show("rows")
        if options.given is None:
            ground = stack.enter_context(databases.scratch(server, pull_request, options.rows))
        else:
            ground = databases.given(options.given, pull_request)
        walked = walk(ground, pull_request, show)
        judged = walked
        if options.given is not None and walked.failure is None:
            # Its tables may be small: what depends on their size is judged on generated rows too.
            sized = databases.scratch(server, pull_request, options.rows)
            judged = walk(stack.enter_context(sized), pull_request, show)
        tried = Tried(not_covered=("access and compatibility: the revisions fail",))
        if walked.failure is None:
            show("access and models")
            tried = try_small(another, pull_request, models)
        version = server.version if options.given is None else _version(options.given)
    objects = changed_objects(walked.before, walked.after)
    diagram = affected(walked.before, walked.after)
    found = tuple(
        accept(
            [
                *findings.of_both(walked, judged, pull_request.new, policy),
                *tried.findings,
                *_of(pull_request, findings.of_access(tried.access, tried.unsafe)),
                *_of(pull_request, findings.of_breaks(tried.breaks)),
            ],
            pull_request.new,
        )
    )
    return Review(
        base=pull_request.base[:12],
        below=pull_request.below or "base",
        revisions=tuple(map(_revision, pull_request.new)),
        verdict=verdict_of(found),
        sentences=sentences(walked, objects, found, tried.breaks),
        findings=found,
        objects=objects,
        diagram=diagram,
        steps=tuple(walked.steps),
        lints=tuple(
            lints.of_steps(
                walked.steps, pull_request.new, tried.breaks if tried.statements else None
            )
        ),
        access=tried.access,
        reversals=tuple(walked.reversals),
        breaks=tried.breaks,
        compared_statements=tried.statements,
        failure=walked.failure,
        sizes=tuple(one for one in walked.sizes if _changed(one)),
        server=version,
        rows=walked.total,
        generated=ground.generated,
        seconds=time.monotonic() - started,
        not_covered=(
            *ground.shortages,
            *_sizes_missing(judged, policy),
            *tried.not_covered,
            *_ALWAYS,
        ),
    )


_ALWAYS = (
    "other sessions: no one else used the database meanwhile",
    "what revisions do outside the database",
)


def _of(pull_request: PullRequest, found: Iterable[Finding]) -> Iterator[Finding]:
    """Name the revision of what was tried for all together, if there is only one."""
    if len(pull_request.new) > 1:
        yield from found
    else:
        for one in found:
            yield replace(one, revision=pull_request.new[0].revision)


def _sizes_missing(walked: Walked, policy: Policy) -> Sequence[str]:
    """Say which sizes could not be judged."""
    largest = max((rows for of in walked.rows.values() for rows in of.values()), default=0)
    if largest < policy.budget.big:
        small = f"sizes: the largest table has {largest:,} rows, and {policy.budget.big:,} are big"
        return (small, *walked.short)
    return walked.short


def _version(url: URL) -> str:
    with databases.session(url) as session:
        return str(session.execute("SHOW server_version").fetchall()[0][0]).split()[0]


def _nothing(pull_request: PullRequest) -> Review:
    return Review(
        base=pull_request.base[:12],
        below=pull_request.below or "base",
        revisions=(),
        verdict="nothing",
        sentences=(f"There is no new revision since {pull_request.base[:12]}.",),
    )


def _revision(one: Script) -> Revision:
    said = [
        f"{word} {what}: {reason}"
        for word in EXAMPLES
        for what, reason in declared(one, word).items()
    ]
    return Revision(
        one.revision,
        (one.doc or "").removesuffix("."),
        Path(one.path).name,
        is_irreversible(one),
        tuple(said),
    )


def _changed(one: Size) -> bool:
    return (one.rows_before, one.bytes_before) != (one.rows_after, one.bytes_after)
