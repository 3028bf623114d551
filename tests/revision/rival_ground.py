"""The databases that the rivals of `schema revision` are measured on, and what happens to rows.

Each change of tests/snapshot/changes.sql gives two databases: the history's, with rows, and the
one that the models describe. A third one shows what a change that loses nothing does to the rows:
the rows of the history, changed by the statements of the change itself.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

import psycopg
from sqlalchemy import URL

from migrations import snapshot
from schema.postgres.connection import connect, driver_of
from schema.postgres.scratch import Server
from tests.revision.workshop import SCHEMA
from tests.snapshot.test_snapshot import CHANGES, UNCHANGED, Change
from tests.snapshot.test_snapshot import run as run_sql

# Values that no default gives, so that a column that is dropped and added again shows.
_OTHER_VALUES = """
    UPDATE reader SET
      born = '1950-01-02', joined = '2001-02-03 04:05:06+00', patience = '9 days', fee = 7.25,
      updated_at = '2002-03-04 05:06:07+00'
    WHERE name = 'Ann'
"""

# So that no rival takes Alembic's own table for one that nothing declares.
_VERSION_TABLE = """
    CREATE TABLE alembic_version (
      version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY
    );
    INSERT INTO alembic_version VALUES ('000000000001');
"""

# Default privileges of Neon's superuser are no part of the schema, and would confuse a rival.
_NO_PLATFORM = """
    ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM neon_superuser;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON SEQUENCES FROM neon_superuser;
"""

_COLUMNS = """
    SELECT c.oid::regclass::text, a.attname, a.attnum, a.attgenerated <> ''
    FROM pg_class AS c
    LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'
      AND c.relnamespace::regnamespace::text !~ '^(pg_|information_schema$)'
"""


@dataclass(frozen=True)
class Table:
    """A table's rows."""

    columns: Mapping[str, int]
    """The number of each column, which another column of the same name does not have."""
    generated: frozenset[str]
    rows: tuple[Mapping[str, object], ...]


type Rows = Mapping[str, Table]
"""The tables of a database, by name."""


@dataclass(frozen=True)
class Case:
    """A change, and what a perfect rival makes of it."""

    change: Change
    target: URL
    """The database that the models describe."""
    facts: snapshot.Snapshot
    reference: Rows | None
    """The rows that the statements of the change leave; None if they fail on these rows."""
    history: URL
    """What is cloned to be upgraded: with rows, unless the change fails on them."""


@dataclass
class Outcome:
    """What a rival made of a change."""

    detected: bool = False
    repaired: bool = False
    """Whether its upgrade leads to exactly the schema of the models."""
    lost: bool = False
    """Whether its upgrade lost values."""
    crash: str | None = None
    """The error with which it ended."""
    asked: bool = False
    """Whether it asked for a decision."""
    operations: list[str] = field(default_factory=list)
    crashes: int = 0
    """How many runs ended with an error, of those of which this is the best."""

    @property
    def kept(self) -> bool:
        """Whether the change was repaired, and every row kept."""
        return self.repaired and not self.lost


