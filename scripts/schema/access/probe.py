"""Find out which rows each role can access, by trying every form of statement on every table.

The rows are those of `trial.scene`. Each role acts for a user and tries every form of statement on
some rows of each table, in one transaction that is rolled back; what it reaches is compared with
the rule that the model declares, evaluated over the same rows without row security. The statements
run as the group roles, not as the owner: Neon's owner ignores row security.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import psycopg
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from schema.access.declared import access_of, condition, kind_of, rules_of
from schema.access.trial import (
    PUBLIC,
    REFUSALS,
    Scene,
    Target,
    Trial,
    UndecidedError,
    literal,
    scene,
)
from schema.postgres.connection import connect
from schema.roles import APPLICATION, BETTER_AUTH
from schema.rows.tables import TableRows

if TYPE_CHECKING:
    from models.access import Rule

type Scope = Literal["none", "own", "shared", "all"]
"""The rows that a role reaches: none, the acting user's, those that others share too, or all."""

ROLES = (APPLICATION, BETTER_AUTH, PUBLIC)

READING = frozenset({"SELECT", "FETCH from a cursor", "COPY … TO"})
NEVER = frozenset({"COPY … FROM", "TRUNCATE"})
"""What row security cannot limit, so that no role may do it."""


@dataclass(frozen=True)
class Form:
    """A form of statement."""

    name: str
    reaches: Callable[[Trial, str, str, Target], bool]
    """Tries it on one row, as a role and for a user; returns whether it reached the row."""


@dataclass(frozen=True)
class Access:
    """What a form of statement on a table reaches for a role."""

    table: str
    role: str
    form: str
    scope: Scope


@dataclass(frozen=True)
class Difference:
    """Forms of statement that reach other rows of a table than the model declares."""

    table: str
    role: str
    forms: tuple[str, ...]
    excess: bool
    """Whether they reach a row that they must not, or fail to reach one that they must."""
    refusal: str = ""
    """PostgreSQL's message, where it refused a statement that must work."""


def _statement(template: str) -> Callable[[Trial, str, str, Target], bool]:
    def reaches(trial: Trial, role: str, user: str, target: Target) -> bool:
        changed = _changeable(target.table)
        statement = template.format(
            table=target.table.sql,
            where=target.where,
            same=f'"{changed}" = t."{changed}"',
        )
        return (trial.attempt(role, user, statement) or 0) > 0

    return reaches


def _inserting(template: str) -> Callable[[Trial, str, str, Target], bool]:
    def reaches(trial: Trial, role: str, user: str, target: Target) -> bool:
        columns = _columns(target.table)
        name = target.table.sql
        row = trial.driver.execute(
            f"SELECT row_to_json(t)::text FROM {name} AS t WHERE {target.where}".encode()
        ).fetchone()
        document = literal(row[0]) if row else "'{}'"
        values = (
            f"SELECT {columns}"
            f" FROM json_populate_record(CAST(NULL AS {target.table.sql}), {document})"
        )
        changed = _changeable(target.table)
        statement = template.format(
            insertion=f"INSERT INTO {target.table.sql} ({columns}) {values}",
            excluded=f'"{changed}" = EXCLUDED."{changed}"',
            key=", ".join(f'"{name}"' for name, _ in target.key),
        )
        return (trial.attempt(role, user, statement) or 0) > 0

    return reaches


def _cursor(trial: Trial, role: str, user: str, target: Target) -> bool:
    declaration = f"DECLARE probe CURSOR FOR SELECT FROM {target.table.sql} WHERE {target.where}"
    return (trial.attempt(role, user, declaration, "FETCH ALL FROM probe") or 0) > 0


def _copy_out(trial: Trial, role: str, user: str, target: Target) -> bool:
    query = f"(SELECT 1 FROM {target.table.sql} WHERE {target.where})"
    try:
        with trial.acting(role, user) as driver, driver.cursor() as cursor:
            with cursor.copy(f"COPY {query} TO STDOUT".encode()) as copy:
                shown = b"".join(bytes(block) for block in copy)
    except REFUSALS as error:
        trial.refusal = error.diag.message_primary or ""
        return False
    return shown != b""


