"""What is planned: the schemas after each stage of the way, while they are made.

A part waits by having its old definition, or none, in the schemas of the stages before its own.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from schema.ddl.definition import column
from schema.ddl.steps import Step
from schema.revision.decisions import Answers, Facts, Rewrites

type Name = Literal[
    "values",
    "expand",
    "indexes",
    "switch",
    "fill",
    "require",
    "refill",
    "validate",
    "attach",
    "contract",
]
type Key = tuple[str, str]
"""An object and one of its parts."""

SCHEMAS: tuple[Name, ...] = (
    "expand",
    "indexes",
    "switch",
    "require",
    "validate",
    "attach",
    "contract",
)
"""The stages that change the schema, in their order; "values" comes before them.

"fill" and "refill" write rows.
"""

NOT_VALID = " NOT VALID"
_LONGEST = 63
"""Bytes of a name."""


@dataclass(frozen=True)
class Fill:
    """A column that has no value in the rows that exist, and needs one."""

    table: str
    column: str
    expression: str
    sets_default_later: bool = False
    """Whether the column has a default, which old rows must not get when it is added."""
    again: bool = False
    """Whether rows may come without a value, until NOT NULL is required of them."""
    others: tuple["Fill", ...] = ()
    """More columns of the table, filled in the same statement."""

    @property
    def columns(self) -> dict[str, str]:
        """The expression for each column."""
        return {one.column: one.expression for one in (self, *self.others)}


@dataclass(frozen=True)
class Plan:
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
        return [self.schemas[one] for one in SCHEMAS[: SCHEMAS.index(stage)]]


def changed(plan: Plan) -> list[Key]:
    """Return what differs, in the order of names."""
    keys = sorted(plan.old.keys() | plan.new.keys())
    return [key for key in keys if plan.old.get(key) != plan.new.get(key)]


def keep(facts: Facts, key: Key, definition: str | None) -> None:
    """Set a definition; None for a part that is not there."""
    if definition is None:
        facts.pop(key, None)
    else:
        facts[key] = definition


def is_in_use(heading: str, old: Facts, new: Facts) -> bool:
    """Whether a table is there before and after, and its indexes can be built concurrently."""
    return (
        heading.startswith("table ")
        and all((heading, "owner") in facts for facts in (old, new))
        and not any((heading, "partitioned by") in facts for facts in (old, new))
    )


def has_default(definition: str) -> bool:
    """Whether a column has a default."""
    return bool(column(definition).get("default"))


def is_required(definition: str) -> bool:
    """Whether a column is NOT NULL."""
    return bool(column(definition).get("required"))


def is_computed(definition: str) -> bool:
    """Whether the database computes a column."""
    return bool(column(definition).get("generated"))


def without_default(definition: str) -> str:
    """Return a column without its default."""
    default = column(definition)["default"]
    return definition.replace(f"  default {default}", "", 1)


def free_name(base: str, ending: str, plan: Plan) -> str:
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


def joined(heading: str, name: str) -> str:
    """Join the names of a table and a column."""
    return f"{heading.removeprefix('table ')}_{name}".replace('"', "").replace(".", "_")


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'
