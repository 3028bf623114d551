"""The schemas on the way from one to another, so that every step is safe for a table in use.

A step that has to look at rows is separated from the lock that it would hold meanwhile: an index is
built concurrently, a CHECK or a FOREIGN KEY is added NOT VALID and validated later, NOT NULL relies
on a validated CHECK, a UNIQUE key takes an index that exists, a changed index is built beside the
one in use, and what is dropped goes last. The rules are those of migrations/README.md, "Changing a
table that is in use".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from migrations.snapshot import Fact, Snapshot
from schema.ddl.definition import by_part, column, schema_prefix, split_comment
from schema.ddl.steps import Step, renamed_parts
from schema.revision.code.columns import reference
from schema.revision.code.literals import split
from schema.revision.decisions import Answers, Facts, Rewrites

type Name = Literal[
    "values", "expand", "indexes", "switch", "fill", "require", "validate", "attach", "contract"
]
type Key = tuple[str, str]
"""An object and one of its parts."""

_SCHEMAS: tuple[Name, ...] = (
    "expand",
    "indexes",
    "switch",
    "require",
    "validate",
    "attach",
    "contract",
)
"""The stages that change the schema, in their order; "values" comes before them."""

NOT_VALID = " NOT VALID"
_LONGEST = 63
"""Bytes of a name."""
_KEYS = ("PRIMARY KEY ", "UNIQUE ")
_LATER = ("CHECK ", "FOREIGN KEY ")
_INHERITED = ("  inherited", "  inherited and local")
_KEY = re.compile(
    r"(?P<kind>PRIMARY KEY|UNIQUE)(?P<nulls> NULLS NOT DISTINCT)? (?P<columns>\(.+?\))"
    r"(?P<include> INCLUDE \(.+?\))?(?P<with> WITH \(.+?\))?(?P<rest>(?: DEFERRABLE| INITIALLY).*)?"
)


@dataclass(frozen=True)
class Stage:
    """A step of the way: it may become several revisions, or none."""

    name: Name
    targets: tuple[Snapshot, ...]
    """The schemas that it reaches, one after the other, in one transaction."""
    first: tuple[Step, ...] = ()
    """What to execute before the difference is looked for."""


@dataclass(frozen=True)
class Fill:
    """A column that has no value in the rows that exist, and needs one."""

    table: str
    column: str
    expression: str
    sets_default_later: bool = False
    """Whether the column has a default, which old rows must not get when it is added."""


@dataclass
class Way:
    """The way from one schema to another."""

    stages: list[Stage] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    """What the stage "fill" writes."""


@dataclass(frozen=True)
class _Plan:
    """The schemas after the stages, while they are made."""

    before: Facts
    old: Facts
    """`before`, with the new names of constraints and indexes."""
    new: Facts
    rewrites: Rewrites
    answers: Answers
    schemas: dict[Name, Facts]
    fills: list[Fill] = field(default_factory=list)
    first: dict[Name, list[Step]] = field(default_factory=dict)
    """What stages execute before the difference is looked for."""
    keys: dict[tuple[str, frozenset[str]], Name] = field(default_factory=dict)
    """The new keys of tables in use, by table and columns: the stage in which each comes."""

    def until(self, stage: Name) -> list[Facts]:
        """Return the schemas before a stage."""
        return [self.schemas[one] for one in _SCHEMAS[: _SCHEMAS.index(stage)]]


def way(
    before: Snapshot,
    after: Snapshot,
    rewrites: Rewrites,
    answers: Answers | None = None,
) -> Way:
    """Return the way from one schema to another.

    `answers` are the decisions of a person.
    """
    new = by_part(after)
    old = _renamed(by_part(before), new)
    lasting = new | {key: one for key, one in old.items() if _goes_last(key, old, new)}
    schemas = {stage: dict(lasting) for stage in _SCHEMAS} | {"contract": new}
    plan = _Plan(by_part(before), old, new, rewrites, answers or Answers(), schemas)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != lasting.get(key) and _is_in_use(key[0], old, new):
            _delay(key, plan)
    filled = {fill.table for fill in plan.fills}
    for key, definition in sorted(new.items()):
        if old.get(key) == definition:
            continue
        if definition.startswith("FOREIGN KEY "):
            _delay_reference(key, plan)
        elif key[0] in filled and key in old and _is_computed(definition):
            for facts in plan.until("attach"):  # what it is computed from is not filled before
                facts[key] = old[key]
    for key in sorted(schemas["require"]):
        if old.get(key) != schemas["require"][key] and _is_in_use(key[0], old, new):
            _delay_scan(key, plan)
    return Way(_stages(plan), plan.fills)


def _stages(plan: _Plan) -> list[Stage]:
    expand = plan.schemas["expand"]
    empty = dict(expand)
    for fill in plan.fills:
        key = (fill.table, f"column {fill.column}")
        if fill.sets_default_later:
            empty[key] = _without_default(empty[key])
    targets: dict[Name, tuple[Facts, ...]] = {stage: (one,) for stage, one in plan.schemas.items()}
    targets["expand"] = (empty, expand) if empty != expand else (expand,)
    targets["values"] = (plan.before | dict(_added_values(plan)),)
    targets["fill"] = targets["switch"]
    stages = []
    at = plan.before
    for name in get_args(Name.__value__):
        if targets[name][-1] != at or (name == "fill" and plan.fills):
            snapshots = tuple(map(_snapshot, targets[name]))
            stages.append(Stage(name, snapshots, tuple(plan.first.get(name, ()))))
        at = targets[name][-1]
    return stages


def _renamed(old: Facts, new: Facts) -> Facts:
    """Give constraints and indexes their new names: a rename needs no stages."""
    found = dict(old)
    for heading in {one for one, _ in old}:
        parts = [
            {part: one for (of, part), one in facts.items() if of == heading}
            for facts in (old, new)
        ]
        renamed = renamed_parts(*parts)
        for was in renamed.values():
            del found[heading, was]
        for now in renamed:
            found[heading, now] = new[heading, now]
    return found


def _snapshot(facts: Mapping[Key, str]) -> Snapshot:
    return tuple(Fact(*key, one) for key, one in sorted(facts.items()))


def _is_in_use(heading: str, old: Facts, new: Facts) -> bool:
    """Whether a table is there before and after, and its indexes can be built concurrently."""
    return (
        heading.startswith("table ")
        and all((heading, "owner") in facts for facts in (old, new))
        and not any((heading, "partitioned by") in facts for facts in (old, new))
    )


def _added_values(plan: _Plan) -> Iterator[tuple[Key, str]]:
    """Yield the enum types that get values: no statement can use one before it is committed."""
    for key, one in plan.new.items():
        was = plan.old.get(key, "")
        if key[1] == "definition" and was != one and was.startswith("enum "):
            values = [set(re.findall(r"'(?:[^']|'')*'", text)) for text in (was, one)]
            if values[0] < values[1]:
                yield key, one


def _goes_last(key: Key, old: Facts, new: Facts) -> bool:
    """Whether a part is dropped with its object, or is a column: the running release may use it."""
    heading, part = key
    is_gone = (heading, "owner") in old and (heading, "owner") not in new
    return is_gone or (
        heading.startswith("table ") and part.startswith("column ") and key not in new
    )


def _delay(key: Key, plan: _Plan) -> None:
    """Set what a part is before it is as the models say: indexes, keys, NOT NULL."""
    heading, part = key
    word, _, name = part.partition(" ")
    was, now = plan.old.get(key), plan.new.get(key)
    if now is None:
        if was is not None and was.startswith("CREATE ") and word == "index":
            for facts in plan.until("contract"):
                facts[key] = was
    elif word == "index" and _is_built_anew(was, now):
        if was is None or not was.startswith("CREATE "):
            _keep(plan.schemas["expand"], key, was)
        else:
            _switch(key, was, now, plan)
    elif word == "constraint" and now.startswith(_KEYS):
        _delay_key(heading, name, plan)
    elif word == "column" and _is_filled(heading, name, plan):
        if _is_required(now):
            _require_later(heading, name, plan, filled=True)
    elif word == "column" and was is not None and _is_required(now) and not _is_required(was):
        _require_later(heading, name, plan, filled=False)


def _is_filled(heading: str, name: str, plan: _Plan) -> bool:
    """Note what fills a column: what a person gave, or a default that differs from row to row."""
    key = (heading, f"column {name}")
    given = plan.answers.fills.get(f"{_plain(heading)}.{name.strip('"')}")
    if given is not None:
        later = key not in plan.old and _has_default(plan.new[key])
        plan.fills.append(Fill(heading, name, given, sets_default_later=later))
        return True
    if key in plan.old or not _has_default(plan.new[key]):
        return False
    if not plan.rewrites(heading, name, plan.new[key]):
        return False
    default = str(column(split_comment(plan.new[key])[0])["default"])
    plan.fills.append(Fill(heading, name, default, sets_default_later=True))
    return True


def _require_later(heading: str, name: str, plan: _Plan, *, filled: bool) -> None:
    """Let a CHECK, which is validated without a lock, prove NOT NULL.

    It is not valid at first, and yet each UPDATE of an old row must meet it: so it comes after the
    rows are filled.
    """
    key = (heading, f"column {name}")
    helper = (heading, f"constraint {_free_name(_joined(heading, name), '_required', plan)}")
    check = f"CHECK ({name} IS NOT NULL)"
    for facts in plan.until("attach"):
        facts[key] = plan.new[key].replace("  not null", "", 1)
    plan.schemas["validate"][helper] = check
    for facts in plan.until("validate") if not filled else [plan.schemas["require"]]:
        facts[helper] = check + NOT_VALID


def _delay_key(heading: str, name: str, plan: _Plan) -> None:
    """Build the index of a key first."""
    key = (heading, f"constraint {name}")
    body, _ = split_comment(plan.new[key])
    found = _KEY.fullmatch(body)
    if (
        found is None
        or "WITHOUT OVERLAPS" in body
        or (key in plan.old and split_comment(plan.old[key])[0] == body)
    ):
        return
    base = name.strip('"').removesuffix("_key").removesuffix("_pkey")
    index = _free_name(base, "_new_idx", plan)
    table = heading.removeprefix("table ")
    parts = (found["columns"], found["include"], found["nulls"], found["with"])
    built = "".join(one or "" for one in parts)
    columns = split(found["columns"].strip("()"))
    stage: Name = "switch" if _are_required(heading, columns, found["kind"], plan) else "attach"
    plan.keys[table, frozenset(columns)] = stage
    for facts in plan.until(stage):
        _keep(facts, key, plan.old.get(key))
        facts[heading, f"index {index}"] = (
            f"CREATE UNIQUE INDEX {index} ON {table} USING btree {built}"
        )
    drop = [f"ALTER TABLE {table} DROP CONSTRAINT {name}"] if key in plan.old else []
    add = (
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {found['kind']} USING INDEX {index}"
        f"{found['rest'] or ''}"
    )
    plan.first.setdefault(stage, []).append(Step(heading, f"constraint {name}", (*drop, add)))


def _are_required(heading: str, columns: Sequence[str], kind: str, plan: _Plan) -> bool:
    """Whether the index of a key can become the key without a look at rows."""
    if kind == "UNIQUE":
        return True
    definitions = (plan.old.get((heading, f"column {one}")) for one in columns)
    return all(one is not None and _is_required(one) for one in definitions)


def _delay_reference(key: Key, plan: _Plan) -> None:
    """Let a FOREIGN KEY wait for the key that it needs."""
    found = reference(split_comment(plan.new[key])[0])
    if found is None:
        return
    table = ".".join(str(found[one]) for one in ("schema", "table") if found[one])
    stage = plan.keys.get((table, frozenset(split(str(found["referred"])))))
    if stage is not None:
        for facts in plan.until("require" if stage == "switch" else stage):
            _keep(facts, key, plan.old.get(key))


def _delay_scan(key: Key, plan: _Plan) -> None:
    """Let a constraint be added before it is validated."""
    was, now = plan.old.get(key), plan.schemas["require"][key]
    if not key[1].startswith("constraint ") or not now.startswith(_LATER):
        return
    body, _ = split_comment(now)
    before = split_comment(was)[0] if was is not None else None
    if body == before or body.endswith((NOT_VALID, *_INHERITED)):
        return
    for facts in plan.until("validate"):
        if facts.get(key) == now:
            facts[key] = body + NOT_VALID + now[len(body) :]


def _switch(key: Key, was: str, now: str, plan: _Plan) -> None:
    """Build a changed index beside the one in use; then the two take each other's place.

    The old one is dropped last, so that no query and no unique key is without an index.
    """
    heading, part = key
    word, _, name = part.partition(" ")
    table = heading.removeprefix("table ")
    base = name.strip('"').removesuffix("_idx")
    built, replaced = (_free_name(base, ending, plan) for ending in ("_new_idx", "_old_idx"))
    for facts in plan.until("contract"):
        facts[heading, f"{word} {replaced}"] = _named_index(was, name, replaced)
    for facts in plan.until("switch"):
        del facts[heading, f"{word} {replaced}"]
        facts[key] = was
    plan.schemas["indexes"][heading, f"{word} {built}"] = _named_index(now, name, built)
    schema = schema_prefix(table)
    renames = (
        f"ALTER INDEX {schema}{name} RENAME TO {replaced}",
        f"ALTER INDEX {schema}{built} RENAME TO {name}",
    )
    plan.first.setdefault("switch", []).append(Step(heading, part, renames))


def _named_index(definition: str, name: str, other: str) -> str:
    return definition.replace(f" INDEX {name} ON ", f" INDEX {other} ON ", 1)


def _keep(facts: Facts, key: Key, definition: str | None) -> None:
    if definition is None:
        facts.pop(key, None)
    else:
        facts[key] = definition


def _is_built_anew(old: str | None, new: str | None) -> bool:
    """Whether an index is built or dropped: more than its comment or its statistics differs."""
    created = [one.partition("  ")[0] if one else None for one in (old, new)]
    return created[0] != created[1] and any(one and one.startswith("CREATE") for one in created)


def _has_default(definition: str) -> bool:
    return bool(column(split_comment(definition)[0]).get("default"))


def _is_required(definition: str) -> bool:
    return bool(column(split_comment(definition)[0]).get("required"))


def _is_computed(definition: str) -> bool:
    return bool(column(split_comment(definition)[0]).get("generated"))


def _without_default(definition: str) -> str:
    default = column(split_comment(definition)[0])["default"]
    return definition.replace(f"  default {default}", "", 1)


def _free_name(base: str, ending: str, plan: _Plan) -> str:
    """Return a name for a constraint or an index that no schema on the way uses."""
    schemas = (plan.old, plan.new, *plan.schemas.values())
    taken = {part.partition(" ")[2] for facts in schemas for _, part in facts}
    number = 1
    while True:
        suffix = ending if number == 1 else f"{number}{ending}"
        name = _quoted(base.encode()[: _LONGEST - len(suffix)].decode(errors="ignore") + suffix)
        if name not in taken:
            return name
        number += 1


def _plain(heading: str) -> str:
    return heading.removeprefix("table ").strip('"')


def _joined(heading: str, name: str) -> str:
    return f"{heading.removeprefix('table ')}_{name}".replace('"', "").replace(".", "_")


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'
