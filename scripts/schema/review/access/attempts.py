"""Statements as a role, for somebody who acts: each is undone at once."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from schema.review.execution.relations import Session
from schema.rows.tables import quote

SAMPLE = 6
"""How many rows of a table are inserted anew, to see whether a role may."""

type Acting = tuple[tuple[str, str], ...]
"""The settings that say who acts, with their values; none: nothing was ever set."""

_REACHED = (psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation)
"""Privileges and policies come before keys: who meets one of these reached the row."""


@dataclass(frozen=True)
class Relation:
    """A table or view."""

    oid: int
    name: str
    sql: str
    kind: str
    query: str | None
    """Of a view."""
    key: tuple[str, ...]
    secured: bool
    """Whether row security is on."""
    columns: tuple[tuple[int, str, bool], ...]
    """Number, name, and whether an INSERT may name it."""

    @property
    def hashed(self) -> str:
        """What names a row, as SQL: the hash of its primary key, or of its first column."""
        names = self.key or tuple(name for _, name, _ in self.columns[:1])
        parts = ", ".join(f"{quote(name)}::text" for name in names) or "1"
        return f"pg_catalog.hashtextextended(pg_catalog.concat_ws(',', {parts}), 0)"

    def statement(self, command: str, may: Set[tuple[int, str]]) -> str:
        """Return an UPDATE that changes nothing, if it may, or a DELETE, of all that it reaches.

        `may` holds the numbers of columns, each with a privilege.
        """
        if command == "DELETE":
            return f"DELETE FROM {self.sql}"
        written = [
            (number, quote(name))
            for number, name, written in self.columns
            if written and (number, "UPDATE") in may
        ]
        readable = [name for number, name in written if (number, "SELECT") in may]
        if readable:
            return f"UPDATE {self.sql} SET {readable[0]} = {readable[0]}"
        # Keys and users come first, as a rule: a new value of the last column offends least.
        return f"UPDATE {self.sql} SET {written[-1][1] if written else 'none'} = DEFAULT"


@dataclass
class Tables:
    """The rows of all tables as they are before a statement."""

    query: str
    start: Counter[str] = field(default_factory=Counter)
    known: object = None
    """What `summary` returns for them: most statements change none."""

    @property
    def summary(self) -> str:
        """Return the query for the number of all rows, and the sum of their hashes."""
        return f"SELECT count(*), sum(hash) FROM ({self.query}) AS x (oid, hash)"


@dataclass(frozen=True)
class Attempts:
    """The session of a superuser, in a transaction that is rolled back."""

    session: Session

    @contextmanager
    def become(self, role: str | None, acting: Acting, prepare: str = "") -> Iterator[None]:
        """Act as a role in a block, which is undone; as the superuser without a role."""
        settings = (
            f"SELECT pg_catalog.set_config({literal(name)}, {literal(value)}, true)"
            for name, value in acting
        )
        become = "" if role is None else f"SET LOCAL ROLE {quote(role)}"
        # In one message: there are thousands of these blocks.
        self.session.execute(
            "; ".join(filter(None, ("SAVEPOINT attempt", prepare, *settings, become))).encode()
        )
        try:
            yield
        finally:
            self.session.execute("ROLLBACK TO attempt; RELEASE attempt")

    def query(
        self, role: str | None, acting: Acting, sql: str, prepare: str = ""
    ) -> list[str] | None:
        """Return the first column of a query as a role; None if it fails."""
        try:
            with self.become(role, acting, prepare):
                return sorted(str(row[0]) for row in self.session.execute(sql.encode()))
        except psycopg.Error:
            return None

    def count(self, role: str, acting: Acting, sql: str, prepare: str = "") -> int:
        """Return how many rows a statement changes as a role; 0 if it fails."""
        try:
            with self.become(role, acting, prepare):
                return self.session.execute(sql.encode()).rowcount
        except (*_REACHED, psycopg.errors.NotNullViolation):
            return 1
        except psycopg.Error:
            return 0

    def effect(
        self, role: str, acting: Acting, sql: str, *, tables: Tables, prepare: str = ""
    ) -> tuple[list[str] | None, Counter[str]]:
        """Return what a query returns, and the rows of the tables after it."""
        try:
            with self.become(role, acting, prepare):
                found = [str(row[0]) for row in self.session.execute(sql.encode())]
                self.session.execute("RESET ROLE")
                return sorted(found), self.contents(tables)
        except psycopg.Error:
            return None, Counter()

    def contents(self, tables: Tables) -> Counter[str]:
        """Count the rows of all tables, by table and hash."""
        (summary,) = self.session.execute(tables.summary.encode()).fetchall()
        if summary == tables.known:
            return tables.start
        return Counter(f"{oid}:{row}" for oid, row in self.session.execute(tables.query.encode()))

    def inserted(
        self, one: Relation, role: str, acting: Acting, sample: Mapping[str, str], prepare: str = ""
    ) -> Iterator[str]:
        """Yield the rows of a sample that the role may insert anew."""
        written = [name for _, name, written in one.columns if written]
        may = self.session.execute(
            "SELECT x.name FROM unnest(%s::text[]) AS x (name)"
            " WHERE has_column_privilege(%s, %s::oid, x.name, 'INSERT')",
            [written, role, one.oid],
        )
        columns = ", ".join(quote(name) for (name,) in may)
        insert = (
            f"INSERT INTO {one.sql} ({columns}) SELECT {columns}"
            f" FROM json_populate_record(CAST(NULL AS {one.sql}), %s::json)"
        )
        for row, document in sample.items():
            try:
                with self.become(role, acting, prepare):
                    self.session.execute(insert.encode(), [document])
            except _REACHED:
                yield row
            except psycopg.Error:
                continue
            else:
                yield row

    def sample(self, one: Relation, actings: Sequence[Acting]) -> dict[str, str]:
        """Return some rows as JSON, by their hash: for a view, what it shows each who acts."""
        found: dict[str, str] = {}
        sql = (
            f"SELECT {one.hashed}, row_to_json(t)::text FROM {one.sql} AS t"
            f" ORDER BY 1 LIMIT {SAMPLE}"
        )
        for acting in actings:
            try:
                with self.become(None, acting):
                    rows = self.session.execute(sql.encode()).fetchall()
            except psycopg.Error:
                continue
            found.update((str(row), document) for row, document in rows)
        return found


def literal(value: str) -> str:
    """Quote a value."""
    return "'" + value.replace("'", "''") + "'"


def counted(number: int) -> str:
    """Say a number of rows."""
    return "1 row" if number == 1 else f"{number} rows"


def more(shown: int, own: int) -> str:
    """Say that something gives rows that its reader does not reach itself."""
    if own >= shown:
        return "rows of other users"  # as many, but others: they are in what is counted or joined
    if own == 0:
        return f"{counted(shown)} that the role itself does not reach"
    return f"{counted(shown)}, of which the role itself reaches {own}"
