"""A review from beginning to end: what a pull request does to the schema, from a run of it."""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from alembic.script import Script
from sqlalchemy import URL

from schema.postgres.scratch import open_server
from schema.project import ROOT
from schema.review import findings, lints
from schema.review.execution import databases
from schema.review.execution.walk import walk
from schema.review.models.compatibility import Compatibility
from schema.review.models.statements import export_models
from schema.review.objects import changed_objects
from schema.review.pages.diagram import affected
from schema.review.policy import accept, read_policy
from schema.review.pull_request import PullRequest, read_pull_request, text_at
from schema.review.result import Review, Revision, Size
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
        models = stack.enter_context(Compatibility(base, ROOT / "models"))  # imported meanwhile
        server = stack.enter_context(open_server(None, options.postgres, show))
        show("rows")
        if options.given is None:
            ground = stack.enter_context(databases.scratch(server, pull_request, options.rows))
        else:
            ground = databases.given(options.given, pull_request)
        walked = walk(ground, pull_request, show)
        tried = Tried(not_covered=("access and compatibility: the revisions fail",))
        if walked.failure is None:
            show("access and models")
            tried = try_small(server, pull_request, models)
        version = server.version if options.given is None else _version(options.given)
    objects = changed_objects(walked.before, walked.after)
    diagram = affected(walked.before, walked.after)
    found = tuple(
        accept(
            [
                *findings.of_walk(walked, pull_request.new, policy),
                *tried.findings,
                *findings.of_access(tried.access, tried.unsafe),
                *findings.of_breaks(tried.breaks),
            ],
            pull_request.new,
        )
    )
    return Review(
        base=pull_request.base[:12],
        below=pull_request.below or "base",
        revisions=tuple(map(_revision, pull_request.new)),
        verdict=verdict_of(found),
        sentences=sentences(walked, diagram, objects, found, tried.breaks),
        findings=found,
        objects=objects,
        diagram=diagram,
        steps=tuple(walked.steps),
        lints=tuple(lints.of_steps(walked.steps, pull_request.new)),
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
        not_covered=(*ground.shortages, *tried.not_covered, *_ALWAYS),
    )


_ALWAYS = (
    "other sessions: no one else used the database meanwhile",
    "what revisions do outside the database",
)


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
    declared = [
        f"{word} {what}: {reason}"
        for word in ("loses", "assumes", "accepts")
        for what, reason in dict(getattr(one.module, word, None) or {}).items()
    ]
    return Revision(
        one.revision,
        (one.doc or "").removesuffix("."),
        Path(one.path).name,
        is_irreversible(one),
        tuple(declared),
    )


def _changed(one: Size) -> bool:
    return (one.rows_before, one.bytes_before) != (one.rows_after, one.bytes_after)
