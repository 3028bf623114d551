"""`schema doctor`: find what to fix in a database, a server or a URL before a deploy; only reads.

It runs the deploy's own preflight checks, and others that a deploy runs too late or never.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from alembic.script import ScriptDirectory
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from migrations import snapshot
from migrations.deploy import preflight, verification
from migrations.postgres import first_error_line
from migrations.snapshot import fingerprints
from migrations.snapshot.fingerprints import BASE, History
from schema.live import (
    comparison,
    differences,
    drift,
    environment,
    history_schemas,
    read,
    trial,
)
from schema.live.comparison import Comparison
from schema.live.difference import Difference
from schema.live.differences import find
from schema.live.environment import Check
from schema.live.read import Live
from schema.text import capitalized, pluralize

MAX_NAMED = 5
"""How many differences a check names."""

type Progress = Callable[[str], None]


@dataclass(frozen=True)
class Examination:
    """The results that do not need the built history."""

    checks: Sequence[Check]
    live: Live | None
    """The schema to compare with the history; None if it could not be read."""
    history: History


def examine(target: URL, scripts: ScriptDirectory) -> Examination:
    """Run every check that does not need the built history.

    Raises:
        CannotRunError: the database cannot be reached or read, or the history cannot be read.

    """
    history = history_schemas.committed(scripts)
    known = [name for name in history if name != BASE]

    def preflight_problems(connection: Connection) -> tuple[list[str], list[str]]:
        def row_security() -> Iterator[str]:
            pending = preflight.recorded_revisions(connection) != known[-1:]
            return preflight.check_row_security(connection, pending=pending)

        server_problems = _problems(connection, lambda: preflight.check_server(connection))
        revision_problems = _problems(
            connection, lambda: preflight.check_revision(connection, scripts)
        )
        if not server_problems and not revision_problems:
            server_problems = _problems(connection, row_security)
        return server_problems, revision_problems

    # check_server reports read-only transactions, so it must not run in one.
    server_problems, revision_problems = read.read(target, preflight_problems, read_only=False)
    role, checks = read.read(target, lambda one: environment.examine(one, target, server_problems))
    if role is None:
        return Examination(checks, None, history)
    if not role.sees:
        unread = Check("revision", "not readable", revision_problems)
        return Examination([*checks, unread], None, history)
    live, judged = drift.read_judged(target, fingerprints.owned(history))
    checks += [_contents(live, known, revision_problems), _beside(judged)]
    return Examination(checks, live, history)


def compared(examined: Examination, scripts: ScriptDirectory, progress: Progress) -> list[Check]:
    """Compare the schema with the history, and try the next deploy on a copy where they differ.

    Raises:
        CannotRunError: the history does not build.

    """
    live, history = examined.live, examined.history
    revision = next((one for one in examined.checks if one.name == "revision"), None)
    if live is None or live.recorded.unreadable is not None:
        return []
    live = _with_rebuilt_indexes(live)
    found = comparison.compare(live, history)
    others = _others(live, found)
    if found.revision is None and (live.recorded.revisions or found.nearest != BASE):
        return [_wrong_record(found), others]
    at = found.revision or BASE
    differs = found.nearest != at or bool(found.objects.differing)
    schema = f"as the history builds it at {at}" if not differs else comparison.verdict(found)
    if not found.behind:
        return [Check("schema", schema, _nothing_to_apply(found) if differs else ()), others]
    if revision is not None and revision.fix:
        return [Check("schema", schema), others]
    with (
        history_schemas.open_closest_server(live, progress) as server,
        history_schemas.at_revision(server, scripts, at) as copy,
    ):
        progress("the next deploy, on a copy")
        problem, untried = trial.try_deploy(copy, live, scripts, history)
    said = find(copy.schema, live.facts, fingerprints.owned(history)) if differs else []
    notes = [f"{capitalized(one.sentence)}." for one in said[:MAX_NAMED]]
    if found.record_differs and found.recorded.revisions:
        notes = [f"{comparison.sentence(found)}. {comparison.remedy(found)}"]
    next_deploy = _next_deploy(found, problem, untried)
    return [Check("schema", schema, notes=notes), others, next_deploy]


def _with_rebuilt_indexes(live: Live) -> Live:
    """Return the schema as a deploy leaves it, which rebuilds the invalid indexes of schema.txt."""
    committed = verification.committed_schema()

    def rebuilt(fact: snapshot.Fact) -> snapshot.Fact:
        name = fact.part.removeprefix("index ")
        if fact.part.startswith("index ") and preflight.is_committed(name, committed):
            return fact._replace(definition=fact.definition.replace("  INVALID", "", 1))
        return fact

    return replace(live, facts=tuple(map(rebuilt, live.facts)))


def _others(live: Live, found: Comparison) -> Check:
    """Name what no revision has, and note what of it changes who may read our rows."""
    foreign = drift.not_ignored(found)
    alarming = differences.alarming(live.facts, found.objects.foreign)
    notes = [
        f"{name} changes who may read or write our rows: see schema drift."
        for name in sorted(alarming)
    ]
    return Check("other objects", verification.named(foreign) or "none", notes=notes)


def _wrong_record(found: Comparison) -> Check:
    """Say which revision the schema has, where none or no single one is recorded."""
    if found.recorded.revisions:
        sentence = f"{comparison.sentence(found)}. {comparison.remedy(found)}"
        return Check("schema", comparison.verdict(found), [sentence])
    return Check("schema", comparison.verdict(found))  # the revision's check says to adopt it


def _nothing_to_apply(found: Comparison) -> list[str]:
    """Say why a deploy that applies nothing ends with exit code 3."""
    if found.record_differs:
        return [f"{comparison.sentence(found)}. {comparison.remedy(found)}"]
    what = verification.differ(found.objects.differing)
    return [
        f"A deploy would apply nothing and end with exit code 3: {what} from the history."
        " schema drift shows what differs, and the SQL that undoes it."
    ]


def _next_deploy(found: Comparison, problem: str | None, untried: Sequence[str]) -> Check:
    """Report what the next deploy did on a copy of the schema, without rows."""
    notes = []
    if untried:
        notes.append(f"The copy lacked {verification.named(untried)}, so it says nothing of that.")
    if problem is None:
        found_there = "tried on a copy without rows: it ends as it should"
        return Check("next deploy", found_there, notes=notes)
    sentence = f"Tried on a copy of the schema, {problem.rstrip('.')}."
    if found.record_differs and found.recorded.revisions:
        sentence += f" {comparison.sentence(found)}. {comparison.remedy(found)}"
    elif not found.objects.differing and not found.objects.foreign:
        sentence += " Correct the revision, or revert what added it."
    elif found.objects.differing:
        sentence += " schema drift shows what differs now, and the SQL that undoes it."
    else:
        sentence += (
            " Move or rename what stands in its way, if it is not needed where it is; the other"
            " objects are not the history's."
        )
    return Check("next deploy", "it fails on a copy without rows", [sentence], notes)


def ready(checks: Iterable[Check]) -> bool:
    """Whether a deploy may start."""
    return all(check.ready for check in checks)


def _problems(connection: Connection, check: Callable[[], Iterator[str]]) -> list[str]:
    """Return the messages of a preflight check. A missing privilege is a problem too."""
    problems: list[str] = []
    try:
        with connection.begin_nested():
            problems.extend(check())
    except DBAPIError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        problems.append(
            f"The role lacks a privilege: {first_error_line(error)}; connect as the owner."
        )
    return problems


def _beside(judged: Sequence[Difference]) -> Check:
    """Note what the logins and the platform can do: a deploy does not depend on it."""
    found = f"{pluralize(len(judged), 'thing')} to look at" if judged else "nothing to look at"
    notes = [f"{capitalized(one.sentence)}." for one in judged]
    return Check("logins and platform", found, notes=notes)


def _contents(live: Live, known: Sequence[str], revision_problems: Sequence[str]) -> Check:
    """Check the recorded revision."""
    recorded = live.recorded
    at = recorded.revisions[0] if len(recorded.revisions) == 1 else None
    if recorded.unreadable is not None:
        found = "not readable"
    elif at in known:
        behind = len(known) - 1 - known.index(at)
        found = f"at {at}; {history_schemas.describe_distance(known[-1], behind)}"
    elif recorded.revisions:
        found = f"at {', '.join(recorded.revisions)}"
    else:
        found = "empty: the first deploy builds everything"
        if revision_problems:
            found = "the history's tables without a revision"
    return Check("revision", found, revision_problems)
