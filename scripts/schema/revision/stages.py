"""The schemas on the way from one to another, so that every step is safe for a table in use.

A step that has to look at rows is separated from the lock that it would hold meanwhile: an index is
built concurrently, a CHECK or a FOREIGN KEY is added NOT VALID and validated later, NOT NULL relies
on a validated CHECK, a UNIQUE key takes an index that exists, and what is dropped goes last. The
rules are those of migrations/README.md, "Changing a table that is in use".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from migrations.snapshot import Fact, Snapshot
from schema.ddl.definition import by_part, column, split_comment
from schema.ddl.steps import Step, renamed_parts
from schema.revision.decisions import Answers, Facts, Rewrites

type Name = Literal[
    "values", "expand", "indexes", "fill", "require", "validate", "attach", "contract"
]
type Key = tuple[str, str]
"""An object and one of its parts."""

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
    """The schemas between the stages, while they are made; `expand` is the earliest of them."""

    before: Facts
    old: Facts
    """`before`, with the new names of constraints and indexes."""
    new: Facts
    rewrites: Rewrites
    answers: Answers
    attach: Facts
    validate: Facts
    require: Facts
    indexes: Facts
    expand: Facts
    fills: list[Fill] = field(default_factory=list)
    attaching: list[Step] = field(default_factory=list)


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
    contract = new | {key: one for key, one in old.items() if _goes_last(key, old, new)}
    attach, validate, require, indexes, expand = (dict(contract) for _ in range(5))
    plan = _Plan(
        before=by_part(before),
        old=old,
        new=new,
        rewrites=rewrites,
        answers=answers or Answers(),
        attach=attach,
        validate=validate,
        require=require,
        indexes=indexes,
        expand=expand,
    )
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != contract.get(key) and _is_in_use(key[0], old, new):
            _delay(key, plan)
    for key in sorted(plan.expand):
        if old.get(key) != plan.expand[key] and _is_in_use(key[0], old, new):
            _delay_scan(key, plan)
    return Way(_stages(plan), plan.fills)


def _stages(plan: _Plan) -> list[Stage]:
    empty = dict(plan.expand)
    for fill in plan.fills:
        key = (fill.table, f"column {fill.column}")
        if fill.sets_default_later:
            empty[key] = _without_default(empty[key])
    expand = (empty, plan.expand) if empty != plan.expand else (plan.expand,)
    planned: list[tuple[Name, tuple[Facts, ...]]] = [
        ("values", (plan.before | dict(_added_values(plan)),)),
        ("expand", expand),
        ("indexes", (plan.indexes,)),
        ("fill", (plan.indexes,)),
        ("require", (plan.require,)),
        ("validate", (plan.validate,)),
        ("attach", (plan.attach,)),
        ("contract", (plan.new,)),
    ]
    stages = []
    at = plan.before
    for name, targets in planned:
        if targets[-1] != at or (name == "fill" and plan.fills):
            first = tuple(plan.attaching) if name == "attach" else ()
            stages.append(Stage(name, tuple(map(_snapshot, targets)), first))
        at = targets[-1]
    return stages


def _renamed(old: Facts, new: Facts) -> Facts:
    """Give constraints and indexes their new names: a rename needs no stages."""
    found = dict(old)
    for heading in {one for one, _ in old}:
        parts = [
            {part: one for (of, part), one in facts.items() if of == heading}
            for facts in (old, new)
        ]
        for now, was in renamed_parts(*parts).items():
            found[heading, now] = new[heading, now]
            del found[heading, was]
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
    """Whether a part is dropped with its table or column, which no release uses then."""
    heading, part = key
    is_gone = (heading, "owner") not in new
    if heading.startswith("table "):
        return is_gone or (part.startswith("column ") and key not in new)
    return is_gone and ((heading, "owned by") in old or (heading, "identity of") in old)


def _delay(key: Key, plan: _Plan) -> None:
    """Set what a part is before the stage "attach": keys and NOT NULL come with it."""
    heading, part = key
    word, _, name = part.partition(" ")
    was, now = plan.old.get(key), plan.new.get(key)
    if now is None:
        if word == "index" and _is_built_anew(was, now):
            _keep(plan.expand, key, was)
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
    for facts in (plan.validate, plan.require, plan.indexes, plan.expand):
        facts[key] = plan.new[key].replace("  not null", "", 1)
    plan.validate[helper] = check
    plan.require[helper] = check + NOT_VALID
    if not filled:
        plan.indexes[helper] = plan.expand[helper] = check + NOT_VALID


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
    for facts in (plan.validate, plan.require, plan.indexes, plan.expand):
        _keep(facts, key, plan.old.get(key))
        facts[heading, f"index {index}"] = (
            f"CREATE UNIQUE INDEX {index} ON {table} USING btree {built}"
        )
    drop = [f"ALTER TABLE {table} DROP CONSTRAINT {name}"] if key in plan.old else []
    add = (
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {found['kind']} USING INDEX {index}"
        f"{found['rest'] or ''}"
    )
    plan.attaching.append(Step(heading, f"constraint {name}", (*drop, add)))


def _delay_scan(key: Key, plan: _Plan) -> None:
    """Set what a part is before it is validated, and before its index is built."""
    heading, part = key
    word = part.partition(" ")[0]
    was, now = plan.old.get(key), plan.expand[key]
    if word == "constraint" and now.startswith(_LATER):
        body, _ = split_comment(now)
        before = split_comment(was)[0] if was is not None else None
        if body != before and not body.endswith((NOT_VALID, *_INHERITED)):
            for facts in (plan.require, plan.indexes, plan.expand):
                facts[key] = body + NOT_VALID + now[len(body) :]
    elif word == "index" and _is_built_anew(was, now):
        _keep(plan.expand, (heading, part), was)


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


def _without_default(definition: str) -> str:
    default = column(split_comment(definition)[0])["default"]
    return definition.replace(f"  default {default}", "", 1)


def _free_name(base: str, ending: str, plan: _Plan) -> str:
    """Return a name for a constraint or an index that no schema on the way uses."""
    schemas = (plan.old, plan.new, plan.validate, plan.require, plan.indexes, plan.expand)
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
