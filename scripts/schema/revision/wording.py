"""What a revision says about itself: its title, its reason, what it assumes of rows and loses."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from migrations.snapshot import Fact, Snapshot
from schema.ddl.definition import by_part, column, split_comment, standing_alone
from schema.ddl.steps import Step
from schema.revision.code.columns import reference
from schema.revision.code.literals import NAME, dotted, plain, split, unquoted
from schema.revision.drafts import Draft

_LATER_BECAUSE = {
    "values": "a new value can be used only after the transaction that adds it",
    "indexes": "an index is built without a lock that stops writes only outside of a transaction",
    "switch": "what it needs is built by now, so that it holds its lock for a moment only",
    "require": "an UPDATE of a row without a value would fail before the rows are filled",
    "fill": "the rows that are older than the column need a value too",
    "refill": "rows may have come without a value before one was required",
    "validate": "rows are checked without a lock that stops writes, in a transaction of its own",
    "attach": "what it needs is there by now, so that it holds its lock for a moment only",
    "contract": "no release uses what it drops",
}
_UNIQUE = re.compile(
    r"CREATE UNIQUE INDEX .+? USING btree \((?P<elements>.+?)\)(?: INCLUDE \([^()]+\))?"
    r"(?: NULLS NOT DISTINCT)?(?: WITH \([^()]+\))?(?: WHERE (?P<where>.+))?",
    re.DOTALL,
)
_NOT_NULL = re.compile(rf"\(?(?P<column>{NAME}) IS NOT NULL\)?")
_REQUIRES = re.compile(rf"CHECK \(\(?(?P<column>{NAME}) IS NOT NULL\)?\) NOT VALID")
_EQUALS = re.compile(
    r"WHERE \((?:o\.other_\d+(?:, )?)+\) = \((?P<columns>.+?)\) AND o\.other_row <"
)
_ORDER = re.compile(r"(?: \w+_ops)?(?: DESC| ASC)?(?: NULLS (?:FIRST|LAST))?$")
_VALUE = re.compile(rf"{NAME}|{NAME}\(.+\)|\(.+\)", re.DOTALL)


def title(draft: Draft) -> str:
    """Return what a draft does, in the imperative."""
    if draft.fill is not None:
        again = " again" if draft.stage == "refill" else ""
        filled = ", ".join(dotted(draft.fill.table, one) for one in draft.fill.columns)
        return f"Fill {filled}{again}"
    parts = list(dict.fromkeys(name_of(step.object, step.part) for step in draft.upgrade))
    names = ", ".join(parts[:3]) + (", …" if len(parts) > 3 else "")
    if draft.stage == "validate" and all(one.part.startswith("index ") for one in draft.upgrade):
        return f"Build {names}"
    verb = {
        "values": "Add values to",
        "indexes": "Build",
        "switch": "Require" if _requires_key(draft) else "Replace",
        "require": "Require",
        "validate": "Validate",
        "attach": "Drop" if _only_drops(draft) else "Require",
        "contract": "Drop",
    }.get(draft.stage, "Change")
    return f"{verb} {names}"


def reason(draft: Draft, message: str) -> str:
    """Return why a draft is a revision of its own."""
    because = _LATER_BECAUSE.get(draft.stage, "the change takes several transactions")
    if draft.stage == "require" and all(map(_is_reference, draft.upgrade)):
        because = "the key that it needs is there by now"
    return f'it is a part of "{message}"; {because}.'


def _is_reference(step: Step) -> bool:
    return any(" FOREIGN KEY " in sql for sql in step.statements)


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """Name the objects and parts that differ, with a sign: + new, - gone, ~ changed."""
    old, new = by_part(before), by_part(after)
    headings = [{one for one, _ in facts} for facts in (old, new)]
    found: dict[str, None] = {}
    for heading, part in sorted(old.keys() ^ new.keys() | {k for k in old if k in new}):
        key = (heading, part)
        if old.get(key) == new.get(key):
            continue
        if heading not in headings[0]:
            found[f"+ {heading}"] = None
        elif heading not in headings[1]:
            found[f"- {heading}"] = None
        else:
            sign = "~" if key in old and key in new else "+" if key in new else "-"
            found[f"{sign} {heading}, {part}"] = None
    return list(found)


@dataclass(frozen=True)
class Columns:
    """The columns of a change, by table and part."""

    valued: Collection[tuple[str, str]] = ()
    """Those that had values, or got them, before a constraint of them was added."""
    refilled: Collection[tuple[str, str]] = ()
    """Those that are filled again when a value is required of them."""
    given: Collection[tuple[str, str]] = ()
    """Those to which a default or a trigger gives a value from the start."""
    empty: Collection[tuple[str, str]] = ()
    """New ones in which each row has NULL."""


def is_empty(definition: str) -> bool:
    """Whether a new column has no value in the rows that exist."""
    found = column(definition)
    return bool(found) and not any(found[one] for one in ("default", "generated", "identity"))


def assumptions(draft: Draft, columns: Columns) -> dict[str, str]:
    """Return the condition that the rows of each table must meet, or the draft fails on them."""
    found: dict[str, list[str]] = {}
    old, after = by_part(draft.before), by_part(draft.after)
    for fact in draft.after:
        was = old.get((fact.object, fact.part))
        if not fact.object.startswith("table ") or was == fact.definition:
            continue
        if (fact.object, "owner") not in old:
            continue
        condition = _condition(fact.object, split_comment(fact.definition)[0], was, after)
        if condition is None or _is_met(fact, condition, columns):
            continue
        found.setdefault(unquoted(fact.object.removeprefix("table ")), []).append(condition)
    return {table: " AND ".join(_bracketed(found[table])) for table in found}


def _is_met(fact: Fact, condition: str, columns: Columns) -> bool:
    """Whether no row can fail to meet a condition."""
    if fact.definition.startswith("CREATE UNIQUE INDEX "):
        is_distinct = " NULLS NOT DISTINCT" not in fact.definition
        return is_distinct and _names_column(fact.object, condition, columns.empty)
    if not fact.definition.startswith("CHECK "):
        return False
    required = _NOT_NULL.fullmatch(condition)
    if required and (fact.object, f"column {required['column']}") in columns.refilled:
        return True
    return not _names_column(fact.object, condition, columns.valued)


def _names_column(heading: str, condition: str, columns: Collection[tuple[str, str]]) -> bool:
    names = [part.removeprefix("column ") for of, part in columns if of == heading]
    return bool(names) and standing_alone(names).search(condition) is not None


def stops_null(step: Step, columns: Columns) -> str | None:
    """Return the column into which a step stops NULL, although a running release may write it."""
    for sql in step.statements:
        found = _REQUIRES.search(sql)
        if found and (step.object, f"column {found['column']}") not in columns.given:
            return dotted(step.object, found["column"])
    return None


def obstacle(table: str, condition: str) -> str:
    """Say which rows a revision fails on."""
    if found := _EQUALS.search(condition):
        return f"fails if two rows of {table} have the same {found['columns']}"
    return f"fails on rows of {table} that do not meet: {condition}"


def losses(draft: Draft) -> Iterator[str]:
    """Name the tables and columns that a draft drops, or converts, with what is in them."""
    after = by_part(draft.after)
    for fact in draft.before:
        now = after.get((fact.object, fact.part))
        if fact.object.startswith("table ") and fact.part.startswith("column ") and now:
            was, becomes = (column(one) for one in (fact.definition, now))
            if was and becomes and any(was[one] != becomes[one] for one in ("type", "generated")):
                yield dotted(fact.object, fact.part.removeprefix("column "))
    tables = {one.object for one in draft.before if one.object.startswith("table ")}
    for heading in sorted(tables):
        if (heading, "owner") not in after:
            yield plain(heading)
            continue
        for fact in draft.before:
            key = (fact.object, fact.part)
            if fact.object == heading and fact.part.startswith("column ") and key not in after:
                yield dotted(heading, fact.part.removeprefix("column "))


def _condition(
    heading: str, body: str, was: str | None, facts: Mapping[tuple[str, str], str]
) -> str | None:
    """Return the condition of a constraint that is validated, or of a new unique index."""
    if body.startswith("CHECK ") and not body.endswith(" NOT VALID"):
        is_validated = was is None or split_comment(was)[0].endswith(" NOT VALID")
        if is_validated:
            return body.removeprefix("CHECK ").removesuffix(" NO INHERIT")
    key = reference(body)
    if key is not None and not key["later"]:
        target = ".".join(str(key[one]) for one in ("schema", "table") if key[one])
        names = split(str(key["referred"]))
        referred = ", ".join(f"r.{one}" for one in names)
        definitions = (facts.get((f"table {target}", f"column {one}"), "") for one in names)
        # With a NULL among them, IN is never false.
        are_there = all("  not null" in one for one in definitions)
        known = "" if are_there else f" WHERE ({referred}) IS NOT NULL"
        return f"({key['columns']}) IN (SELECT {referred} FROM {target} AS r{known})"
    if body.startswith("CREATE UNIQUE INDEX ") and was is None:
        return _uniqueness(heading.removeprefix("table "), body)
    return None


def _uniqueness(table: str, created: str) -> str | None:
    """Return the condition that no earlier row has the values of a unique index."""
    found = _UNIQUE.fullmatch(created)
    elements = split(found["elements"]) if found else []
    values = [_ORDER.sub("", one) for one in elements]
    if found is None or not all(_VALUE.fullmatch(one) for one in values):
        return None
    named = ", ".join(f"{value} AS other_{number}" for number, value in enumerate(values))
    others = ", ".join(f"o.other_{number}" for number, _ in enumerate(values))
    where = f" WHERE {found['where']}" if found["where"] else ""
    condition = (
        f"NOT EXISTS (SELECT FROM (SELECT ctid AS other_row, {named} FROM {table}{where}) AS o"
        f" WHERE ({others}) = ({', '.join(values)}) AND o.other_row < {table}.ctid)"
    )
    return f"({found['where']}) IS NOT TRUE OR {condition}" if found["where"] else condition


def _bracketed(conditions: list[str]) -> list[str]:
    return conditions if len(conditions) == 1 else [f"({one})" for one in conditions]


def _only_drops(draft: Draft) -> bool:
    left = by_part(draft.after)
    return not any((step.object, step.part) in left for step in draft.upgrade)


def _requires_key(draft: Draft) -> bool:
    return any(step.part.startswith("constraint ") for step in draft.upgrade)


def name_of(heading: str, part: str) -> str:
    """Return what a step changes, as people name it: `todo.priority`, `todo_priority_idx`."""
    if not part:
        return plain(heading)
    word, _, name = part.partition(" ")
    if word == "column":
        return dotted(heading, name)
    named = word in {"constraint", "index", "trigger", "policy", "rule"}
    return unquoted(name) if named else plain(heading)


def summary(before: Snapshot, after: Snapshot) -> str:
    """Return what differs, in one clause."""
    words: Mapping[str, str] = {"+": "new", "-": "gone", "~": "changed"}
    named = [f"{one[2:]} ({words[one[0]]})" for one in changes(before, after)]
    return "; ".join(named[:3]) + ("; …" if len(named) > 3 else "")
