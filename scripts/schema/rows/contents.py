"""What tables hold: read before a revision and after its downgrade, and compared value by value."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from schema.postgres.connection import driver_of
from schema.rows.tables import TableRows, quote

type Values = tuple[str | None, ...]


@dataclass(frozen=True)
class TableContents:
    """The rows of a table: the values as text, in the order of the columns' names."""

    columns: tuple[str, ...]
    key: tuple[str, ...]
    """The columns of the primary key."""
    rows: tuple[Values, ...]

    def select(self, columns: tuple[str, ...]) -> tuple[Values, ...]:
        """Return the rows with these columns only."""
        if columns == self.columns:
            return self.rows
        places = [self.columns.index(name) for name in columns]
        return tuple(tuple(row[place] for place in places) for row in self.rows)


type Contents = Mapping[str, TableContents]


def read_contents(connection: Connection, tables: Iterable[TableRows]) -> Contents:
    """Read all rows of the tables, in one round trip."""
    chosen = [table for table in tables if table.columns]
    driver = driver_of(connection)
    cursors = []
    # SQLAlchemy does not know of a transaction that the driver began, and would not end it.
    with driver.transaction(), driver.pipeline():
        for table in chosen:
            columns = ", ".join(f"{quote(column.name)}::text" for column in table.columns)
            cursors.append(driver.execute(f"SELECT {columns} FROM {table.sql}".encode()))
    return {
        table.name: TableContents(
            tuple(column.name for column in table.columns),
            table.primary_key,
            tuple(cursor.fetchall()),
        )
        for table, cursor in zip(chosen, cursors, strict=True)
    }


def lost(before: Contents, after: Contents, *, filling: bool = False) -> Mapping[str, int]:
    """Return how many rows lack what they held before, by `table` or `table.column`.

    A row is the same if its primary key is. What `after` holds beyond `before` does not count, nor
    with `filling` a value where there was NULL.
    """
    found: Counter[str] = Counter()
    for name, old in before.items():
        new = after.get(name)
        if new is None:
            found[name] += len(old.rows)
            continue
        columns = tuple(column for column in old.columns if column in new.columns)
        missing = Counter(old.select(columns)) - Counter(new.select(columns))
        for column in set(old.columns) - set(columns):
            found[f"{name}.{column}"] += len(old.rows)
        if missing:
            rows = new.select(columns)
            found.update(_changed(name, columns, old.key, missing, rows, filling=filling))
    return {name: number for name, number in found.items() if number}


def _changed(  # noqa: PLR0913  # two sets of rows, and how to compare them
    table: str,
    columns: tuple[str, ...],
    key: tuple[str, ...],
    missing: Counter[Values],
    rows: tuple[Values, ...],
    *,
    filling: bool,
) -> Iterable[str]:
    """Yield the column of each changed value, and the table for each row that is gone."""
    places = [columns.index(name) for name in key if name in columns]
    by_key = {tuple(row[place] for place in places): row for row in rows} if places else {}
    for row in missing.elements():
        now = by_key.get(tuple(row[place] for place in places))
        if now is None:
            yield table
            continue
        for column, old, new in zip(columns, row, now, strict=True):
            if old != new and not (filling and old is None):
                yield f"{table}.{column}"