def _copy_in(trial: Trial, role: str, user: str, target: Target) -> bool:
    try:
        with trial.acting(role, user) as driver, driver.cursor() as cursor:
            with cursor.copy(f"COPY {target.table.sql} FROM STDIN".encode()):
                return True
    except REFUSALS:
        return False


FORMS = (
    Form("SELECT", _statement("SELECT FROM {table} WHERE {where}")),
    Form("SELECT … FOR UPDATE", _statement("SELECT FROM {table} WHERE {where} FOR UPDATE")),
    Form("FETCH from a cursor", _cursor),
    Form("COPY … TO", _copy_out),
    Form("INSERT", _inserting("{insertion}")),
    Form("INSERT … RETURNING", _inserting("{insertion} RETURNING *")),
    Form(
        "INSERT … ON CONFLICT DO UPDATE",
        _inserting("{insertion} ON CONFLICT ({key}) DO UPDATE SET {excluded}"),
    ),
    Form("COPY … FROM", _copy_in),
    Form("UPDATE", _statement("UPDATE {table} AS t SET {same} WHERE {where}")),
    Form(
        "UPDATE … RETURNING",
        _statement("UPDATE {table} AS t SET {same} WHERE {where} RETURNING *"),
    ),
    Form(
        "MERGE … UPDATE",
        _statement(
            "MERGE INTO {table} AS t USING (SELECT 1) AS one ON {where}"
            " WHEN MATCHED THEN UPDATE SET {same}"
        ),
    ),
    Form("DELETE", _statement("DELETE FROM {table} WHERE {where}")),
    Form("DELETE … RETURNING", _statement("DELETE FROM {table} WHERE {where} RETURNING *")),
    Form(
        "MERGE … DELETE",
        _statement(
            "MERGE INTO {table} AS t USING (SELECT 1) AS one ON {where} WHEN MATCHED THEN DELETE"
        ),
    ),
    Form(
        "TRUNCATE",
        lambda trial, role, user, target: (
            trial.attempt(role, user, f"TRUNCATE {target.table.sql} CASCADE") is not None
        ),
    ),
)


@dataclass(frozen=True)
class ProbeResult:
    """The result of `probe`."""

    accesses: tuple[Access, ...] = ()
    """What every form on every table as every role reaches; empty without any row."""
    differences: tuple[Difference, ...] = ()
    """Where that is not what the models declare."""
    leaks: tuple[str, ...] = ()
    """Accesses without a user, or with an invalid one, as sentences."""
    shortages: tuple[str, ...] = ()
    """The tables on which nothing can be tried, as sentences."""
    users: int = 0
    tables: int = 0
    rows: int = 0
    statements: int = 0
    error: DBAPIError | psycopg.Error | None = None
    """Why the rows could not be made."""


def probe(head: URL) -> ProbeResult:
    """Try every form of statement on a database at head.

    Raises:
        CannotRunError: the connecting role cannot SET ROLE to the group roles.

    """
    with connect(head) as connection:
        trial = Trial(connection)
        try:
            with scene(trial) as made:
                found, differences = try_all(trial, made)
                leaks = tuple(identity_leaks(trial, made))
        except (DBAPIError, psycopg.Error) as error:
            return ProbeResult(error=error)
    rows = sum(map(len, made.targets.values()))
    return ProbeResult(
        found, differences, leaks, made.shortages, len(made.users), len(made.tables.tables), rows,
        trial.statements,
    )  # fmt: skip  # one line per group of figures


def try_all(trial: Trial, made: Scene) -> tuple[tuple[Access, ...], tuple[Difference, ...]]:
    """Try every form on every table as every role; return what is reached, and what differs."""
    accesses: list[Access] = []
    differences: list[Difference] = []
    for table in made.tables.tables:
        shared = kind_of(table.name) in {"shared", "membership"}
        everyone = made.users if shared else made.users[:1]
        for role in ROLES:
            users = everyone if role == APPLICATION else made.users[:1]
            here = tuple(_of_table(trial, table, role, users, made.targets[table.name]))
            accesses += [access for access, *_ in here]
            for excess in (True, False):
                wrong = [access for access, more, less, _ in here if (more if excess else less)]
                if wrong:
                    forms = tuple(access.form for access in wrong)
                    refusal = "" if excess else next((one for *_, one in here if one), "")
                    differences.append(Difference(table.name, role, forms, excess, refusal))
    return tuple(accesses), tuple(differences)


