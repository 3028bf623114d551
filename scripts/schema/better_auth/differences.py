"""Compare what Better Auth needs with the tables of the history, and with those of the models.

Better Auth's own comparison, which is heeded too, looks at names only, and at columns that make
each INSERT fail.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from schema.access.declared import declared_accesses, kind_of
from schema.better_auth.found import Found
from schema.better_auth.needs import CORE, Field, Index, Needs, Plan, Table

type Kind = Literal[
    "missing-table",
    "missing-column",
    "missing-unique",
    "missing-index",
    "missing-reference",
    "type",
    "nullable",
    "required",
    "reference",
    "blocking-column",
    "extra-table",
    "extra-column",
    "not-better-auths",
    "configuration",
    "plan",
]

type Where = Literal["both", "history", "models"]

ADDED: frozenset[Kind] = frozenset(
    {"missing-table", "missing-column", "missing-unique", "missing-index"}
)
"""What `--write` adds to the models."""

NOT_NEEDED: frozenset[Kind] = frozenset({"extra-table", "extra-column"})
"""What Better Auth works with."""

_ACCEPTED = {
    "uuid": frozenset({"uuid"}),
    "text": frozenset({"text", "varchar", "character varying", "uuid"}),
    "integer": frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision"}),
    "bigint": frozenset({"bigint", "numeric", "double precision"}),
    "jsonb": frozenset({"json", "jsonb"}),
}
"""The types that Better Auth can use in place of the one that it would make.

