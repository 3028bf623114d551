"""Write the revisions that bring the history to the models, and try them before they are kept.

The story: build the history and the models in two scratch databases, compare them, ask for what a
person must decide, bring a copy of the history to the models stage by stage, write a file for each
transaction, and run each file up, down and up again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import URL, MetaData

from migrations.snapshot import Snapshot
from schema.errors import CannotRunError
from schema.generate import files as generated
from schema.postgres.connection import connect, describe_error
from schema.postgres.scratch import Server
from schema.postgres.signals import ignored
from schema.project import (
    FINGERPRINTS,
    MODELS_README,
    REVISIONS_DIR,
    SNAPSHOT,
    VERSION,
    scripts,
)
from schema.revision import files, sources, wording
from schema.revision.accepted import accept_findings
from schema.revision.decisions import Answers, require_answers, with_renames
from schema.revision.drafts import Drafts, write_drafts
from schema.revision.models import Schema, build, read, with_version_table
from schema.revision.probe import Probe
from schema.revision.trial import FailsOnRowsError, Filled, fill, try_files
from schema.revisions.history import read_heads
from schema.revisions.runner import upgrade
from schema.text import pluralize

GENERATED = (SNAPSHOT, FINGERPRINTS, VERSION, MODELS_README)
_NAMED = 3
"""Differences that a report names."""


@dataclass(frozen=True)
class Servers:
    """Where the scratch databases are made."""

    history: Server
    models: Server
    """Another one, because roles belong to a server: on one, a model's role would show twice."""


@dataclass(frozen=True)
class Request:
    """What an author asks for."""

    message: str
    why: str | None = None
    answers: Answers = field(default_factory=Answers)


@dataclass(frozen=True)
class Written:
    """What was compared, and what was written."""

    facts: int
    objects: int
    """How many facts of how many objects the models have: all of them were compared."""
    paths: tuple[Path, ...] = ()
    changes: tuple[str, ...] = ()
    """The objects and parts that differ, with a sign: + new, - gone, ~ changed."""
    notes: tuple[str, ...] = ()
    """What to look at, each a sentence."""


def write(
    servers: Servers,
    metadata: Sequence[MetaData],
    request: Request,
    progress: Callable[[str], None],
) -> Written:
    """Write the revisions; none if the history equals the models.

    Nothing is left behind if it is refused.

    Raises:
        UndecidedError: a person must decide something first.
        CannotRunError: the history or the models do not build, or no statement is known for a
            difference.

    """
    directory = scripts()
    heads = read_heads(directory)
    if len(heads) > 1:
        raise CannotRunError("The history has several heads; run schema rebase first.")
    head = heads[0] if heads else None
    with servers.history.database() as at_head:
        progress("history")
        history = _history(at_head, directory)
        before = history.facts
        progress("models")
        with servers.models.database() as empty:
            models = build(empty, metadata)
        target = with_version_table(models.facts, before)
        compared = len(target), len({fact.object for fact in target})
        if target == before:
            return Written(*compared)
        progress("drafts")
        with servers.history.database(at_head) as work:
            answers = with_renames(request.answers, metadata, before, target)
            drafts = _drafts(work, before, target, answers)
        orders = {**models.orders, **history.orders}
        written = sources.written(drafts, (orders, models.checks), request, (before, target))
        paths = files.write(written, head)
        try:
            progress("trial")
            filled = _filled(drafts, paths)
            failure = _try(servers.history, at_head, paths, (before, target), filled)
            progress("lint")
            with servers.history.database(at_head) as copy:
                found = accept_findings(copy, paths, rewrites=bool(answers.rewrites))
            progress("generated files")
            _refresh(servers.history)
        except BaseException:
            with ignored():
                files.remove(paths)
            raise
    open_findings = [f"{one.file}:{one.line}: scripts/lint finds {one.rule}" for one in found]
    notes = tuple(filter(None, (failure, *open_findings, *sources.notes(drafts, paths))))
    return Written(*compared, tuple(paths), tuple(wording.changes(before, target)), notes)


