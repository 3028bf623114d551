"""Try on a copy: the SQL that undoes differences, and the next deploy.

The copy is a scratch database with the history at one revision, changed until its schema is the
live database's. It has no rows, and the live database is not touched.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from migrations import snapshot
from migrations.deploy.own_transaction import watch_transaction
from migrations.snapshot import Fact, Snapshot, fingerprints
from migrations.snapshot.fingerprints import BASE, History
from schema.ddl import renames
from schema.ddl.apply import (
    Reached,
    Sessions,
    execute,
    execute_single,
    own_names,
    reach,
)
from schema.ddl.definition import Names, schema_prefix
from schema.ddl.renames import Rename
from schema.ddl.steps import Step, steps
from schema.live.difference import Difference, Severity
from schema.live.differences import facts_of, find, ordered
from schema.live.history_schemas import Copy
from schema.live.read import Live
from schema.live.restored import restored_without_acl
from schema.postgres.connection import connect, describe_error
from schema.revisions.history import revisions_oldest_first
from schema.revisions.runner import run, upgrade_step

_NO_STATEMENT = "no statement is known that is safe"

_IN_THE_WAY = ("table", "view", "function", "type", "sequence", "schema", "domain")
"""Kinds of objects that a revision may meet."""


@dataclass(frozen=True)
class Repair:
    """What differs, and the SQL that undoes it."""

    differences: Sequence[Difference]
    """The worst first; those that no tried statement undoes have no SQL."""
    script: str
    """All statements, in one transaction, in an order that works; '' if there are none."""
    renamed: Collection[str] = ()
    """The objects that have another name in the history."""


def try_repair(copy: Copy, live: Live, owned: Collection[str]) -> Repair:
    """Find the differences of a live schema, and try their SQL on a copy.

    `copy` is changed. `owned` are the objects to compare, named as in fingerprints.txt.
    """
    expected = copy.schema
    with _sessions(copy) as sessions:
        names = own_names(sessions.owner)
        with sessions.owner.begin():
            taken = renames.taken(renames.read_attributes(sessions.owner), live.attributes)
        renamed = imitate(sessions, live, names)
        missed = _missed(sessions.owner, facts_of(live.facts, owned), owned)
        ours = [one for one in renamed if one.object in owned]
        for one in ours:
            execute(sessions.owner, one.back)
        now = snapshot.read(sessions.owner, version_table=True)
        others = {fingerprints.object_name(one) for one in now}.difference(owned)
        target = tuple(sorted((*facts_of(expected, owned), *facts_of(now, others))))
        result = reach(sessions, target, names, live.names)
        wrong = set(target) ^ set(snapshot.read(sessions.owner, version_table=True))
    tried = [_with_sql(one, result, wrong) for one in find(expected, now, owned)]
    places = {(one.object, one.part) for one in tried}
    differences = [
        *map(_rename, ours),
        *tried,
        # The copy does not have them, so no SQL could be tried.
        *(
            replace(one, obstacle=_advice(one, expected))
            for one in find(expected, live.facts, owned)
            if (one.object, one.part) not in places
            and any(heading == one.object and one.part in {"", part} for heading, part in missed)
        ),
    ]
    restored = restored_without_acl(expected, live.facts, _unquoted(live.names.database))
    if restored is not None:
        differences = [
            replace(one, sentence=restored.sentence)
            if (one.object, one.part) == (restored.object, restored.part)
            else one
            for one in differences
        ]
    differences = [_keep(one, taken.get((one.object, one.part))) for one in differences]
    good = [
        step
        for step in result.taken
        if not _is_wrong(step.object, step.part, wrong) and (step.object, step.part) not in taken
    ]
    renamed_to = {f"table {one.new}" for one in ours if not one.part}
    return Repair(ordered(differences), _script(ours, good), renamed_to)


def try_deploy(
    copy: Copy, live: Live, scripts: ScriptDirectory, history: History
) -> tuple[str | None, list[str]]:
    """Run the pending revisions on a copy, and compare what the history owns afterwards.

    Return what goes wrong, None if nothing does, and the objects that the copy could not be given.
    `copy` is a database with the history at the live database's revision, or BASE. It is changed.
    """
    revisions = list(history)
    at = live.recorded.revisions[0] if live.recorded.revisions else BASE
    with _sessions(copy) as sessions:
        # A deploy pins what a setting of the database could change.
        facts = tuple(one for one in live.facts if not _is_setting(one))
        valid, invalid = _split_invalid(facts, copy.schema)
        names = own_names(sessions.owner)
        imitate(sessions, replace(live, facts=valid), names)
        missed = sorted({heading for heading, _ in _missed(sessions.owner, valid)})
        # Last, because they run functions of the live database at every statement that follows:
        # only the owner's session executes any.
        found = snapshot.read(sessions.owner, version_table=True)
        for step in steps(found, valid, names):
            if step.object.startswith("event trigger ") and sessions.superuser is not None:
                execute_single(sessions.superuser, step.statements)
    with connect(copy.owner) as connection:
        try:
            _run(connection, scripts, revisions[revisions.index(at) + 1 :])
        except Exception as error:  # noqa: BLE001  # a revision may raise anything
            return f"a revision fails: {describe_error(error)}", missed
        connection.commit()
        after = snapshot.read(connection, version_table=True)
    result = fingerprints.compare(history, revisions[-1], fingerprints.fingerprint(after))
    built = {fact[:2] for fact in after}
    left = {fact.object for fact in invalid if fact[:2] not in built}
    if differing := sorted({*result.differing, *left}):
        return f"these objects would differ from the history: {', '.join(differing)}", missed
    return None, missed


def _run(connection: Connection, scripts: ScriptDirectory, pending: Collection[str]) -> None:
    """Run revisions as a deploy does: one that ends its own transaction fails."""
    with watch_transaction(connection) as own:

        def upgrades(_context: MigrationContext) -> Iterator[MigrationStep]:
            for revision in revisions_oldest_first(scripts):
                if revision.revision in pending:
                    own.begin()
                    yield upgrade_step(scripts, revision)
                    own.end()

        run(connection, scripts, upgrades)


def _is_setting(fact: Fact) -> bool:
    return fact.object == "database" and fact.part.startswith("setting ")


def _split_invalid(live: Snapshot, history: Snapshot) -> tuple[Snapshot, Snapshot]:
    """Split off the invalid indexes, which no statement makes on a copy.

    A deploy rebuilds those that the history has, so they are valid on the copy; it drops the others
    where a revision builds them, and leaves the rest.
    """
    known = {fact[:2]: fact for fact in history}
    kept, split = [], []
    for fact in live:
        if not (fact.part.startswith("index ") and "INVALID" in fact.definition.split("  ")):
            kept.append(fact)
        elif fact[:2] in known:
            kept.append(known[fact[:2]])
        else:
            split.append(fact)
    return tuple(kept), tuple(split)


def _missed(
    connection: Connection, wanted: Snapshot, owned: Collection[str] | None = None
) -> set[tuple[str, str]]:
    """Return the objects and parts that the copy does not have as they are in the live schema.

    Without `owned`, of all objects that a revision may meet.
    """
    found = snapshot.read(connection, version_table=True)
    if owned is not None:
        found = facts_of(found, owned)
    return {
        fact[:2]
        for fact in set(found) ^ set(wanted)
        if owned is not None or fact.object.partition(" ")[0] in _IN_THE_WAY
    }


@contextmanager
def _sessions(copy: Copy) -> Iterator[Sessions]:
    """Connect to a copy. What is done there is committed: the copy is dropped afterwards."""
    with connect(copy.owner) as owner, connect(copy.superuser, autocommit=True) as superuser:
        yield Sessions(owner, superuser)


def imitate(sessions: Sessions, live: Live, names: Names) -> Sequence[Rename]:
    """Give a copy of the history the live schema, as far as that is possible.

    Return what was renamed for it, in the order in which it must be undone. Event triggers are left
    out.
    """
    done: list[Rename] = []
    for find_renames in (renames.tables, renames.columns):
        now = snapshot.read(sessions.owner, version_table=True)
        with sessions.owner.begin():
            ours = renames.read_attributes(sessions.owner)
        done += _renamed(sessions, list(find_renames(now, live.facts, ours, live.attributes)))
    now = snapshot.read(sessions.owner, version_table=True)
    done += _renamed(sessions, list(renames.parts(now, live.facts)))
    quiet = tuple(one for one in live.facts if not one.object.startswith("event trigger "))
    reach(sessions, quiet, names)
    return done[::-1]


def _renamed(sessions: Sessions, found: Iterable[Rename]) -> Iterator[Rename]:
    for one in found:
        execute(sessions.owner, one.there)
        yield one


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _keep(difference: Difference, former: str | None) -> Difference:
    """Offer no SQL that drops a column which holds another one's former values."""
    if former is None:
        return difference
    why = f"it was {former}, whose name another column has now; rename both by hand"
    return replace(difference, sql=None, obstacle=why)


