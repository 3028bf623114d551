"""The tables of a database as the generator needs them: columns, keys, references and checks."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from sqlalchemy import Connection, text

OWN_SCHEMAS = """
  n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (n.nspname = 'public' OR NOT EXISTS (
    SELECT FROM pg_database AS here
    JOIN pg_roles AS ours ON ours.oid = here.datdba
    JOIN pg_roles AS theirs ON theirs.oid = n.nspowner
    WHERE here.datname = current_database() AND NOT ours.rolsuper
      AND (theirs.rolsuper OR (theirs.rolname = n.nspname AND theirs.rolname = 'neon_auth'))
  ))
"""
"""The condition on pg_namespace, as n, that leaves out the schemas of the server and of a platform.

A platform's are those of superusers if the database's owner is none, and Neon's neon_auth.
"""

USERS = "user"
"""The table of the users, who own rows."""

_OURS = f"""
SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS sql,
  CASE n.nspname WHEN 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END AS name
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND {OWN_SCHEMAS}
  AND c.relname <> 'alembic_version'
"""

_COLUMNS = f"""
SELECT t.name, t.sql, a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod), a.atttypmod,
  a.attnotnull OR EXISTS (SELECT FROM pg_type AS y WHERE y.oid = a.atttypid AND y.typnotnull),
  a.attgenerated = '' AND a.attidentity = ''
    AND coalesce(pg_get_expr(d.adbin, d.adrelid) NOT LIKE 'nextval(%', true),
  a.attgenerated = ''
FROM ({_OURS}) AS t
LEFT JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef AS d ON d.adrelid = t.oid AND d.adnum = a.attnum
ORDER BY t.name, a.attname
"""

# An index on an expression or of some rows is left to ON CONFLICT.
_CONSTRAINTS = f"""
SELECT t.name, k.contype::text, k.conname,
  ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS n (number, place)
        JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = n.number ORDER BY n.place),
  p.name,
  ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS n (number, place)
        JOIN pg_attribute AS a ON a.attrelid = p.oid AND a.attnum = n.number ORDER BY n.place),
  CASE k.contype WHEN 'c' THEN pg_get_expr(k.conbin, k.conrelid) END
FROM ({_OURS}) AS t
JOIN pg_constraint AS k ON k.conrelid = t.oid
LEFT JOIN ({_OURS}) AS p ON p.oid = k.confrelid
WHERE k.contype IN ('p', 'u', 'c') OR k.contype = 'f' AND p.oid IS NOT NULL
UNION ALL
SELECT t.name, 'u', c.relname,
  ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) AS n (number)
        JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = n.number),
  NULL, ARRAY[]::text[], NULL
FROM ({_OURS}) AS t
JOIN pg_index AS i ON i.indrelid = t.oid
JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
  AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid)