def _history(url: URL, directory: ScriptDirectory) -> Schema:
    with connect(url) as connection:
        try:
            upgrade(connection, directory)
        except Exception as error:  # a revision may raise anything
            raise CannotRunError(
                f"The history does not build ({describe_error(error)}); run schema check."
            ) from error
        connection.commit()
        return read(connection, version_table=True)


def _drafts(work: URL, before: Snapshot, target: Snapshot, answers: Answers) -> Drafts:
    """Bring a copy of the history to the models.

    Raises:
        CannotRunError: that is not possible with the statements that are known.

    """
    with connect(work) as connection, connection.begin() as transaction:
        require_answers(before, target, answers, Probe(connection).rewrites)
        drafts = write_drafts(connection, target, answers)
        transaction.rollback()
    if drafts.left:
        raise CannotRunError(
            "Nothing is written: there is no statement for a part of the difference. Write the"
            " revision by hand (alembic revision -m), or change the models (+):\n"
            f"{drafts.left}{_errors(drafts)}"
        )
    if drafts.not_reverted:
        raise CannotRunError(
            "Nothing is written: no downgrade brings this back. Write the revision by hand (alembic"
            f" revision -m):\n{drafts.not_reverted}"
        )
    return drafts


def _errors(drafts: Drafts) -> str:
    lines = [f"  {step.object}, {step.part}: {one}" for step, one in drafts.errors.items()]
    return "\n".join(("PostgreSQL says:", *lines)) if lines else ""


def _refresh(server: Server) -> None:
    """Rewrite the generated files, all or none."""
    before = {path: path.read_bytes() for path in GENERATED if path.is_file()}
    try:
        generated.rewrite(server)
    except BaseException:
        with ignored():
            for path, content in before.items():
                if path.read_bytes() != content:
                    path.write_bytes(content)
        raise


def _filled(drafts: Drafts, paths: Sequence[Path]) -> Filled:
    fills = ((path.name, draft.fill) for draft, path in zip(drafts.drafts, paths, strict=True))
    return {
        name: (fill.table.removeprefix("table "), fill.column)
        for name, fill in fills
        if fill is not None and fill.again
    }


def _try(
    server: Server,
    at_head: URL,
    paths: Sequence[Path],
    both: tuple[Snapshot, Snapshot],
    filled: Filled,
) -> str | None:
    """Try the files on rows, or without them; say on which rows they fail."""
    try:
        with server.database(at_head) as copy:
            fill(copy)
            try_files(copy, scripts(), paths, both, filled)
    except FailsOnRowsError as error:
        with server.database(at_head) as copy:
            try_files(copy, scripts(), paths, both, filled)
        return (
            f"Rows that are valid now stand in its way ({error}): change them first, in a revision"
            " of their own, or say in `assumes` that there are none."
        )
    return None


def report(done: Written) -> str:
    """Say in at most ten lines what was written, and what to look at."""
    compared = f"{pluralize(done.facts, 'fact')} of {pluralize(done.objects, 'object')}"
    if not done.paths:
        return f"Nothing to do: the migrations equal the models, in {compared}."
    changed = ", ".join(done.changes[:_NAMED])
    more = len(done.changes) - _NAMED
    count = pluralize(len(done.changes), "difference")
    rest = f" and {more} more" if more > 0 else ""
    lines = [
        f"{pluralize(len(done.paths), 'revision')} for {count} in {compared}: {changed}{rest}",
        *_cut([f"  {REVISIONS_DIR.name}/{path.name}" for path in done.paths], 5),
        *_cut([f"  → {note}" for note in done.notes], 4),
    ]
    return "\n".join(lines)


def _cut(lines: Sequence[str], most: int) -> list[str]:
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 1], f"  … and {len(lines) - most + 1} more"]
