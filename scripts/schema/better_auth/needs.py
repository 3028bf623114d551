"""What a configuration of Better Auth needs of its database, as ask.mjs says it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

CORE = frozenset({"user", "session", "account", "verification"})
"""Better Auth's own tables; a plugin adds others, and columns to these."""

TYPES = {
    "string": "text",
    "number": "integer",
    "boolean": "boolean",
    "date": "timestamp with time zone",
    "json": "jsonb",
    "string[]": "jsonb",
    "number[]": "jsonb",
}
"""The column type that Better Auth's own migration makes on PostgreSQL."""

type OnDelete = Literal["CASCADE", "SET NULL", "RESTRICT", "NO ACTION"]


@dataclass(frozen=True)
class Reference:
    """A foreign key of one column."""

    table: str
    column: str
    on_delete: OnDelete


@dataclass(frozen=True)
class Default:
    """What a new row has if an INSERT leaves a column out."""

    now: bool
    """Whether it is the time of the transaction."""
    value: str | float | bool | None
    """The constant otherwise."""


@dataclass(frozen=True)
class Field:
    """A column that Better Auth writes."""

    name: str
    """The column's name."""
    key: str
    """Better Auth's own name of it."""
    kind: str
    """Better Auth's type: a key of TYPES."""
    required: bool
    """Whether Better Auth always writes a value."""
    unique: bool
    index: bool
    big: bool
    """Whether a number may not fit into four bytes."""
    returned: bool
    """Whether Better Auth may return it to a client."""
    written_by_clients: bool
    """Whether a client may choose its value freely."""
    default: Default | None
    reference: Reference | None
    plugin: str | None
    """The plugin that declares it; None for Better Auth itself and for additional fields."""

    @property
    def type(self) -> str:
        """The column's type, as PostgreSQL names it; ids are uuids in this schema."""
        if self.reference and self.reference.column == "id":
            return "uuid"
        return "bigint" if self.big and self.kind == "number" else TYPES[self.kind]


@dataclass(frozen=True)
class Index:
    """An index that Better Auth names."""

    name: str
    columns: tuple[str, ...]
    unique: bool


@dataclass(frozen=True)
class Table:
    """A table that Better Auth writes."""

    name: str
    key: str
    """Better Auth's own name of it."""
    managed: bool
    """Whether Better Auth expects it; a plugin may say that its table is not there."""
    plugin: str | None
    fields: tuple[Field, ...]
    indexes: tuple[Index, ...]


@dataclass(frozen=True)
class Plan:
    """What Better Auth's own migration would do; it compares names only."""

    tables: Sequence[str] = ()
    columns: Sequence[tuple[str, str]] = ()
    """Table and column."""
    indexes: Sequence[tuple[str, str]] = ()
    """Table and name."""
    problems: Sequence[str] = ()
    """Columns that make each INSERT fail, as sentences."""
    stopped: str | None = None
    """Why Better Auth refused to compare, if it did."""


@dataclass(frozen=True)
class Needs:
    """What the configuration says, and what Better Auth found in the database."""

    version: str
    """Better Auth's version."""
    generate_id: str | None
    """How ids are made: the option's value, `function` for one, None without the option."""
    renames: bool
    """Whether the configuration's Kysely sends other names than Better Auth says."""
    schema_name: str | None
    """The schema that the configuration names for Better Auth's tables."""
    adapter: bool
    """Whether it uses an adapter, such as Drizzle's, with a schema and names of its own."""
    tables: tuple[Table, ...]
    plan: Plan
    document: Mapping[str, Any] = field(repr=False)
    """The result of ask.mjs, from which another process can read the same."""


def parse(document: Mapping[str, Any]) -> Needs:
    """Read the result of ask.mjs.

    Raises:
        ValueError: a field has a type that this version of the command does not know.

    """
    tables: dict[str, Table] = {}
    for one in document["tables"]:
        table = _table(one)
        if (known := tables.get(table.name)) is not None:
            # Two of Better Auth's names may mean one table, which then has the columns of both.
            fields = {one.name: one for one in (*known.fields, *table.fields)}
            managed = known.managed and table.managed
            table = Table(
                known.name, known.key, managed, known.plugin, (*fields.values(),), known.indexes
            )
        tables[table.name] = table
    return Needs(
        document["version"],
        document["generate_id"],
        document["renames"],
        document["schema_name"],
        document["adapter"],
        tuple(tables.values()),
        _plan(document["plan"]),
        document,
    )


def _table(document: Mapping[str, Any]) -> Table:
    return Table(
        document["name"],
        document["key"],
        document["managed"],
        _plugin(document),
        tuple(map(_field, document["fields"])),
        tuple(
            Index(one["name"], tuple(one["columns"]), bool(one.get("unique")))
            for one in document["indexes"]
        ),
    )


def _field(document: Mapping[str, Any]) -> Field:
    kind = document["type"]
    if kind not in TYPES:
        raise ValueError(f"the field {document['key']} has the unknown type {kind}")
    default, required = document["default"], document["required"]
    if document["unique"] and not required:
        default = None  # a constant would be there twice with the second row
    return Field(
        name=document["name"],
        key=document["key"],
        kind=kind,
        required=required,
        unique=document["unique"],
        index=document["index"],
        big=document["big"],
        returned=document["returned"],
        written_by_clients=document["input"] and not document["chosen"],
        default=default and Default(default.get("now", False), default.get("value")),
        reference=_reference(document.get("references"), required=required),
        plugin=_plugin(document),
    )


def _plugin(document: Mapping[str, Any]) -> str | None:
    """Return a plugin's name without what would end a text that names it."""
    return document["plugin"] and re.sub(r"[^\w@/.-]", "_", document["plugin"])


def _reference(document: Mapping[str, Any] | None, *, required: bool) -> Reference | None:
    """Read a reference.

    A row that Better Auth lets stand without what it references keeps standing: a key without an
    action would keep the user from being deleted. A required one cannot become NULL.
    """
    if document is None:
        return None
    stated = document["on_delete"]
    rule: OnDelete
    if stated == "cascade" or (required and stated == "set null"):
        rule = "CASCADE"
    elif not required:
        rule = "SET NULL"
    else:
        rule = "RESTRICT" if stated == "restrict" else "NO ACTION"
    return Reference(document["table"], document["column"], rule)


def _plan(document: Mapping[str, Any]) -> Plan:
    if (stopped := document.get("stopped")) is not None:
        return Plan(stopped=stopped.partition("\n")[0])
    return Plan(
        document["tables"],
        [(table, column) for table, column in document["columns"]],
        [(table, name) for table, name in document["indexes"]],
        document["problems"],
    )
