"""Try what each role can see and do: statements as the role, on rows, each undone at once.

A view is compared with its own query, executed as its reader; a function that runs with its owner's
rights with itself, run with its caller's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from schema.review.access import queries
from schema.review.execution.relations import Session
from schema.rows.tables import quote

STRANGER = "schema_review_stranger"
"""A role without privileges of its own: what it can do, PUBLIC can."""

SAMPLE = 6
"""How many rows of a table are inserted anew, to see whether a role may."""

_SECONDS = 20
"""How long a statement may take: a function of the schema may never end."""

type Settings = Mapping[str, Sequence[str]]
"""The settings that say who acts, each with the values that are tried."""
type _Acting = tuple[str, str]
"""A setting and its value."""


@dataclass
class Access:
    """What every role can do."""

    roles: tuple[str, ...]
    names: Mapping[int, str]
    """The relations, by oid."""
    columns: Mapping[tuple[int, int], str]
    """Their columns, by oid and number."""
    privileges: frozenset[tuple[str, int, int, str]]
    """A role, a relation, the number of a column or 0, and the privilege."""
    others: frozenset[tuple[str, str, str]]
    """A role, what it is about, and what it can: only the catalogs say so."""
    rows: dict[int, frozenset[str]] = field(default_factory=dict)
    """The rows of each table, by the hash of their key."""
    reached: dict[tuple[str, int, str], frozenset[str]] = field(default_factory=dict)
    """The rows that a command reaches, for a role and a table."""
    given: dict[tuple[str, str], str] = field(default_factory=dict)
    """What a view or function gives a role beyond what it reaches itself, in words."""
    unsafe: frozenset[str] = frozenset()
    """Functions that run with their owner's rights, and their caller's search_path."""


@dataclass(frozen=True)
class _Relation:
    oid: int
    name: str
    sql: str
    kind: str
    query: str | None
    """Of a view."""
    key: tuple[str, ...]
    columns: tuple[tuple[int, str, bool], ...]
    """Number, name, and whether an INSERT may name it."""

    @property
    def hashed(self) -> str:
        """What names a row, as SQL: the hash of its primary key, or of its first column."""
        names = self.key or tuple(name for _, name, _ in self.columns[:1])
        parts = ", ".join(f"{quote(name)}::text" for name in names) or "1"
        return f"pg_catalog.hashtextextended(pg_catalog.concat_ws(',', {parts}), 0)"


def platform_roles(session: Session) -> list[str]:
    """Return the roles that administer the server, before any revision could make one."""
    return [name for (name,) in session.execute(queries.PLATFORM)]


def read_access(session: Session, settings: Settings, platform: Sequence[str]) -> Access:
    """Try what every role can do, in a transaction that is rolled back.

    The session must be able to become each role; `platform` names roles that are not ours.
    """
    with session.transaction(force_rollback=True):
        session.execute(f"SET LOCAL statement_timeout = '{_SECONDS}s'".encode())
        session.execute(f"CREATE ROLE {STRANGER}".encode())
        named = session.execute(queries.ROLES.encode(), {"platform": list(platform)})
        roles = [name for (name,) in named if name != STRANGER]
        trial = _Trial(session, (*roles, STRANGER), settings)
        relations = _relations(session)
        found = trial.privileges(relations)
        for one in relations:
            if one.query is None:
                trial.rows(one, found)
            else:
                trial.view(one, found)
        trial.functions(found)
    return found


def _relations(session: Session) -> list[_Relation]:
    found = session.execute(queries.RELATIONS.encode()).fetchall()
    columns: dict[int, list[tuple[int, str, bool]]] = {}
    oids = [row[0] for row in found]
    for oid, number, name, written in session.execute(queries.COLUMNS.encode(), [oids]):
        columns.setdefault(oid, []).append((number, name, written))
    return [
        _Relation(oid, name, sql, kind, query, tuple(key), tuple(columns.get(oid, ())))
        for oid, name, sql, kind, query, key in found
    ]


@dataclass
class _Trial:
    session: Session
    roles: tuple[str, ...]
    settings: Settings

    def acting(self) -> Iterator[_Acting]:
        """Yield each setting that says who acts, with each of its values."""
        for name, values in self.settings.items():
            for value in values:
                yield name, value

    @contextmanager
    def become(self, role: str, acting: _Acting) -> Iterator[None]:
        """Act as a role in a block, which is undone."""
        with self.undone():
            self.session.execute("SELECT pg_catalog.set_config(%s, %s, true)", acting)
            self.session.execute(f"SET LOCAL ROLE {quote(role)}".encode())
            yield

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Undo a block."""
        self.session.execute("SAVEPOINT attempt")
        try:
            yield
        finally:
            self.session.execute("ROLLBACK TO attempt; RELEASE attempt")

    def query(self, role: str, acting: _Acting, sql: str) -> list[str] | None:
        """Return the first column of a query as a role; None if it fails."""
        try:
            with self.become(role, acting):
                return sorted(str(row[0]) for row in self.session.execute(sql.encode()))
        except psycopg.Error:
            return None

    def count(self, role: str, acting: _Acting, sql: str) -> int:
        """Return how many rows a statement changes or returns as a role; 0 if it fails."""
        try:
            with self.become(role, acting):
                return self.session.execute(sql.encode()).rowcount
        except psycopg.Error:
            return 0

    def privileges(self, relations: Sequence[_Relation]) -> Access:
        """Read what the catalogs say."""
        names = {
            "roles": list(self.roles),
            "oids": [one.oid for one in relations],
            "stranger": STRANGER,
        }
        return Access(
            roles=self.roles,
            names={one.oid: one.name for one in relations},
            columns={
                (one.oid, number): name for one in relations for number, name, _ in one.columns
            },
            privileges=frozenset(
                self.session.execute(queries.PRIVILEGES.encode(), names).fetchall()
            ),
            others=frozenset(self.session.execute(queries.OTHERS.encode(), names).fetchall()),
        )

    def rows(self, one: _Relation, found: Access) -> None:
        """Try which rows of a table each role reaches, by each command."""
        everything = self.session.execute(f"SELECT {one.hashed} FROM {one.sql}".encode())
        found.rows[one.oid] = frozenset(str(row[0]) for row in everything)
        may = {(role, command) for role, oid, _, command in found.privileges if oid == one.oid}
        for role in self.roles:
            for command in ("SELECT", "UPDATE", "DELETE", "INSERT"):
                if (role, command) in may:
                    named = (role, "SELECT") in may
                    found.reached[role, one.oid, command] = frozenset(
                        row
                        for acting in self.acting()
                        for row in self._reached(one, role, acting, command, named=named)
                    )

    def _reached(
        self, one: _Relation, role: str, acting: _Acting, command: str, *, named: bool
    ) -> Iterable[str]:
        """Return which rows a command reaches; only numbers, where the role may not read."""
        if command == "SELECT":
            return self.query(role, acting, f"SELECT {one.hashed} FROM {one.sql}") or ()
        if command == "INSERT":
            return self._inserted(one, role, acting)
        statement = f"DELETE FROM {one.sql}"
        if command == "UPDATE":
            same = next((quote(name) for _, name, written in one.columns if written), None)
            statement = f"UPDATE {one.sql} SET {same} = {same}"
        if named:
            return self.query(role, acting, f"{statement} RETURNING {one.hashed}") or ()
        return (f"#{number}" for number in range(self.count(role, acting, statement)))

    def _inserted(self, one: _Relation, role: str, acting: _Acting) -> Iterator[str]:
        """Yield the rows of a sample that the role may insert anew."""
        written = [name for _, name, written in one.columns if written]
        may = self.session.execute(
            "SELECT x.name FROM unnest(%s::text[]) AS x (name)"
            " WHERE has_column_privilege(%s, %s::oid, x.name, 'INSERT')",
            [written, role, one.oid],
        )
        columns = ", ".join(quote(name) for (name,) in may)
        sample = self.session.execute(
            f"SELECT {one.hashed}, row_to_json(t)::text FROM {one.sql} AS t"
            f" ORDER BY 1 LIMIT {SAMPLE}".encode()
        ).fetchall()
        insert = (
            f"INSERT INTO {one.sql} ({columns}) SELECT {columns}"
            f" FROM json_populate_record(CAST(NULL AS {one.sql}), %s::json)"
        )
        for row, document in sample:
            try:
                with self.become(role, acting):
                    self.session.execute(insert.encode(), [document])
            except (psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation):
                yield str(row)  # privileges and policies come before keys: it was reached
            except psycopg.Error:
                continue
            else:
                yield str(row)

    def view(self, one: _Relation, found: Access) -> None:
        """Compare what a view shows with what its own query shows its reader."""
        for role in self.roles:
            for acting in self.acting():
                shown = self.count(role, acting, f"SELECT FROM {one.sql}")
                own = self.count(role, acting, f"SELECT FROM ({one.query}) AS own")
                if shown > own:
                    found.given[role, f"view {one.name}"] = _more(shown, own)

    def functions(self, found: Access) -> None:
        """Compare what a function gives with its owner's rights, and with its caller's."""
        unsafe = set()
        for oid, signature, name, types, kind, has_path in self.session.execute(
            queries.DEFINERS.encode(), ()
        ).fetchall():
            if not has_path:
                unsafe.add(signature)
            for role in self.roles:
                may = self.session.execute(
                    "SELECT has_function_privilege(%s, %s::oid, 'EXECUTE')", [role, oid]
                ).fetchall()[0][0]
                words = self._given(role, name, signature, types) if may and kind == "f" else ""
                if words or (may and kind != "f"):
                    found.given[role, f"function {signature}"] = words or _UNDECIDED
        found.unsafe = frozenset(unsafe)

    def _given(self, role: str, name: str, signature: str, types: Sequence[str]) -> str:
        """Say what a function gives the role; "" for nothing."""
        decided = False
        for values in self._arguments(types):
            call = f"SELECT to_json(f)::text FROM {name}({', '.join(values)}) AS f"
            for acting in self.acting():
                as_owner = self.query(role, acting, call)
                with self.undone():
                    self.session.execute(f"ALTER FUNCTION {signature} SECURITY INVOKER".encode())
                    as_caller = self._within(role, acting, call)
                if as_owner is not None:
                    decided = True
                    if as_owner != as_caller:
                        return _more(len(as_owner), len(as_caller or ()))
        return "" if decided else _UNDECIDED

    def _within(self, role: str, acting: _Acting, sql: str) -> list[str] | None:
        """Query as a role within a block that is undone anyway."""
        try:
            with self.session.transaction():
                self.session.execute("SELECT pg_catalog.set_config(%s, %s, true)", acting)
                self.session.execute(f"SET LOCAL ROLE {quote(role)}".encode())
                found = sorted(str(row[0]) for row in self.session.execute(sql.encode()))
                self.session.execute("RESET ROLE")
                return found
        except psycopg.Error:
            return None

    def _arguments(self, types: Sequence[str]) -> list[list[str]]:
        """Return values for the arguments, as SQL: what columns of the same types hold."""
        chosen: list[list[str]] = []
        for kind in types:
            values = [f"CAST(NULL AS {kind})"]
            for table, column in self.session.execute(
                queries.OF_TYPE.encode(), {"kind": kind}
            ).fetchall():
                found = self.session.execute(
                    f"SELECT quote_literal({column}::text) FROM {table}"
                    f" WHERE {column} IS NOT NULL ORDER BY 1 LIMIT 2".encode()
                )
                values += [f"CAST({value} AS {kind})" for (value,) in found]
            chosen.append(values)
        longest = max(map(len, chosen), default=1)
        return [[values[place % len(values)] for values in chosen] for place in range(longest)]


_UNDECIDED = "what it gives could not be tried"


def _more(shown: int, own: int) -> str:
    return f"{shown} rows, of which the role itself reaches {own}"
