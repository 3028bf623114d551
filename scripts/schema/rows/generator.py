"""Fill the tables of a database with rows, parents first.

Every row is valid, because PostgreSQL itself filters what the CHECKs refuse; the rows are the same
for the same seed. In each table, one row has NULL wherever it may, one is filled everywhere, and
the others mix both. What cannot be found is reported with the constraint's text.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from schema.errors import CannotRunError
from schema.postgres.connection import connect, driver_of
from schema.rows.maker import NAME_SAMPLES, Maker, Row, Values, describe
from schema.rows.tables import USERS, Check, Column, TableRows, Tables, quote, read_tables
from schema.rows.values import candidates

type Samples = Mapping[tuple[str, str], Sequence[str]]
"""Values that a model names for a column, by table and column."""

_CANDIDATES = 150
"""How many candidates are tried at a time."""


@dataclass(frozen=True)
class Shortage:
    """A table that has fewer rows than were wanted."""

    table: str
    why: str
    of_parents: bool = False
    """Whether a table that it references has no rows."""

    def __str__(self) -> str:
        """Say what to do."""
        return f"No row could be made for table {self.table}: {self.why}"


class Generator:
    """Makes rows in a database, within the connection's transaction."""

    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        *,
        seed: str = "",
        samples: Samples | None = None,
    ) -> None:
        """Use the tables as they are now; the rows that they hold can be parents."""
        self._connection = connection
        self.tables = tables
        self._seed = seed
        self._samples = samples or {}
        self._rows: dict[str, list[Row]] = {}
        self.shortages: list[Shortage] = []
        self.error = ""
        """PostgreSQL's message for the last row that it refused."""

    def fill(self, wanted: Mapping[str, int], owners: int = 2) -> None:
        """Add rows to these tables: so many for each owner, or in all where a table has none.

        The owners are the first users. The table of the users gets one more, who owns nothing.
        """
        for table in self.tables.tables:
            if number := wanted.get(table.name, 0):
                self.add(table, list(self._owners(table, number, owners)))

    def spread(self, wanted: Mapping[str, int]) -> None:
        """Add so many rows to each of these tables, spread over all users."""
        for table in self.tables.tables:
            number = wanted.get(table.name, 0)
            owned = table.name != USERS and self._leads_to_user(table)
            users: Sequence[str | None] = (self.users if owned and number else ()) or (None,)
            if number:
                self.add(table, [users[place % len(users)] for place in range(number)])

    def _owners(self, table: TableRows, number: int, owners: int) -> Iterator[str | None]:
        """Yield the owner of each new row."""
        if table.name == USERS:
            yield from [None] * max(number, owners + 1)
        elif self._leads_to_user(table):
            for user in self.users[:owners]:
                yield from [user] * number
        else:
            yield from [None] * number

    def rows(self, name: str) -> list[Row]:
        """Return the rows of a table; those that were there before are read once."""
        if name not in self._rows:
            table = self.tables[name]
            self._rows[name] = []  # in a cycle of references, a row's owner is not known
            self._rows[name] = list(self._with_owners(table, self._existing(table)))
        return self._rows[name]

    @property
    def users(self) -> list[str]:
        """The ids of the users."""
        return [
            row.owner
            for row in (self.rows(USERS) if USERS in self.tables else [])
            if row.owner is not None
        ]

    def add(
        self,
        table: TableRows,
        owners: Sequence[str | None],
        fixed: Mapping[str, str | None] | None = None,
    ) -> list[Row]:
        """Add a row for each of these owners, with these values; return what was added."""
        added: list[Row] = []
        seed = f"{self._seed} {table.name} {len(self.rows(table.name))}"
        maker = Maker(table, Random(seed), self.rows, self.pool)  # noqa: S311  # repeatable rows, no secrets
        for attempt in range(3):
            rows = [
                made
                for number, owner in enumerate(owners[len(added) :])
                if (
                    made := maker.make(
                        owner, (len(added) + number) % len(owners) + attempt, fixed or {}
                    )
                )
            ]
            if not rows:
                break
            inserted = list(self._with_owners(table, self._insert(table, rows)))
            self._rows[table.name] += inserted
            added += inserted
            if len(added) >= len(owners):
                return added
        if not self.rows(table.name):
            self.shortages.append(
                Shortage(table.name, maker.why or self._refusal(table), maker.parentless)
            )
        return added

    def _insert(self, table: TableRows, rows: list[Values]) -> list[Values]:
        """Insert what is valid, and return the columns that other tables may need.

        If PostgreSQL raises an error for one of the rows, they are inserted one by one.
        """
        driver = driver_of(self._connection)
        names = [column.name for column in table.columns if column.written]
        returned = self._needed(table)
        returning = f"RETURNING {_as_text(returned)}"
        try:
            with driver.transaction():
                inserted = self._copy(driver, table, names, rows, returning)
        except psycopg.Error as error:
            self.error = error.diag.message_primary or str(error)
            inserted = self._one_by_one(driver, table, names, rows, returning)
        return [dict(zip(returned, row, strict=False)) for row in inserted]

    @staticmethod
    def _copy(
        driver: psycopg.Connection[Any],
        table: TableRows,
        names: list[str],
        rows: list[Values],
        returning: str,
    ) -> list[tuple[Any, ...]]:
        """Insert through COPY, without the rows that a CHECK or a key refuses."""
        quoted = ", ".join(map(quote, names))
        checks = [one for one in table.checks if set(one.columns) <= set(names)]
        valid = " AND ".join(f"({one.condition}) IS NOT FALSE" for one in checks) or "true"
        source = "pg_temp.schema_rows"
        create = f"CREATE TEMP TABLE schema_rows AS SELECT {quoted} FROM {table.sql} WITH NO DATA"
        driver.execute(create.encode())
        if names:
            with driver.cursor() as cursor, cursor.copy(f"COPY {source} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row([row[name] for name in names])
        inserted = driver.execute(
            f"INSERT INTO {table.sql} ({quoted}) SELECT {quoted} FROM {source}"
            f" AS {quote(table.name.rpartition('.')[2])} WHERE {valid} ON CONFLICT DO NOTHING"
            f" {returning}".encode()
        ).fetchall()
        driver.execute(f"DROP TABLE {source}".encode())
        return inserted

    def _one_by_one(
        self,
        driver: psycopg.Connection[Any],
        table: TableRows,
        names: list[str],
        rows: list[Values],
        returning: str,
    ) -> list[tuple[Any, ...]]:
        """Insert each row in a savepoint of its own, and leave out those that are refused."""
        types = {column.name: column.sql for column in table.columns}
        quoted = ", ".join(map(quote, names))
        # A name may contain a %, which is no parameter.
        values = ", ".join(f"CAST(%s AS {types[name].replace('%', '%%')})" for name in names)
        into, returning = (
            part.replace("%", "%%") for part in (f"{table.sql} ({quoted})", returning)
        )
        insert = f"INSERT INTO {into} VALUES ({values}) {returning}".encode()
        inserted = []
        for row in rows:
            try:
                with driver.transaction():
                    done = driver.execute(insert, [row[name] for name in names])
                    inserted += done.fetchall()
            except psycopg.Error as error:
                self.error = error.diag.message_primary or str(error)
        return inserted

    def _refusal(self, table: TableRows) -> str:
        if self.error:
            return f"PostgreSQL refuses each ({self.error}). {NAME_SAMPLES}"
        return describe(table.checks)

    def _existing(self, table: TableRows) -> list[Values]:
        names = self._needed(table)
        order = ", ".join(f"{quote(name)}::text" for name in names) or "1"
        rows = self._connection.exec_driver_sql(
            f"SELECT {_as_text(names)} FROM {table.sql} ORDER BY {order}".replace("%", "%%")
        )
        return [dict(zip(names, row, strict=False)) for row in rows]

    def _needed(self, table: TableRows) -> list[str]:
        """List the columns of a table's keys and references, and those that others reference."""
        names = {name for key in table.keys for name in key}
        names |= {name for reference in table.references for name in reference.columns}
        for other in self.tables.tables:
            for reference in other.references:
                if reference.parent == table.name:
                    names |= set(reference.parent_columns)
        return sorted(names)

    def _with_owners(self, table: TableRows, rows: list[Values]) -> Iterator[Row]:
        """Find the owner of each row, by its first reference."""
        if table.name == USERS:
            yield from (Row(values, values.get("id")) for values in rows)
            return
        if not table.references:
            yield from (Row(values, None) for values in rows)
            return
        first = table.references[0]
        owners = {
            tuple(parent.values[name] for name in first.parent_columns): parent.owner
            for parent in self.rows(first.parent)
        }
        for values in rows:
            yield Row(values, owners.get(tuple(values[name] for name in first.columns)))

    def _leads_to_user(self, table: TableRows) -> bool:
        seen = {table.name}
        while table.references and table.name != USERS:
            parent = table.references[0].parent
            if parent in seen:
                return False
            seen.add(parent)
            table = self.tables[parent]
        return table.name == USERS

    def pool(self, table: TableRows, column: Column, rng: Random) -> Iterator[str]:
        """Yield values of a column that its type and its own checks accept."""
        checks = [check for check in table.checks if check.columns == (column.name,)]
        named = self._samples.get((table.name, column.name))
        conditions = "\n".join(
            check.condition for check in table.checks if column.name in check.columns
        )
        source = candidates(self.tables.types, column.type, column.modifier, conditions, rng)
        if named:  # whoever names samples knows better
            yield from self._accepted(column, checks, list(named))
            return
        first = True
        while tried := list(islice(source, _CANDIDATES)):
            # The candidates of a base type are values of it: there is nothing to ask, except
            # whether the server was built with XML.
            kind = self.tables.types[column.type]
            plain = not conditions and kind.kind == "b" and kind.name not in {"xml", "numeric"}
            good = tried if plain else self._accepted(column, checks, tried)
            if first:
                good = _extremes(good)
            if not good:
                return
            yield from dict.fromkeys(good)
            first = False

    def _accepted(self, column: Column, checks: list[Check], values: list[str]) -> list[str]:
        """Let PostgreSQL choose the values that the type and the checks accept."""
        valid = " AND ".join(f"({check.condition}) IS NOT FALSE" for check in checks) or "true"
        # What comes from the catalogs may contain a colon, which is no parameter.
        name, kind, valid = (
            part.replace(":", r"\:") for part in (quote(column.name), column.sql, valid)
        )
        query = text(
            'SELECT "schema value" FROM (SELECT u.x AS "schema value", u.y AS "schema place",'
            f" CASE WHEN pg_input_is_valid(u.x, :type) THEN CAST(u.x AS {kind}) END AS {name}"
            " FROM unnest(CAST(:values AS text[])) WITH ORDINALITY AS u (x, y)) AS c"
            f' WHERE {name} IS NOT NULL AND {valid} ORDER BY "schema place"'
        )
        try:
            with self._connection.begin_nested():
                found = self._connection.execute(query, {"values": values, "type": column.sql})
                return list(found.scalars())
        except DBAPIError:
            if len(values) == 1:
                return []
            return [one for value in values for one in self._accepted(column, checks, [value])]


def fill_database(url: URL, samples: Samples, each: int = 20, owners: int = 5) -> None:
    """Fill every table of a database at head, except reference tables that hold rows.

    Raises:
        CannotRunError: no row could be made for a table.

    """
    with connect(url) as connection:
        tables = read_tables(connection)
        generator = Generator(connection, tables, seed="seed", samples=samples)
        empty = {one.name: each for one in tables.tables if not generator.rows(one.name)}
        generator.fill(empty, owners)
        if generator.shortages:
            raise CannotRunError(f"{generator.shortages[0]}")
        connection.commit()


def _extremes(values: list[str]) -> list[str]:
    """Put the longest and the shortest value first."""
    if not values:
        return []
    return [max(values, key=len), min(values, key=len), *values]


def _as_text(names: Sequence[str]) -> str:
    return ", ".join(f"{quote(name)}::text" for name in names) or "1"