@dataclass(frozen=True)
class Ground:
    """The databases from which the ones for a change are cloned."""

    server: Server
    bare: URL
    """The schema without rows."""
    full: URL
    """The schema with rows, at the head of a history."""

    lock: Lock = field(default_factory=Lock)
    """The rivals work at the same time, and a server's connection does one thing at a time."""

    @contextmanager
    def clone(self, template: URL) -> Iterator[URL]:
        """Clone a database, and drop the clone afterwards."""
        with ExitStack() as stack:
            with self.lock:
                database = self.server.database(template)
                url = database.__enter__()
            stack.callback(self._drop, database)
            yield url

    def _drop(self, database: AbstractContextManager[URL]) -> None:
        with self.lock:
            database.__exit__(None, None, None)

    @cached_property
    def before(self) -> Rows:
        """The rows of the history."""
        return self.rows(self.full)

    @contextmanager
    def case(self, change: Change) -> Iterator[Case]:
        """Make what a change is compared with."""
        with self.clone(self.bare) as target:
            execute(target, change.sql)
            with connect(target) as connection:
                facts = snapshot.read(connection)
            reference = self._reference(change)
            history = self.bare if reference is None else self.full
            yield Case(change, target, facts, reference, history)

    def _reference(self, change: Change) -> Rows | None:
        with self.clone(self.full) as url:
            try:
                execute(url, change.sql)
            except psycopg.Error:
                return None
            return self.rows(url)

    def rows(self, url: URL) -> Rows:
        """Read the rows of every table, as a superuser: a change may take the owner's rights."""
        assert self.server.superuser is not None
        with connect(self.server.superuser.set(database=url.database)) as connection:
            driver = driver_of(connection)
            numbers: dict[str, dict[str, int]] = {}
            generated: dict[str, set[str]] = {}
            for table, column, number, is_generated in driver.execute(_COLUMNS.encode()):
                numbers.setdefault(table, {})
                generated.setdefault(table, set())
                if column is not None:
                    numbers[table][column] = number
                if is_generated:
                    generated[table].add(column)
            return {
                table: Table(columns, frozenset(generated[table]), _read(driver, table))
                for table, columns in numbers.items()
            }

    def judge(self, case: Case, url: URL, outcome: Outcome) -> None:
        """Compare an upgraded database with what it should be."""
        with connect(url) as connection:
            outcome.repaired = snapshot.read(connection) == case.facts
        if case.reference is not None:
            outcome.lost = loses(self.before, case.reference, self.rows(url))


def _read(driver: psycopg.Connection[object], table: str) -> tuple[Mapping[str, object], ...]:
    found = driver.execute(f"SELECT to_jsonb(t)::text FROM ONLY {table} AS t".encode())
    rows = [json.loads(one[0], parse_int=float) for one in found.fetchall()]  # type: ignore[index]  # a row of one text
    return tuple(rows)


def execute(url: URL, sql: str) -> None:
    """Execute a script as the owner, in one transaction."""
    with connect(url) as connection:
        run_sql(connection, sql)
        connection.commit()
        driver_of(connection).commit()


@contextmanager
def ground(server: Server, full: URL) -> Iterator[Ground]:
    """Make the databases; `full` has the rows of tests/revision/rows.sql."""
    assert server.superuser is not None
    with server.database() as bare:
        execute(bare, SCHEMA)
        execute(bare, _VERSION_TABLE)
        execute(full, _OTHER_VALUES)
        for url in (bare, full):
            execute(server.superuser.set(database=url.database), _NO_PLATFORM)
        yield Ground(server, bare, full)


def changes(version: int) -> list[Change]:
    """Return the changes that an owner can make on that major version."""
    return [one for one in CHANGES if _is_the_owners(one, version)]


def no_changes(version: int) -> list[Change]:
    """Return the statements that change no schema and that an owner can execute."""
    return [one for one in UNCHANGED if _is_the_owners(one, version)]


def _is_the_owners(change: Change, version: int) -> bool:
    if change.remarks & {"superuser", "cluster"}:
        return False
    return version >= 18 or "since 18" not in change.remarks


def loses(before: Rows, reference: Rows, after: Rows) -> bool:
    """Whether values are gone that the change itself keeps.

    What the reference shows must be there, by its names. A column of the same name that is another
    column has lost what was in the old one.
    """
    for name, table in reference.items():
        now = after.get(name)
        if now is None:
            if name in before and before[name].rows:
                return True
            continue
        shared = [one for one in table.columns if one in now.columns]
        if _projected(table, shared) != _projected(now, shared):
            return True
        if _is_replaced(before.get(name), table, now) and table.rows:
            return True
    return False


def _projected(table: Table, columns: list[str]) -> list[str]:
    rows = ({name: row[name] for name in columns} for row in table.rows)
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def _is_replaced(before: Table | None, wanted: Table, now: Table) -> bool:
    """Whether a column with values is gone, or another one has its name."""
    if before is None:
        return False
    for column, number in before.columns.items():
        if column in before.generated or wanted.columns.get(column) != number:
            continue  # the change itself replaces or drops it
        if now.columns.get(column) != number:
            return True
    return False


def first_line(error: BaseException) -> str:
    """Return an error's kind and the first line of its message."""
    text = ""
    with suppress(Exception):
        text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"
