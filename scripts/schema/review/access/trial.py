"""Try what each role can see and do: statements as the role, on rows, each undone at once.

A view is compared with its own query, executed as its reader; a function that runs with its owner's
rights with itself, run with its caller's.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from schema.review.access import queries
from schema.review.access.attempts import Acting, Attempts, Relation, literal
from schema.review.access.functions import Functions
from schema.review.access.views import Views
from schema.review.execution.relations import Session
from schema.rows.tables import quote

STRANGER = "schema_review_stranger"
"""A role without privileges of its own: what it can do, PUBLIC can."""

TO_ANOTHER = "UPDATE to another user"
"""The command that gives a row away."""

_SECONDS = 20
"""How long a statement may take: a function of the schema may never end."""

_SETTING = re.compile(r"current_setting\('([^']+\.[^']+)'", re.IGNORECASE)
_ON = ("on", "true", "1")
"""What is tried for a setting that no caller names: it may be a switch."""
_SWITCHES = 4
"""How many such settings are tried."""

type Settings = Mapping[str, Sequence[str]]
"""The settings that say who acts, each with the values that are tried."""


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
    given: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """What a view or function gives a role, by a command, beyond what it reaches itself."""
    unsafe: frozenset[str] = frozenset()
    """Functions that run with their owner's rights, and their caller's search_path."""
    secured: frozenset[int] = frozenset()
    """The tables with row security."""
    limited: frozenset[tuple[str, int]] = frozenset()
    """A role and a table of which it reaches other rows for each who acts."""
    shared: frozenset[tuple[str, int, str]] = frozenset()
    """A role and a table of which a command reaches the same rows for two who act."""
    owners: Mapping[int, str] = field(default_factory=dict)
    """The column of a table that names the user of a row."""
    references: frozenset[tuple[int, int]] = frozenset()
    """A table, and one that its rows belong to."""


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
        roles = (*(name for (name,) in named if name != STRANGER), STRANGER)
        relations = _relations(session)
        found = _by_catalogs(session, roles, relations, settings)
        trial = _Trial(Attempts(session), settings, _switches(session, settings), found)
        tables = [one for one in relations if one.query is None]
        trial.tables(tables)
        trial.views([one for one in relations if one.query is not None])
        trial.functions(tables)
    return found


def _relations(session: Session) -> list[Relation]:
    found = session.execute(queries.RELATIONS.encode()).fetchall()
    columns: dict[int, list[tuple[int, str, bool]]] = {}
    oids = [row[0] for row in found]
    for oid, number, name, written in session.execute(queries.COLUMNS.encode(), [oids]):
        columns.setdefault(oid, []).append((number, name, written))
    return [
        Relation(oid, name, sql, kind, query, tuple(key), secured, tuple(columns.get(oid, ())))
        for oid, name, sql, kind, query, key, secured in found
    ]


def _by_catalogs(
    session: Session, roles: tuple[str, ...], relations: Sequence[Relation], settings: Settings
) -> Access:
    """Read what the catalogs say."""
    oids = [one.oid for one in relations]
    names = {"roles": list(roles), "oids": oids, "stranger": STRANGER}
    return Access(
        roles=roles,
        names={one.oid: one.name for one in relations},
        columns={(one.oid, number): name for one in relations for number, name, _ in one.columns},
        privileges=frozenset(session.execute(queries.PRIVILEGES.encode(), names).fetchall()),
        others=frozenset(session.execute(queries.OTHERS.encode(), names).fetchall()),
        secured=frozenset(one.oid for one in relations if one.secured),
        owners=_owners(relations, settings),
        references=frozenset(session.execute(queries.REFERENCES.encode(), [oids]).fetchall()),
    )


def _owners(relations: Sequence[Relation], settings: Settings) -> dict[int, str]:
    """Find the columns that name a row's user: user_id, or what a setting is called."""
    last = [name.rpartition(".")[2] for name in settings]
    wanted = ["user_id", *last, *(f"{name}_id" for name in last)]
    found = {}
    for one in relations:
        columns = [name for _, name, written in one.columns if written]
        owner = next((name for name in wanted if name in columns), None)
        if owner is not None and one.query is None:
            found[one.oid] = owner
    return found


def _switches(session: Session, settings: Settings) -> list[str]:
    """Return the settings that policies, views and functions read, and no caller names."""
    bodies = session.execute(queries.BODIES.encode()).fetchall()
    names = {name for (body,) in bodies for name in _SETTING.findall(body or "")}
    return sorted(names - settings.keys())[:_SWITCHES]