ORDER BY 1, 2 DESC, 3
"""

_TYPES = f"""
WITH RECURSIVE used (oid) AS (
  SELECT a.atttypid FROM ({_OURS}) AS t JOIN pg_attribute AS a ON a.attrelid = t.oid
  WHERE a.attnum > 0 AND NOT a.attisdropped
  UNION
  SELECT part.oid
  FROM used
  JOIN pg_type AS t ON t.oid = used.oid
  CROSS JOIN LATERAL (
    SELECT t.typbasetype WHERE t.typtype = 'd'
    UNION ALL SELECT t.typelem WHERE t.typcategory = 'A'
    UNION ALL SELECT r.rngsubtype FROM pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
    UNION ALL SELECT a.atttypid FROM pg_attribute AS a
      WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
  ) AS part (oid)
)
SELECT t.oid, t.typname, format_type(t.oid, NULL),
  CASE WHEN t.typcategory = 'A' AND t.typtype = 'b' THEN 'array' ELSE t.typtype::text END,
  CASE t.typtype WHEN 'd' THEN ARRAY[t.typbasetype]
    WHEN 'c' THEN ARRAY(SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = t.typrelid
                        AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
    WHEN 'r' THEN ARRAY(SELECT r.rngsubtype FROM pg_range AS r WHERE r.rngtypid = t.oid)
    WHEN 'm' THEN ARRAY(SELECT r.rngsubtype FROM pg_range AS r WHERE r.rngmultitypid = t.oid)
    ELSE ARRAY[t.typelem] END,
  t.typtypmod,
  ARRAY(SELECT e.enumlabel::text FROM pg_enum AS e WHERE e.enumtypid = t.oid
        ORDER BY e.enumsortorder),
  ARRAY(SELECT pg_get_expr(k.conbin, 0) FROM pg_constraint AS k
        WHERE k.contypid = t.oid AND k.contype = 'c' ORDER BY k.conname)
FROM used JOIN pg_type AS t USING (oid)
"""


def quote(name: str) -> str:
    """Return a name as SQL."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Type:
    """A type: its kind as in pg_type.typtype, or `array`, and the types that it consists of."""

    name: str
    sql: str
    kind: str
    parts: tuple[int, ...]
    """The types of which it consists: of a domain its base, of an array its element."""
    modifier: int
    labels: tuple[str, ...]
    """An enum's labels."""
    checks: tuple[str, ...]
    """A domain's conditions, on VALUE."""


@dataclass(frozen=True)
class Column:
    """A column."""

    name: str
    type: int
    sql: str
    """The type with its length, as SQL."""
    modifier: int
    required: bool
    """Whether it is NOT NULL."""
    written: bool
    """Whether a row names its value; the database generates the others."""
    stored: bool
    """Whether it is no generated column."""


@dataclass(frozen=True)
class Reference:
    """A foreign key."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """A CHECK constraint."""

    name: str
    columns: tuple[str, ...]
    condition: str


@dataclass(frozen=True)
class TableRows:
    """A table, and what PostgreSQL demands of its rows."""

    name: str
    """Without `public`."""
    sql: str
    """The name as SQL."""
    columns: tuple[Column, ...]
    """By name."""
    primary_key: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]
    """The columns of each key, the primary one included."""
    references: tuple[Reference, ...]
    """The one that leads to the row's user comes first."""
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Tables:
    """All tables, parents first, and the types of their columns by oid."""

    tables: tuple[TableRows, ...]
    types: dict[int, Type]

    def __contains__(self, name: str) -> bool:
        """Whether there is a table of that name."""
        return any(table.name == name for table in self.tables)

    def narrowed(self, name: str, condition: str) -> "Tables":
        """Return the tables, one of which takes only rows that meet a condition."""
        table = self[name]
        assumed = Check("assumed", tuple(column.name for column in table.columns), condition)
        narrow = replace(table, checks=(*table.checks, assumed))
        return replace(
            self, tables=tuple(narrow if one.name == name else one for one in self.tables)
        )

    def __getitem__(self, name: str) -> TableRows:
        """Return the table of that name."""
        return next(table for table in self.tables if table.name == name)


def read_tables(connection: Connection) -> Tables:
    """Read the tables from the catalogs, at any revision."""
    types = {
        oid: Type(name, sql, kind, tuple(parts), modifier, tuple(labels), tuple(checks))
        for oid, name, sql, kind, parts, modifier, labels, checks in connection.execute(
            text(_TYPES)
        )
    }
    columns: dict[tuple[str, str], list[Column]] = defaultdict(list)
    for name, sql, *column in connection.execute(text(_COLUMNS)):
        columns[name, sql] += [Column(*column)] if column[0] is not None else []
    constraints: dict[str, list[Sequence[Any]]] = defaultdict(list)
    for name, *constraint in connection.execute(text(_CONSTRAINTS)):
        constraints[name].append(constraint)
    tables = [
        _table(name, sql, tuple(found), constraints[name]) for (name, sql), found in columns.items()
    ]
    return Tables(tuple(_parents_first(tables)), types)


def _table(
    name: str, sql: str, columns: tuple[Column, ...], constraints: list[Sequence[Any]]
) -> TableRows:
    primary_key: tuple[str, ...] = ()
    keys, references, checks = [], [], []
    for kind, label, own, parent, theirs, condition in constraints:
        match kind:
            case "f":
                references.append(Reference(tuple(own), parent, tuple(theirs)))
            case "c":
                checks.append(Check(label, tuple(own), condition))
            case "p" | "u":
                primary_key = tuple(own) if kind == "p" else primary_key
                keys.append(tuple(own))
    # The columns of a primary key lead with the owner; user_id is the owner everywhere.
    references.sort(
        key=lambda one: (
            "user_id" not in one.columns,
            one.parent == name,
            one.parent != USERS,
            one.columns,
        )
    )
    return TableRows(name, sql, columns, primary_key, tuple(keys), tuple(references), tuple(checks))


def _parents_first(tables: list[TableRows]) -> list[TableRows]:
    """Sort the tables; of a cycle, a reference that may be NULL is left out."""
    by_name = {table.name: table for table in tables}
    required = {table.name: {c.name for c in table.columns if c.required} for table in tables}

    def graph(*, all_of_them: bool) -> dict[str, list[str]]:
        return {
            table.name: [
                one.parent
                for one in table.references
                if one.parent != table.name
                and (all_of_them or required[table.name].issuperset(one.columns))
            ]
            for table in tables
        }

    edges = graph(all_of_them=True)
    try:
        return [by_name[name] for name in TopologicalSorter(edges).static_order()]
    except CycleError:
        edges = graph(all_of_them=False)
    while True:
        try:
            return [by_name[name] for name in TopologicalSorter(edges).static_order()]
        except CycleError as error:  # of required references: give one of them up
            parent, child = error.args[1][:2]
            edges[child].remove(parent)
