"""Find out which rows each role can access, by trying every form of statement on every table.

Two users have one row each in every table. Each role acts for the first user and tries every form
of statement on both rows, in one transaction that is rolled back. The statements run as the group
roles, not as the owner: Neon's owner ignores row security.
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
"""The rows on which a statement works: none, the acting user's, or all users'."""

ROLES = (APPLICATION, BETTER_AUTH, PUBLIC)
# A missing privilege and a row that the policy rejects have the same error. COPY FROM is not
# supported with row security. A foreign key that does not cascade prevents a deletion.
REFUSALS = (
    errors.InsufficientPrivilege,
    errors.FeatureNotSupported,
    errors.ForeignKeyViolation,
)


@dataclass(frozen=True)
class Access:
    """The scope of a form of statement on a table for a role."""

    table: str
    role: str
    form: str
    scope: Scope


@dataclass(frozen=True)
class Form:
    """A form of statement."""

    name: str
    attempt: Callable[[Trial, Rows, Row], bool]
    """Executes it on one row and returns whether it affected the row."""
    inserts: bool = False
    """Whether the row must be deleted first, because the form inserts it."""


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
    Form("INSERT", _statement("{insertion}"), inserts=True),
    Form("INSERT … RETURNING", _statement("{insertion} RETURNING *"), inserts=True),
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
    """The result of `probe`."""

    accesses: tuple[Access, ...] = ()
    """Every form on every table as every role; empty if the sample rows could not be inserted."""
    leaks: tuple[str, ...] = ()
    """Accesses without a user, or with an invalid one, as sentences."""
    tables: int = 0
    statements: int = 0
    error: DBAPIError | None = None
    """Why the sample rows could not be inserted."""


def probe(head: URL) -> ProbeResult:
    """Try every form of statement on a database at head.

    Raises:
        CannotRunError: the connecting role cannot SET ROLE to the group roles.

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
    """Yield the result of every form on every table as every role, acting for that user."""
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
    """Whether the form works on the row; its effect is rolled back."""
    role, user = actor
    savepoint = trial.connection.begin_nested()
    try:
        if form.inserts:
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
    """Try statements without a user, with an unknown one, and with an invalid uuid."""
    visible = [rows for rows in tables if rows.table == "user" or "user_id" in rows.own]
    if trial.refused(APPLICATION, "", "SELECT 1 / (app_user_id() IS NULL)::int"):
        yield "app_user_id() is not NULL in a transaction without a user."
    for identity, who in (("", "without a user"), (str(uuid4()), "with an unknown user")):
        for rows in visible:
            if trial.sees(APPLICATION, identity, rows):
                yield f"A transaction {who} sees rows of {rows.table}."
    for rows in visible:
        if not trial.refused(APPLICATION, "garbage", f"SELECT FROM {rows.name}"):
            yield f"A transaction whose app.user_id is not a uuid can read {rows.table}."
        if "user_id" in rows.own:
            gift = f"UPDATE {rows.name} SET user_id = '{rows.other['user_id']}'"
            if not trial.refused(APPLICATION, user, gift):
                yield f"A user can give a row of {rows.table} to another user."


def _driver(trial: Trial) -> psycopg.Connection[Any]:
    driver = trial.connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError("COPY needs psycopg's own connection")
    return driver
