"""Whether rows and values survive: hashes of every value, kept aside and compared afterwards.

The hashes stand in temporary tables of the session that compares, so that the database under review
gets no object. A row is known by the hash of its primary key, or of all its values without one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import psycopg

from schema.review.execution.relations import Relation, Session

_COLUMNS = """
SELECT a.attrelid, a.attnum, a.attname::text, quote_ident(a.attname),
  pg_catalog.format_type(a.atttypid, a.atttypmod), coalesce(a.attnum = ANY (k.conkey), false)
FROM pg_catalog.pg_attribute AS a
LEFT JOIN pg_catalog.pg_constraint AS k ON k.conrelid = a.attrelid AND k.contype = 'p'
WHERE a.attrelid = ANY (%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
  AND a.attgenerated = ''
ORDER BY a.attrelid, a.attnum
"""
_HASH = "pg_catalog.hashtextextended({0}::text, 0)"


@dataclass(frozen=True)
class _Column:
    number: int
    name: str
    sql: str
    type: str
    """As SQL."""
    in_key: bool


@dataclass(frozen=True)
class _Kept:
    """The hashes of a table, in a temporary table."""

    table: Relation
    columns: tuple[_Column, ...]
    copy: str


class Contents:
    """What the tables held when it was last kept."""

    def __init__(self, session: Session) -> None:
        """Use a session of its own, in autocommit mode."""
        session.execute("SET timezone = 'UTC'")  # a cast between types of time depends on it
        self._session = session
        self._kept: dict[int, _Kept] = {}
        self._number = 0

    def keep(self, tables: Iterable[Relation], touched: set[int]) -> None:
        """Keep the hashes of these tables, anew only where `touched` names a table that is kept."""
        now = {one.oid: one for one in tables}
        for oid in [oid for oid in self._kept if oid not in now or oid in touched]:
            self._session.execute(f"DROP TABLE {self._kept.pop(oid).copy}".encode())
        missing = [one for oid, one in now.items() if oid not in self._kept]
        columns = self._columns([one.oid for one in missing])
        for one in missing:
            self._number += 1
            copy = f"pg_temp.kept_{self._number}"
            mine = columns.get(one.oid, ())
            hashes = "".join(f", {_HASH.format(c.sql)} AS c{c.number}" for c in mine)
            self._session.execute(
                f"CREATE TEMP TABLE {copy.removeprefix('pg_temp.')} AS"
                f" SELECT {_key(mine)} AS key{hashes} FROM ONLY {one.sql}".encode()
            )
            self._kept[one.oid] = _Kept(one, mine, copy)

    def count(self) -> int:
        """Return how many columns are kept."""
        return sum(len(one.columns) for one in self._kept.values())

    def lost(self, tables: Iterable[Relation], touched: set[int]) -> dict[str, int]:
        """Return in how many rows values are gone, by `table` or `table.column`, as named before.

        A renamed table or column is the same one; a value where none was is no loss. Only tables in
        `touched` are compared: the others cannot have changed.
        """
        now = list(tables)
        by_oid = {one.oid: one for one in now}
        by_name = {one.name: one for one in now}
        found: dict[str, int] = {}
        pairs = {
            oid: by_oid.get(oid) or by_name.get(kept.table.name)
            for oid, kept in self._kept.items()
            if oid in touched or oid not in by_oid
        }
        columns = self._columns([one.oid for one in pairs.values() if one is not None])
        for oid, after in pairs.items():
            kept = self._kept[oid]
            if after is None:
                found[kept.table.name] = self._counted(kept, "*")
            else:
                found |= dict(self._lost_of(kept, after, columns.get(after.oid, ())))
        return {name: rows for name, rows in sorted(found.items()) if rows}

    def _lost_of(
        self, kept: _Kept, after: Relation, columns: tuple[_Column, ...]
    ) -> Iterator[tuple[str, int]]:
        """Yield what a table has lost that still exists."""
        table = kept.table.name
        same_table = after.oid == kept.table.oid
        numbers = {one.number: one for one in columns}
        names = {one.name: one for one in columns}
        pairs = [
            (one, (numbers.get(one.number) if same_table else None) or names.get(one.name))
            for one in kept.columns
        ]
        for column, now in pairs:
            if now is None:
                yield f"{table}.{column.name}", self._counted(kept, f"c{column.number}")
        there = [(column, now) for column, now in pairs if now is not None]
        key_before = [one for one in kept.columns if one.in_key]
        key_after = [now for column, now in there if column.in_key]
        if key_before and len(key_before) == len(key_after):
            yield from self._by_key(kept, after, there, key_after)
        else:
            yield table, self._without_key(kept, after, there)

    def _counted(self, kept: _Kept, what: str) -> int:
        """Count the rows that were kept, `*`, or the values of a column."""
        query = f"SELECT count({what}) FROM {kept.copy}"
        return int(self._session.execute(query.encode()).fetchall()[0][0])

    def _by_key(
        self,
        kept: _Kept,
        after: Relation,
        pairs: list[tuple[_Column, _Column]],
        key: list[_Column],
    ) -> Iterator[tuple[str, int]]:
        """Compare row by row, as the primary key names them."""
        compared = [pair for pair in pairs if not pair[0].in_key]
        changed = [
            f"count(*) FILTER (WHERE a.key IS NOT NULL AND b.c{old.number} IS DISTINCT FROM"
            f" a.c{old.number} AND b.c{old.number} IS NOT NULL)"
            for old, _now in compared
        ]
        counts = ", ".join(["count(*) FILTER (WHERE a.key IS NULL)", *changed])

        def count(*, cast: bool) -> tuple[int, ...]:
            hashes = "".join(
                f", {_HASH.format(_as_before(old, now) if cast else now.sql)} AS c{old.number}"
                for old, now in compared
            )
            query = (
                f"SELECT {counts} FROM {kept.copy} AS b LEFT JOIN (SELECT"
                f" {_key(key, all_of=True)} AS key{hashes} FROM ONLY {after.sql}) AS a"
                " ON a.key = b.key"
            )
            found: tuple[int, ...] = self._session.execute(query.encode()).fetchall()[0]
            return found

        try:
            gone, *values = count(cast=True)
        except psycopg.Error:  # the new type has no way back: values are compared as they are
            gone, *values = count(cast=False)
        yield kept.table.name, gone
        for (old, _now), rows in zip(compared, values, strict=True):
            yield f"{kept.table.name}.{old.name}", rows

    def _without_key(
        self, kept: _Kept, after: Relation, pairs: list[tuple[_Column, _Column]]
    ) -> int:
        """Count the rows that are not there any more with the same values, as often."""
        before = ", ".join(f"c{old.number}" for old, _ in pairs) or "1"
        now = ", ".join(_HASH.format(new.sql) for _, new in pairs) or "1"
        query = (
            f"SELECT count(*) FROM (SELECT {before} FROM {kept.copy} EXCEPT ALL"
            f" SELECT {now} FROM ONLY {after.sql}) AS gone"
        )
        return int(self._session.execute(query.encode()).fetchall()[0][0])

    def _columns(self, oids: list[int]) -> dict[int, tuple[_Column, ...]]:
        found: dict[int, list[_Column]] = {}
        for oid, *column in self._session.execute(_COLUMNS.encode(), [oids]):
            found.setdefault(oid, []).append(_Column(*column))
        return {oid: tuple(columns) for oid, columns in found.items()}


def _as_before(old: _Column, now: _Column) -> str:
    """Return a value as SQL, in the type that it had: it is the same if that brings it back."""
    return now.sql if now.type == old.type else f"CAST({now.sql} AS {old.type})"


def _key(columns: Iterable[_Column], *, all_of: bool = False) -> str:
    """Return the hash that a row is known by, as SQL."""
    chosen = list(columns)
    in_key = chosen if all_of else [one for one in chosen if one.in_key]
    parts = [f"coalesce(quote_literal({one.sql}), 'NULL')" for one in in_key or chosen]
    return f"pg_catalog.hashtextextended(concat_ws(',', {', '.join(parts) or chr(39) * 2}), 0)"
