"""The rows that the statements of the models are tried with: a few awkward ones of each table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from schema.postgres.connection import driver_of
from schema.rows.generator import Generator
from schema.rows.maker import Row
from schema.rows.tables import TableRows, quote, read_tables
from schema.rows.visibility import all_rows_visible

_LOOKED_AT = 60
"""Among how many rows of a table the samples are chosen."""
_KEPT = 5
"""How many rows of a table are samples."""

type _Rank = tuple[int, float, str]
"""Orders the values of a column: texts by their length, everything else by its size."""


@dataclass(frozen=True)
class Sample:
    """A row of a table."""

    document: str
    """As JSON."""
    user: str
    """The id of the user who owns it, or of any; "" if there is no user."""


def sample_rows(connection: Connection) -> Mapping[str, Sequence[Sample]]:
    """Return a few rows of each table that has any, by name; the one with the fewest NULLs first.

    The others have the longest and the shortest, the largest and the smallest values, and NULLs:
    what a new constraint refuses first.
    """
    tables = read_tables(connection)
    generator = Generator(connection, tables)
    found: dict[str, Sequence[Sample]] = {}
    with undone(connection), all_rows_visible(connection):
        users = [*generator.users, ""]
        for table in tables.tables:
            rows = generator.rows(table.name)[:_LOOKED_AT]
            samples = [
                Sample(document, row.owner or users[0])
                for row in rows
                for document in _documents(connection, table, row)
            ]
            if samples:
                found[table.name] = _awkward(list(dict.fromkeys(samples)))
    return found


@contextmanager
def undone(connection: Connection) -> Iterator[None]:
    """Undo a block, within the connection's transaction."""
    with connection.begin_nested() as savepoint:
        yield
        savepoint.rollback()


def _documents(connection: Connection, table: TableRows, row: Row) -> Iterator[str]:
    """Yield the row as JSON; of a table without keys, any rows."""
    where = " AND ".join(f"{quote(name)}::text IS NOT DISTINCT FROM %s" for name in row.values)
    query = f"SELECT row_to_json(t)::text FROM {table.sql} AS t WHERE ".replace("%", "%%")
    limit = 1 if where else _LOOKED_AT
    found = driver_of(connection).execute(
        f"{query}{where or 'true'} LIMIT {limit}".encode(), list(row.values.values())
    )
    yield from (document for (document,) in found)


def _awkward(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Choose rows which together have as many extremes as possible."""
    chosen = [min(samples, key=lambda one: one.document.count(":null"))]
    extremes = _extremes(samples)
    while len(chosen) < _KEPT:
        seen = {extreme for one in chosen for extreme in extremes[one]}
        missing = {
            one: sum(weight for weight, _ in extremes[one] - seen)
            for one in samples
            if one not in chosen
        }
        best = max(missing, key=lambda one: missing[one], default=None)
        if best is None or not missing[best]:
            break
        chosen.append(best)
    return chosen


def _extremes(samples: Sequence[Sample]) -> Mapping[Sample, set[tuple[int, str]]]:
    """Return of which columns each row has an extreme, with its weight.

    The largest value weighs most: it is what a narrower column refuses.
    """
    found: dict[Sample, set[tuple[int, str]]] = {one: set() for one in samples}
    rows = [(one, json.loads(one.document)) for one in samples]
    for name in rows[0][1]:
        ranks = {one: _rank(values[name]) for one, values in rows if values[name] is not None}
        for one in samples:
            if one not in ranks:
                found[one].add((1, name))
        for weight, extreme in ((3, max), (2, min)):
            if ranks:
                found[extreme(ranks, key=lambda one: ranks[one])].add((weight, name))
    return found


def _rank(value: object) -> _Rank:
    if isinstance(value, int | float):
        return 0, value, ""
    text = value if isinstance(value, str) else json.dumps(value)
    return 1, len(text), text