It accepts a `timestamp` too, but then reads other times in another time zone.
"""


@dataclass(frozen=True)
class Difference:
    """One thing in which the needs and the schema differ."""

    kind: Kind
    table: str | None
    """The table; None for a setting of the configuration."""
    column: str | None
    sentence: str
    """What is wrong, without the final stop."""
    needs: Table | Field | Index | None = None
    """What is missing."""
    where: Where = "both"
    """What differs: the history, the models or, as after each `schema check`, both."""


def compare(
    needs: Needs, history: Mapping[str, Found], models: Mapping[str, Found]
) -> list[Difference]:
    """List the differences of the configuration, the history and the models."""
    of_history, of_models = _tables(needs, history), _tables(needs, models)
    beyond = {_what(one) for one in of_models} - {_what(one) for one in of_history}
    differences = [
        *_configuration(needs),
        *(
            one if _what(one) in {_what(other) for other in of_models} else _only("history", one)
            for one in of_history
        ),
        *(_only("models", one) for one in of_models if _what(one) in beyond),
    ]
    return [*differences, *_plan(needs.plan, differences)]


def _what(difference: Difference) -> tuple[object, ...]:
    return difference.kind, difference.table, difference.column, difference.needs


def _only(where: Where, difference: Difference) -> Difference:
    return replace(difference, where=where)


def _tables(needs: Needs, found: Mapping[str, Found]) -> list[Difference]:
    """List the differences of each table that is needed, and of those that are not."""
    wanted = {one.name: one for one in needs.tables if one.managed}
    known = {one.name for one in needs.tables}
    differences: list[Difference] = []
    for table in wanted.values():
        if (present := found.get(table.name)) is None:
            sentence = f"Table {table.name} is missing"
            differences.append(Difference("missing-table", table.name, None, sentence, table))
        else:
            differences += _table(table, present)
    for name, access in declared_accesses().items():
        if access.kind == "Better Auth" and name not in known and name in found:
            sentence = f"Table {name} is there, and this configuration does not use it"
            differences.append(Difference("extra-table", name, None, sentence))
    return differences


def _configuration(needs: Needs) -> Iterator[Difference]:
    """Find settings that do not go with the models, whatever the tables are."""

    def setting(sentence: str) -> Difference:
        return Difference("configuration", None, None, sentence)

    if needs.generate_id != "uuid":
        named = {None: "not set", "function": "a function"}.get(needs.generate_id)
        yield setting(
            f"advanced.database.generateId is {named or repr(needs.generate_id)}, and only 'uuid'"
            " works with ids that are uuids"
        )
    if needs.schema_name not in {None, "public"}:
        yield setting(
            f"database.schemaName is {needs.schema_name!r}, and the tables are in public: leave"
            " it out"
        )
    if needs.renames:
        yield setting(
            "The configuration's Kysely renames tables or columns, and the models have Better"
            " Auth's own names: leave that plugin out"
        )
    for table in needs.tables:
        if table.key in CORE and table.name != table.key:
            yield setting(
                f"{table.key}.modelName is {table.name!r}, and the models have a table"
                f" {table.key}: leave it out"
            )


def _table(table: Table, found: Found) -> Iterator[Difference]:
    """Compare a table that is there."""
    if kind_of(table.name) != "Better Auth":
        yield Difference(
            "not-better-auths",
            table.name,
            None,
            f"Table {table.name} is there, and its model does not derive from BetterAuthTable:"
            " Better Auth's login cannot use it",
        )
        return
    yield from _id(table, found)
    for field in table.fields:
        yield from _column(table, field, found)
    for index in table.indexes:
        if index.name not in {one.name for one in found.indexes}:
            kind = "unique index" if index.unique else "index"
            columns = ", ".join(index.columns)
            yield Difference(
                "missing-index",
                table.name,
                None,
                f"Table {table.name} has no {kind} {index.name} on {columns}",
                index,
            )
    yield from _extra_columns(table, found)


def _id(table: Table, found: Found) -> Iterator[Difference]:
    column = found.columns.get("id")
    if column is None or column.type != "uuid" or not column.filled:
        yield Difference(
            "type",
            table.name,
            "id",
            f"{table.name}.id is no uuid with a default, and Better Auth leaves it to the database",
        )


def _column(table: Table, field: Field, found: Found) -> Iterator[Difference]:
    """Compare a column with what Better Auth writes into it."""
    name = f"{table.name}.{field.name}"

    def difference(kind: Kind, sentence: str) -> Difference:
        return Difference(kind, table.name, field.name, sentence, field)

    if (column := found.columns.get(field.name)) is None:
        yield difference("missing-column", f"Column {name} is missing")
        return
    if column.type not in _ACCEPTED.get(field.type, {field.type}):
        yield difference("type", f"{name} is {column.type}, and Better Auth needs {field.type}")
    if field.required and column.nullable:
        yield difference("nullable", f"{name} may be NULL, and Better Auth relies on a value")
    if not field.required and not column.nullable:
        yield difference("required", f"{name} is NOT NULL, and Better Auth may write NULL")
    if field.unique and not found.unique(field.name):
        yield difference("missing-unique", f"{name} is not unique, and Better Auth relies on that")
    elif field.index and not found.indexed(field.name):
        yield difference("missing-index", f"{name} has no index, and Better Auth searches by it")
    yield from _reference(table, field, found)


def _reference(table: Table, field: Field, found: Found) -> Iterator[Difference]:
    if (reference := field.reference) is None:
        return
    name = f"{table.name}.{field.name}"
    target = f"{reference.table}.{reference.column}"
    keys = [
        one
        for one in found.keys
        if (one.column, one.table, one.referenced)
        == (field.name, reference.table, reference.column)
    ]
    if not keys:
        sentence = f"{name} has no foreign key to {target} (ON DELETE {reference.on_delete})"
        yield Difference("missing-reference", table.name, field.name, sentence, field)
    elif reference.on_delete not in {one.on_delete for one in keys}:
        sentence = (
            f"{name} references {target} with ON DELETE {keys[0].on_delete}, and Better Auth needs"
            f" {reference.on_delete}"
        )
        yield Difference("reference", table.name, field.name, sentence, field)


def _extra_columns(table: Table, found: Found) -> Iterator[Difference]:
    """Find columns that Better Auth does not write; a retiring one is no surprise."""
    written = {"id", *(field.name for field in table.fields)}
    for name, column in found.columns.items():
        if name in written:
            continue
        if not column.nullable and not column.filled:
            yield Difference(
                "blocking-column",
                table.name,
                name,
                f"{table.name}.{name} is NOT NULL without a default, and Better Auth does not"
                f" write it: every INSERT into {table.name} fails",
            )
        elif not _retiring(table.name, name):
            yield Difference(
                "extra-column",
                table.name,
                name,
                f"{table.name}.{name} is there, and this configuration does not use it",
            )


def _plan(plan: Plan, differences: Iterable[Difference]) -> Iterator[Difference]:
    """Yield what only Better Auth's own comparison finds."""
    seen = {(one.table, one.column) for one in differences}
    indexes = {one.needs.name for one in differences if isinstance(one.needs, Index)}
    mine = {one.kind for one in differences}
    if plan.stopped:
        yield _planned(None, f"Better Auth's own comparison stops: {plan.stopped.rstrip('.')}")
    for table in plan.tables:
        if (table, None) not in seen:
            yield _planned(table, f"Better Auth's own migration would make table {table}")
    for table, column in plan.columns:
        if (table, column) not in seen and (table, None) not in seen:
            yield _planned(table, f"Better Auth's own migration would add {table}.{column}")
    for table, name in plan.indexes:
        if name not in indexes and (table, None) not in seen:
            yield _planned(table, f"Better Auth's own migration would add the index {name}")
    if plan.problems and "blocking-column" not in mine:
        yield from (_planned(None, f"Better Auth says: {one}".rstrip(".")) for one in plan.problems)


def _planned(table: str | None, sentence: str) -> Difference:
    return Difference("plan", table, None, sentence)


def _retiring(table: str, name: str) -> bool:
    from models import metadata  # noqa: PLC0415  # a checkout may hold one that cannot be imported

    model = metadata.tables.get(table)
    return model is not None and name in model.columns and "retiring" in model.columns[name].info