def _advice(difference: Difference, expected: Snapshot) -> str:
    """Say how to undo a difference that no copy can be given: an invalid index."""
    if "INVALID" not in (difference.found or "").split("  "):
        return "a copy could not be given it, so no statement was tried"
    prefix = schema_prefix(difference.object.partition(" ")[2])
    index = prefix + difference.part.removeprefix("index ")
    if (difference.object, difference.part) in {fact[:2] for fact in expected}:
        return f"deploy, which rebuilds it, or REINDEX INDEX CONCURRENTLY {index}"
    return f"DROP INDEX CONCURRENTLY {index}, if no session builds it any more"


def _rename(one: Rename) -> Difference:
    what = f"{one.part} of {one.object}" if one.part else one.object
    if one.part.startswith("column "):
        what = f"column {one.object.removeprefix('table ')}.{one.old}"
    holds_rows = not one.part or one.part.startswith("column ")
    severity = Severity.DATA if holds_rows else Severity.BEHAVIOUR
    said = f"{what} was renamed to {one.new}"
    return Difference(one.object, one.part, one.old, one.new, severity, said, f"{one.back};")


def _with_sql(difference: Difference, result: Reached, wrong: Collection[Fact]) -> Difference:
    """Add the SQL, if it did what it should, or else what stood in its way."""

    def mine(tried: Iterable[Step]) -> list[Step]:
        return [
            step
            for step in tried
            if step.object == difference.object and difference.part in {"", step.part}
        ]

    if _is_wrong(difference.object, difference.part, wrong):
        errors = [result.errors[step] for step in mine(result.errors)]
        return replace(difference, obstacle=errors[0] if errors else _NO_STATEMENT)
    statements = [one for step in mine(result.taken) for one in step.statements]
    sql = "\n".join(f"{one};" for one in statements)
    return replace(difference, sql=sql or None)


def _is_wrong(heading: str, part: str, wrong: Collection[Fact]) -> bool:
    return any(fact.object == heading and part in {"", fact.part} for fact in wrong)


def _script(renamed: Sequence[Rename], taken: Sequence[Step]) -> str:
    statements = [one.back for one in renamed]
    statements += [statement for step in taken for statement in step.statements]
    if not statements:
        return ""
    settings = ("lock_timeout = '5s'", "row_security = off", "search_path = public, pg_temp")
    lines = ["BEGIN", *(f"SET LOCAL {one}" for one in settings)]
    return "\n".join(f"{one};" for one in (*lines, *statements, "COMMIT")) + "\n"
