"""The schemas on the way from one to another, so that every step is safe for a table in use.

A step that has to look at rows is separated from the lock that it would hold meanwhile: an index is
built concurrently, a CHECK or a FOREIGN KEY is added NOT VALID and validated later, NOT NULL relies
on a validated CHECK, a UNIQUE key takes an index that exists, a changed index is built beside the
one in use, and what is dropped goes last. The rules are those of migrations/README.md, "Changing a
table that is in use".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

from migrations.snapshot import Fact, Snapshot
from schema.ddl.definition import by_part
from schema.ddl.steps import Step, renamed_parts
from schema.revision.decisions import Answers, Facts, Rewrites
from schema.revision.way.delays import delay, delay_scan
from schema.revision.way.plan import SCHEMAS, Fill, Key, Name, Plan, is_in_use, without_default
from schema.revision.way.waits import wait_for_key, wait_for_values


@dataclass(frozen=True)
class Stage:
    """A step of the way: it may become several revisions, or none."""

    name: Name
    targets: tuple[Snapshot, ...]
    """The schemas that it reaches, one after the other, in one transaction."""
    first: tuple[Step, ...] = ()
    """What to execute before the difference is looked for."""


@dataclass
class Way:
    """The way from one schema to another."""

    stages: list[Stage] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    """What the stage "fill" writes, and "refill" again."""


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
    schemas = {stage: dict(lasting) for stage in SCHEMAS} | {"contract": new}
    plan = Plan(by_part(before), old, new, rewrites, answers or Answers(), schemas)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != lasting.get(key) and is_in_use(key[0], old, new):
            delay(key, plan)
    for key, definition in sorted(new.items()):
        if old.get(key) != definition and definition.startswith("FOREIGN KEY "):
            wait_for_key(key, plan)
    wait_for_values(plan)
    for key in sorted(schemas["require"]):
        if old.get(key) != schemas["require"][key] and is_in_use(key[0], old, new):
            delay_scan(key, plan)
    return Way(_stages(plan), plan.fills)


def _stages(plan: Plan) -> list[Stage]:
    expand = plan.schemas["expand"]
    empty = dict(expand)
    for fill in plan.fills:
        key = (fill.table, f"column {fill.column}")
        if fill.sets_default_later:
            empty[key] = without_default(empty[key])
    targets: dict[Name, tuple[Facts, ...]] = {stage: (one,) for stage, one in plan.schemas.items()}
    targets["expand"] = (empty, expand) if empty != expand else (expand,)
    targets["values"] = (plan.before | dict(_added_values(plan)),)
    targets["fill"] = targets["switch"]
    targets["refill"] = targets["require"]
    filling = {"fill": bool(plan.fills), "refill": any(one.again for one in plan.fills)}
    stages = []
    at = plan.before
    for name in get_args(Name.__value__):
        if targets[name][-1] != at or filling.get(name):
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


def _added_values(plan: Plan) -> Iterator[tuple[Key, str]]:
    """Yield the enum types that get values: no statement can use one before it is committed."""
    for key, one in plan.new.items():
        was = plan.old.get(key, "")
        if key[1] == "definition" and was != one and was.startswith("enum "):
            values = [set(re.findall(r"'(?:[^']|'')*'", text)) for text in (was, one)]
            if values[0] < values[1]:
                yield key, one


def _goes_last(key: Key, old: Facts, new: Facts) -> bool:
    """Whether a part goes with its object, or is a column: the running release may use it.

    A trigger may give values to a column that goes, and that needs them until then.
    """
    heading, part = key
    if (heading, "owner") in old and (heading, "owner") not in new:
        return True
    if key in new or not heading.startswith("table "):
        return False
    if part.startswith("trigger "):
        columns = (one for one in old if one[0] == heading and one[1].startswith("column "))
        return any(one not in new for one in columns)
    return part.startswith("column ")