@dataclass
class _Trial:
    attempts: Attempts
    settings: Settings
    switches: Sequence[str]
    found: Access

    @property
    def users(self) -> list[Acting]:
        """Each setting that says who acts with each of its values, and with an empty one."""
        return [
            ((name, value),)
            for name, values in self.settings.items()
            for value in dict.fromkeys((*values, ""))
        ]

    @property
    def actings(self) -> list[Acting]:
        """The users, and the first of them with each switch on."""
        users = self.users
        return [
            *users,
            *((*users[0], (name, value)) for name in self.switches for value in _ON if users),
        ]

    def tables(self, tables: Sequence[Relation]) -> None:
        """Try which rows of the tables each role reaches, by each command."""
        for one in tables:
            everything = self.attempts.query(None, (), f"SELECT {one.hashed} FROM {one.sql}")
            self.found.rows[one.oid] = frozenset(everything or ())
        # Nothing set comes first: a setting that was set once is empty from then on, never NULL.
        by_acting = {acting: self._by_acting(tables, acting) for acting in ((), *self.actings)}
        for place in by_acting[()]:
            self.found.reached[place] = frozenset().union(*(by[place] for by in by_acting.values()))
        users = [by_acting[acting] for acting in self.users]
        self.found.limited = frozenset(
            (role, oid)
            for role, oid, command in by_acting[()]
            if command == "SELECT" and len({by[role, oid, command] for by in users}) > 1
        )
        self.found.shared = frozenset(
            place for place in by_acting[()] if _twice([by[place] for by in users])
        )

    def _by_acting(
        self, tables: Sequence[Relation], acting: Acting
    ) -> dict[tuple[str, int, str], frozenset[str]]:
        reached = {}
        for one in tables:
            may = {(role, what) for role, oid, _, what in self.found.privileges if oid == one.oid}
            sample = (
                self.attempts.sample(one, [()]) if any("INSERT" in pair for pair in may) else {}
            )
            for role, command in sorted(may):
                if command == "INSERT":
                    rows = self.attempts.inserted(one, role, acting, sample)
                elif command in {"SELECT", "UPDATE", "DELETE"}:
                    rows = iter(self._reached(one, role, acting, command))
                else:
                    continue
                reached[role, one.oid, command] = frozenset(rows)
                if command == "UPDATE" and one.oid in self.found.owners:
                    away = self._given_away(one, role, acting)
                    reached[role, one.oid, TO_ANOTHER] = frozenset(_numbers(away))
        return reached

    def _reached(self, one: Relation, role: str, acting: Acting, command: str) -> Iterable[str]:
        """Return which rows a command reaches; only numbers, where the role may not read."""
        if command == "SELECT":
            return self.attempts.query(role, acting, f"SELECT {one.hashed} FROM {one.sql}") or ()
        may = {
            (at, what)
            for who, oid, at, what in self.found.privileges
            if (who, oid) == (role, one.oid)
        }
        statement = one.statement(command, may)
        if any(what == "SELECT" for _, what in may):
            return self.attempts.query(role, acting, f"{statement} RETURNING {one.hashed}") or ()
        return _numbers(self.attempts.count(role, acting, statement))

    def _given_away(self, one: Relation, role: str, acting: Acting) -> int:
        """Return how many rows the role may give to a user who does not act."""
        column = quote(self.found.owners[one.oid])
        held = self.attempts.query(None, (), f"SELECT DISTINCT {column} FROM {one.sql} LIMIT 4")
        values = {*(held or ()), *(value for each in self.settings.values() for value in each)}
        others = values - {value for _, value in acting} - {"None", ""}
        return max(
            (
                self.attempts.count(
                    role, acting, f"UPDATE {one.sql} SET {column} = {literal(value)}"
                )
                for value in sorted(others)[:3]
            ),
            default=0,
        )

    def views(self, views: Sequence[Relation]) -> None:
        """Compare what a view gives with what its own query gives its reader."""
        trial = Views(self.attempts, self.actings, self.found.privileges)
        for one in views:
            for role in self.found.roles:
                for command, words in trial.given(one, role):
                    self.found.given[role, f"view {one.name}", command] = words

    def functions(self, tables: Sequence[Relation]) -> None:
        """Compare what a function gives with its owner's rights, and with its caller's."""
        trial = Functions.of(self.attempts, self.actings, tables)
        definers = trial.read()
        for one in definers:
            for role in self.found.roles:
                words = trial.given(one, role)
                if words:
                    self.found.given[role, f"function {one.signature}", "EXECUTE"] = words
        self.found.unsafe = frozenset(one.signature for one in definers if not one.has_path)


def _twice(reached: Sequence[frozenset[str]]) -> bool:
    """Whether two who act reach the same rows, and some."""
    some = [rows for rows in reached if rows]
    return len(set(some)) < len(some)


def _numbers(number: int) -> Iterator[str]:
    return (f"#{place}" for place in range(number))
