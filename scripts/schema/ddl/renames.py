"""Recognise renamed columns, tables and parts of tables, where the catalogs leave no doubt."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text

from migrations.snapshot import Snapshot
from schema.ddl.definition import schema_prefix, split_comment, standing_alone
from schema.ddl.objects import split_heading

type Attributes = frozenset[tuple[str, int, str]]
"""The columns of tables: SQL name of the table, number, SQL name of the column."""

_ATTRIBUTES = """
SELECT a.attrelid::regclass::text, a.attnum::int, quote_ident(a.attname)
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  AND c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
"""

_PARTS = {
    "constraint": "ALTER TABLE {table} RENAME CONSTRAINT {old} TO {new}",
    "index": "ALTER INDEX {schema}{old} RENAME TO {new}",
    "policy": "ALTER POLICY {old} ON {table} RENAME TO {new}",
    "trigger": "ALTER TRIGGER {old} ON {table} RENAME TO {new}",
}


@dataclass(frozen=True)
class Rename:
    """A renamed object or part."""

    object: str
    """The heading of the table, as the history names it."""
    part: str
    """The part, as the history names it; '' for the table itself."""
    old: str
    new: str
    there: str
    """The statement that renames it as it was done."""
    back: str
    """The statement that undoes it."""


def read_attributes(connection: Connection) -> Attributes:
    """Read the columns of all tables."""
    connection.exec_driver_sql("SET LOCAL search_path = public, pg_temp")
    return frozenset(
        (table, number, name) for table, number, name in connection.execute(text(_ATTRIBUTES))
    )


def tables(
    history: Snapshot, live: Snapshot, ours: Attributes, theirs: Attributes
) -> Iterator[Rename]:
    """Yield tables that have another name.

    Their columns have the same numbers, names and definitions, and their keys the same names: the
    name of an index is unique in its schema, so that no second table can have it.
    """
    old, new = _parts_of_tables(history), _parts_of_tables(live)
    gone = [name for name in old if name not in new]
    added = [name for name in new if name not in old]
    for one in gone:
        twins = [
            two for two in added if _is_same_table((one, old[one], ours), (two, new[two], theirs))
        ]
        if len(twins) == 1:
            before, after = (name.removeprefix("table ") for name in (one, twins[0]))
            if schema_prefix(before) == schema_prefix(after):
                yield _table(one, before, after)


def columns(
    history: Snapshot, live: Snapshot, ours: Attributes, theirs: Attributes
) -> Iterator[Rename]:
    """Yield columns that have another name: same table, same number, same definition."""
    old, new = _parts_of_tables(history), _parts_of_tables(live)
    names = {(table, number): name for table, number, name in theirs}
    for table, number, name in sorted(ours):
        now = names.get((table, number))
        before = old.get(f"table {table}", {})
        after = new.get(f"table {table}", {})
        if now is None or now == name or f"column {name}" in after or f"column {now}" in before:
            continue
        definitions = (before.get(f"column {name}"), after.get(f"column {now}"))
        if None not in definitions and len({_body(one) for one in definitions if one}) == 1:
            rename = f"ALTER TABLE {table} RENAME COLUMN {{}} TO {{}}"
            yield Rename(
                f"table {table}",
                f"column {name}",
                name,
                now,
                rename.format(name, now),
                rename.format(now, name),
            )


def taken(ours: Attributes, theirs: Attributes) -> dict[tuple[str, str], str]:
    """Return columns that have another name in the history, where another one has taken that name.

    By table and part: the history's name. Their values are the history's.
    """
    names = {(table, number): name for table, number, name in theirs}
    known = {(table, name) for table, _, name in theirs}
    # A restored table has other numbers if the history has dropped a column.
    restored = {table for table, number, _ in ours if (table, number) not in names}
    return {
        (f"table {table}", f"column {now}"): name
        for table, number, name in ours
        if (now := names.get((table, number), name)) != name
        and (table, name) in known
        and table not in restored
    }


def parts(history: Snapshot, live: Snapshot) -> Iterator[Rename]:
    """Yield constraints, indexes, policies and triggers that have another name only."""
    old, new = _parts_of_tables(history), _parts_of_tables(live)
    for heading in old.keys() & new.keys():
        table = heading.removeprefix("table ")
        gone = {part: _body(one) for part, one in old[heading].items() if part not in new[heading]}
        added = {part: _body(one) for part, one in new[heading].items() if part not in old[heading]}
        for part, definition in gone.items():
            word, _, name = part.partition(" ")
            twins = [
                other.partition(" ")[2]
                for other, one in added.items()
                if other.startswith(f"{word} ")
                and _renamed(definition, name, other.partition(" ")[2]) == one
            ]
            if word in _PARTS and len(twins) == 1:
                values = {"table": table, "schema": schema_prefix(table)}
                yield Rename(
                    heading,
                    part,
                    name,
                    twins[0],
                    _PARTS[word].format(**values, old=name, new=twins[0]),
                    _PARTS[word].format(**values, old=twins[0], new=name),
                )


def _table(heading: str, before: str, after: str) -> Rename:
    short_before, short_after = (one.removeprefix(schema_prefix(one)) for one in (before, after))
    return Rename(
        heading,
        "",
        before,
        after,
        f"ALTER TABLE {before} RENAME TO {short_after}",
        f"ALTER TABLE {after} RENAME TO {short_before}",
    )


type _Side = tuple[str, dict[str, str], Attributes]


def _is_same_table(one: _Side, other: _Side) -> bool:
    (one_name, one_parts, ours), (other_name, other_parts, theirs) = one, other
    return (
        _numbered(one_name, ours) == _numbered(other_name, theirs)
        and _named(one_parts, "column ") == _named(other_parts, "column ")
        and bool(_keys(one_parts))
        and _keys(one_parts) == _keys(other_parts)
    )


def _numbered(heading: str, attributes: Attributes) -> Collection[tuple[int, str]]:
    table = heading.removeprefix("table ")
    return {(number, name) for of, number, name in attributes if of == table}


def _named(parts_of: dict[str, str], word: str) -> dict[str, str]:
    return {part: _body(one) for part, one in parts_of.items() if part.startswith(word)}


def _keys(parts_of: dict[str, str]) -> set[str]:
    keys = ("PRIMARY KEY", "UNIQUE")
    return {
        part
        for part, one in parts_of.items()
        if part.startswith("constraint ") and one.startswith(keys)
    }


def _renamed(definition: str, old: str, new: str) -> str:
    return standing_alone([old]).sub(lambda _: new, definition, count=1)


def _body(definition: str) -> str:
    return split_comment(definition)[0]


def _parts_of_tables(snapshot: Snapshot) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for fact in snapshot:
        if split_heading(fact.object)[0] == "table":
            found.setdefault(fact.object, {})[fact.part] = fact.definition
    return found
