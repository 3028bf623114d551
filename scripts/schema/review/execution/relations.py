"""The relations that exist before a revision, and how much was done to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from schema.rows.tables import OWN_SCHEMAS

_RELATIONS = f"""
SELECT c.oid,
  CASE n.nspname WHEN 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END,
  c.oid::pg_catalog.regclass::text, c.relkind::text, i.indrelid, c.relispopulated
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f', 'i', 'I') AND {OWN_SCHEMAS}
  AND c.relname NOT IN ('alembic_version', 'alembic_version_pkc')
"""

# What a table, materialised view or partition has done, within this transaction or since ever.
_WORK = """
SELECT c.oid, pg_catalog.pg_relation_filenode(c.oid)::bigint, pg_catalog.pg_relation_size(c.oid),
  -- Through an index, too: which of them a check of a foreign key takes depends on statistics.
  {returned}(c.oid) + greatest({fetched}(c.oid), (
    SELECT max({returned}(i.indexrelid)) FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid
  )),
  {inserted}(c.oid) + {updated}(c.oid) + {deleted}(c.oid)
FROM pg_catalog.pg_class AS c WHERE c.oid = ANY (%s::oid[])
"""
_PARTS = ("returned", "fetched", "inserted", "updated", "deleted")
_INSIDE, _OUTSIDE = (
    _WORK.format(**{part: f"pg_catalog.pg_stat_get_{scope}tuples_{part}" for part in _PARTS})
    for scope in ("xact_", "")
)

_INVALID = f"""
SELECT CASE n.nspname WHEN 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND {OWN_SCHEMAS}
ORDER BY 1
"""

type Session = psycopg.Connection[Any]


@dataclass(frozen=True)
class Relation:
    """A relation that exists."""

    oid: int
    name: str
    """Without `public`."""
    sql: str
    kind: str
    """As in pg_class.relkind."""
    table: int | None
    """The table of an index."""
    filled: bool
    """Whether it can be read: not a materialised view WITH NO DATA."""


@dataclass(frozen=True)
class Work:
    """What was done to a table until now."""

    file: int
    bytes: int
    read: int
    """Rows that were read: by a scan, through an index, by ALTER TABLE, by an index build."""
    written: int
    """Rows that were inserted, updated or deleted."""


type Relations = Mapping[int, Relation]
type Works = Mapping[int, Work]


def read_relations(session: Session) -> Relations:
    """Read the relations of the own schemas, by oid."""
    return {row[0]: Relation(*row) for row in session.execute(_RELATIONS.encode())}


def tables_of(relations: Relations) -> list[Relation]:
    """Return the relations that hold rows themselves."""
    return [one for one in relations.values() if one.kind in "rm"]


def count_rows(session: Session, relations: Relations) -> dict[int, int]:
    """Count the rows of each table; a partitioned table has those of its partitions."""
    found: dict[int, int] = {}
    for one in relations.values():
        if one.kind in "rpm" and one.filled:
            found[one.oid] = session.execute(f"SELECT count(*) FROM {one.sql}".encode()).fetchall()[
                0
            ][0]
    return found


def read_work(session: Session, relations: Relations, *, inside: bool) -> Works:
    """Read what was done to the tables: within the open transaction, or by all until now."""
    if not inside:
        session.execute("SELECT pg_catalog.pg_stat_force_next_flush()")
    oids = [one.oid for one in tables_of(relations)]
    query = _INSIDE if inside else _OUTSIDE
    return {row[0]: Work(*row[1:]) for row in session.execute(query.encode(), [oids])}


def invalid_indexes(session: Session) -> tuple[str, ...]:
    """List the indexes that are INVALID."""
    return tuple(name for (name,) in session.execute(_INVALID.encode()))