def _of_table(
    trial: Trial, table: TableRows, role: str, users: tuple[str, ...], targets: tuple[Target, ...]
) -> Iterator[tuple[Access, bool, bool, str]]:
    """Yield each form's access, whether it reaches too much or too little, and the refusal."""
    expected = {user: _expected(trial, table, rules_of(table.name, role), user) for user in users}
    for form in FORMS:
        reached: set[tuple[str, Target]] = set()
        wanted: set[tuple[str, Target]] = set()
        trial.refusal = ""
        for user in users:
            may = expected[user].get("read" if form.name in READING else "write", frozenset())
            for target in targets:
                try:
                    if form.reaches(trial, role, user, target):
                        reached.add((user, target))
                except UndecidedError:
                    continue
                if form.name not in NEVER and tuple(v for _, v in target.key) in may:
                    wanted.add((user, target))
        scope = _scope(reached, users, targets)
        yield (
            Access(table.name, role, form.name, scope),
            bool(reached - wanted),
            bool(wanted - reached),
            trial.refusal if wanted - reached else "",
        )


def _expected(
    trial: Trial, table: TableRows, rules: tuple[Rule, ...], user: str
) -> Mapping[str, frozenset[tuple[str, ...]]]:
    """Return the keys of the rows that the rules let that user read and write."""
    names = table.primary_key or (table.keys[0] if table.keys else ())
    if not rules or not names:
        return {}
    key = ", ".join(f'"{name}"::text' for name in names)
    return {
        what: frozenset(
            trial.driver.execute(
                f"SELECT {key} FROM {table.sql}"
                f" WHERE {condition(rules, user, write=what == 'write')}".encode()
            )
        )
        for what in ("read", "write")
    }


def _scope(
    reached: set[tuple[str, Target]], users: tuple[str, ...], targets: tuple[Target, ...]
) -> Scope:
    if not reached:
        return "none"
    if len(reached) == len(users) * len(targets):
        return "all"
    others = any(target.owner != user for user, target in reached)
    return "shared" if others else "own"


def identity_leaks(trial: Trial, made: Scene) -> Iterator[str]:
    """Try statements without a user, with an unknown one, and with an invalid uuid."""
    limited = [
        table
        for table in made.tables.tables
        if (access := access_of(table.name)) is not None
        and access.row_security
        and rules_of(table.name, APPLICATION)
    ]
    if trial.refused(APPLICATION, "", "SELECT 1 / (app_user_id() IS NULL)::int"):
        yield "app_user_id() is not NULL in a transaction without a user."
    for identity, who in (("", "without a user"), (str(uuid4()), "with an unknown user")):
        for table in limited:
            if trial.sees(APPLICATION, identity, table):
                yield f"A transaction {who} sees rows of {table.name}."
    stranger = made.users[-1]
    for table in limited:
        if not trial.refused(APPLICATION, "garbage", f"SELECT FROM {table.sql}"):
            yield f"A transaction whose app.user_id is not a uuid can read {table.name}."
        if any(column.name == "user_id" for column in table.columns):
            gift = f"UPDATE {table.sql} SET user_id = '{stranger}'"
            if trial.changes(APPLICATION, made.users[0], gift):
                yield f"A user can give a row of {table.name} to another user."


def _changeable(table: TableRows) -> str:
    """Return a column that an UPDATE may set to its own value, of the key if there is one."""
    written = [column.name for column in table.columns if column.written]
    in_key = [name for name in table.primary_key if name in written]
    return (in_key or written or [table.columns[0].name])[0]


def _columns(table: TableRows) -> str:
    """List the columns that an INSERT may name, as SQL."""
    return ", ".join(f'"{column.name}"' for column in table.columns if column.written)
