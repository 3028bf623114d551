"""Try on a copy: the SQL that undoes differences, and the next deploy.

The copy is a scratch database with the history at one revision, changed until its schema is the
live database's. It has no rows, and the live database is not touched.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from migrations import snapshot
from migrations.snapshot import Fact, Snapshot, fingerprints
from migrations.snapshot.fingerprints import BASE, History
from schema.live.difference import Difference, Severity
from schema.live.differences import facts_of, find, ordered
from schema.live.history_schemas import Copy
from schema.live.read import Live
from schema.live.restored import restored_without_acl
from schema.live.sql import renames
from schema.live.sql.apply import Reached, reach
from schema.live.sql.definition import Names
from schema.live.sql.renames import Rename
from schema.live.sql.steps import Step
from schema.postgres.connection import connect, describe_error
from schema.revisions.runner import upgrade

_IN_THE_WAY = ("table", "view", "function", "type", "sequence", "schema", "domain")
"""Kinds of objects that a revision may meet."""

_OWN_NAMES = """
SELECT quote_ident(datname), quote_ident(pg_get_userbyid(datdba))
FROM pg_database WHERE datname = current_database()
"""


@dataclass(frozen=True)
class Repair:
    """What differs, and the SQL that undoes it."""

    differences: Sequence[Difference]
    """The worst first; those that no tried statement undoes have no SQL."""
    script: str
    """All statements, in one transaction, in an order that works; '' if there are none."""
    renamed: Collection[str] = ()
    """The objects that have another name in the history."""


def try_repair(copy: Copy, expected: Snapshot, live: Live, owned: Collection[str]) -> Repair:
    """Find the differences of a live schema, and try their SQL on a copy.

    `copy` is a database whose schema is `expected`; it is left as it is. `owned` are the objects to
    compare, named as in fingerprints.txt.
    """
    with connect(copy.superuser) as connection, connection.begin() as transaction:
        names = own_names(connection)
        renamed = imitate(connection, live, names)
        ours = tuple(one for one in renamed if _name_of(one) in owned)
        for one in ours:
            connection.exec_driver_sql(one.back.replace("%", "%%"))
        now = snapshot.read(connection, version_table=True)
        others = {name for name in _names(now) if name not in owned}
        target = tuple(sorted((*facts_of(expected, owned), *facts_of(now, others))))
        result = reach(connection, target, names, live.names)
        reached = snapshot.read(connection, version_table=True)
        transaction.rollback()
    differences = [_rename(one) for one in ours]
    wrong = set(target) ^ set(reached)
    differences += [_with_sql(one, result, wrong) for one in find(expected, now, owned)]
    steps = [step for step in result.taken if not _is_wrong(step.object, step.part, wrong)]
    renamed_to = {f"table {one.new}" for one in ours if not one.part}
    restored = restored_without_acl(expected, live.facts, live.names.database.strip('"'))
    if restored is not None:
        place = (restored.object, restored.part)
        differences = [
            replace(one, sentence=restored.sentence) if (one.object, one.part) == place else one
            for one in differences
        ]
    return Repair(ordered(differences), _script(ours, steps), renamed_to)


def try_deploy(
    copy: Copy, live: Live, scripts: ScriptDirectory, history: History
) -> tuple[str | None, list[str]]:
    """Run the pending revisions on a copy, and compare what the history owns afterwards.

    Return what goes wrong, None if nothing does, and the objects that the copy could not be given.
    `copy` is a database with the history at the live database's revision, or BASE. It is changed.
    """
    names = list(history)
    at = live.recorded.revisions[0] if live.recorded.revisions else BASE
    with connect(copy.superuser) as connection:
        with connection.begin():
            before = snapshot.read(connection, version_table=True)
            # A deploy pins what a setting of the database could change.
            facts = tuple(one for one in live.facts if not _is_setting(one))
            valid, invalid = _split_invalid(facts, before)
            imitate(connection, replace(live, facts=valid), own_names(connection))
        missed = _missed(connection, valid)
    with connect(copy.owner) as connection:
        try:
            upgrade(connection, scripts, names[names.index(at) + 1 :])
        except Exception as error:  # noqa: BLE001  # a revision may raise anything
            return f"a revision fails: {describe_error(error)}", missed
        connection.commit()
        after = snapshot.read(connection, version_table=True)
    result = fingerprints.compare(history, names[-1], fingerprints.fingerprint(after))
    built = {fact[:2] for fact in after}
    left = {fact.object for fact in invalid if fact[:2] not in built}
    if differing := sorted({*result.differing, *left}):
        return f"these objects would differ from the history: {', '.join(differing)}", missed
    return None, missed


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


def _missed(connection: Connection, facts: Snapshot) -> list[str]:
    """Return the objects that the copy does not have as they are in the live schema."""
    found = fingerprints.fingerprint(snapshot.read(connection, version_table=True))
    wanted = fingerprints.fingerprint(facts)
    return sorted(
        name
        for name, value in wanted.items()
        if found.get(name) != value and name.partition(" ")[0] in _IN_THE_WAY
    )


def imitate(connection: Connection, live: Live, names: Names) -> Sequence[Rename]:
    """Give a copy of the history the live schema, as far as that is possible.

    Return what was renamed for it.
    """
    done: list[Rename] = []
    for find_renames in (renames.tables, renames.columns):
        now = snapshot.read(connection, version_table=True)
        ours = renames.read_attributes(connection)
        found = list(find_renames(now, live.facts, ours, live.attributes))
        for one in found:
            connection.exec_driver_sql(one.there.replace("%", "%%"))
        done += found
    now = snapshot.read(connection, version_table=True)
    for one in renames.parts(now, live.facts):
        connection.exec_driver_sql(one.there.replace("%", "%%"))
        done.append(one)
    reach(connection, live.facts, names)
    return done[::-1]


def own_names(connection: Connection) -> Names:
    """Return the names of the connection's database and of its owner."""
    return Names(*connection.exec_driver_sql(_OWN_NAMES).one())


def _names(facts: Snapshot) -> set[str]:
    return {snapshot.fingerprints.object_name(one) for one in facts}


def _name_of(rename: Rename) -> str:
    return rename.object


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

    def mine(steps: Iterable[Step]) -> list[Step]:
        return [
            step
            for step in steps
            if step.object == difference.object and difference.part in {"", step.part}
        ]

    if _is_wrong(difference.object, difference.part, wrong):
        errors = [result.errors[step] for step in mine(result.errors)]
        return replace(difference, obstacle=errors[0] if errors else None)
    statements = [one for step in mine(result.taken) for one in step.statements]
    sql = "\n".join(f"{one};" for one in statements)
    return replace(difference, sql=sql or None)


def _is_wrong(heading: str, part: str, wrong: Collection[Fact]) -> bool:
    return any(fact.object == heading and part in {"", fact.part} for fact in wrong)


def _script(renamed: Sequence[Rename], steps: Sequence[Step]) -> str:
    statements = [one.back for one in renamed]
    statements += [statement for step in steps for statement in step.statements]
    if not statements:
        return ""
    lines = ["BEGIN", "SET LOCAL lock_timeout = '5s'", "SET LOCAL row_security = off"]
    return "\n".join(f"{one};" for one in (*lines, *statements, "COMMIT")) + "\n"
