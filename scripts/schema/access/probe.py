"""The check that the database keeps users apart, by trying every statement on every table.

Two users have a row each in every table. As each role, acting for the first of them, every form of
statement is tried on the rows of both, and what came of it is compared with what the role needs.
It runs in one transaction on a database at head, which is rolled back, and as the group roles
themselves: the owner's own sight proves nothing, because on Neon it ignores row security.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid4

import psycopg
from psycopg import errors
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from schema.access.sample_rows import (
    PUBLIC,
    Row,
    Rows,
    Trial,
    role_to_set,
    sample_rows,
    writing_role,
)
from schema.postgres.connection import connect
from schema.roles import APPLICATION, BETTER_AUTH

type Scope = Literal["none", "own", "all"]
"""On whose rows a statement works: nobody's, the acting user's, or everybody's."""

ROLES = (APPLICATION, BETTER_AUTH, PUBLIC)
# A missing privilege and a row that the policy does not let through share one error. COPY FROM is
# not supported where row security holds. A key that does not cascade keeps a row from going.
REFUSALS = (
    errors.InsufficientPrivilege,
    errors.FeatureNotSupported,
    errors.ForeignKeyViolation,
)


@dataclass(frozen=True)
class Access:
    """On whose rows of a table a form of statement works for a role."""

    table: str
    role: str
    form: str
    scope: Scope


@dataclass(frozen=True)
class Form:
    """A form of statement, tried on one row."""

    name: str
    attempt: Callable[[Trial, Rows, Row], bool]
    """Executes it, and says whether it reached the row."""
    anew: bool = False
    """Whether the row must be gone before, because the form inserts it."""


def _statement(template: str) -> Callable[[Trial, Rows, Row], bool]:
    def attempt(trial: Trial, rows: Rows, row: Row) -> bool:
        return (
            trial.run(
                template.format(
                    table=rows.name,
                    where=rows.where(row),
                    same=f'"{rows.key[0]}" = t."{rows.key[0]}"',
                    excluded=f'"{rows.key[0]}" = EXCLUDED."{rows.key[0]}"',
                    key=", ".join(f'"{name}"' for name in rows.key),
                    insertion=rows.insertion(row) if "insertion" in template else "",
                )
            )
            > 0
        )

    return attempt


def _cursor(trial: Trial, rows: Rows, row: Row) -> bool:
    trial.run(f"DECLARE probe CURSOR FOR SELECT FROM {rows.name} WHERE {rows.where(row)}")
    return trial.run("FETCH ALL FROM probe") > 0


def _copy_out(trial: Trial, rows: Rows, row: Row) -> bool:
    trial.statements += 1
    with _driver(trial).cursor() as cursor, cursor.copy(f"COPY {rows.name} TO STDOUT") as copy:
        shown = b"".join(bytes(block) for block in copy).decode()
    return all(str(row[name]) in shown for name in rows.key)


def _copy_in(trial: Trial, rows: Rows, _row: Row) -> bool:
    trial.statements += 1
    with _driver(trial).cursor() as cursor, cursor.copy(f"COPY {rows.name} FROM STDIN"):
        return True


FORMS = (
    Form("SELECT", _statement("SELECT FROM {table} WHERE {where}")),
    Form("SELECT … FOR UPDATE", _statement("SELECT FROM {table} WHERE {where} FOR UPDATE")),
    Form("FETCH from a cursor", _cursor),
    Form("COPY … TO", _copy_out),
    Form("INSERT", _statement("{insertion}"), anew=True),
    Form("INSERT … RETURNING", _statement("{insertion} RETURNING *"), anew=True),
    Form(
        "INSERT … ON CONFLICT DO UPDATE",
        _statement("{insertion} ON CONFLICT ({key}) DO UPDATE SET {excluded}"),
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
    Form("TRUNCATE", lambda trial, rows, _row: trial.run(f"TRUNCATE {rows.name} CASCADE") < 1),
)


@dataclass(frozen=True)
class ProbeResult:
    """What the statements could do."""

    accesses: tuple[Access, ...] = ()
    """Every form on every table as every role; empty when the rows could not be written."""
    leaks: tuple[str, ...] = ()
    """What a transaction without a user, or with a wrong one, could do: a sentence each."""
    tables: int = 0
    statements: int = 0
    error: DBAPIError | None = None
    """Why the rows of two users could not be written."""


def probe(head: URL) -> ProbeResult:
    """Try every form of statement on a database at head.

    Raises:
        CannotRunError: the connecting role may not act as the group roles.

    """
    with connect(head) as connection:
        trial = Trial(connection)
        try:
            with sample_rows(trial) as (user, tables):
                found = tuple(accesses(trial, user, tables))
                leaks = tuple(_leaks(trial, user, tables))
        except DBAPIError as error:
            return ProbeResult(error=error)
    return ProbeResult(found, leaks, len(tables), trial.statements)


def accesses(trial: Trial, user: UUID, tables: list[Rows]) -> Iterator[Access]:
    """Try every form on every table as every role, acting for that user."""
    for rows in tables:
        for role in ROLES:
            for form in FORMS:
                scope: Scope = "none"
                if can_access(trial, (role, user), form, rows, rows.own):
                    scope = "own"
                if can_access(trial, (role, user), form, rows, rows.other):
                    scope = "all"
                yield Access(rows.table, role, form.name, scope)


def can_access(trial: Trial, actor: tuple[str, UUID], form: Form, rows: Rows, row: Row) -> bool:
    """Whether the form works on the row; what it did is undone."""
    role, user = actor
    savepoint = trial.connection.begin_nested()
    try:
        if form.anew:
            owner = UUID(row.get("user_id") or row.get("userId") or row["id"])
            with trial.acting(*writing_role(rows.table, owner)):
                trial.run(f"DELETE FROM {rows.name} WHERE {rows.where(row)}")
        with trial.acting(role_to_set(role), user):
            return form.attempt(trial, rows, row)
    except (DBAPIError, psycopg.Error) as error:
        original = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(original, REFUSALS):
            return False
        raise
    finally:
        savepoint.rollback()


def _leaks(trial: Trial, user: UUID, tables: list[Rows]) -> Iterator[str]:
    """Try what a transaction can do without a user, with an unknown one, and with no uuid."""
    visible = [rows for rows in tables if rows.table == "user" or "user_id" in rows.own]
    if trial.refused(APPLICATION, "", "SELECT 1 / (app_user_id() IS NULL)::int"):
        yield "A transaction without a user acts for somebody."
    for identity, who in (("", "without a user"), (str(uuid4()), "with an unknown user")):
        for rows in visible:
            if trial.sees(APPLICATION, identity, rows):
                yield f"A transaction {who} sees rows of {rows.table}."
    for rows in visible:
        if not trial.refused(APPLICATION, "garbage", f"SELECT FROM {rows.name}"):
            yield f"A transaction whose user is no uuid reads {rows.table}."
        if "user_id" in rows.own:
            gift = f"UPDATE {rows.name} SET user_id = '{rows.other['user_id']}'"
            if not trial.refused(APPLICATION, user, gift):
                yield f"A user gives a row of {rows.table} to another user."


def _driver(trial: Trial) -> psycopg.Connection[Any]:
    driver = trial.connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError("COPY needs psycopg's own connection")
    return driver
