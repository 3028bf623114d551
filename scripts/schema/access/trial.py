"""A transaction in which statements are tried as the group roles, on generated rows.

Each statement is undone at once, and everything at the end: the rows, the grants, and the role that
stands for PUBLIC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from migrations.postgres import first_error_line
from schema.access.declared import declared_accesses, declared_samples, kind_of
from schema.errors import CannotRunError
from schema.postgres.connection import driver_of
from schema.roles import APPLICATION, BETTER_AUTH
from schema.rows.generator import Generator
from schema.rows.maker import EACH
from schema.rows.tables import USERS, TableRows, Tables, read_tables
from schema.rows.visibility import all_rows_visible

if TYPE_CHECKING:
    from models.access import Members

PUBLIC = "PUBLIC"

# A missing privilege and a row that the policy rejects have the same error. COPY FROM is not
# supported with row security.
REFUSALS = (errors.InsufficientPrivilege, errors.FeatureNotSupported)
# PostgreSQL checks keys after privileges and policies: the row was reached.
REACHED = (errors.UniqueViolation, errors.ForeignKeyViolation, errors.RestrictViolation)


class UndecidedError(Exception):
    """A statement failed for a reason of its own, such as a trigger that raises."""


@dataclass(frozen=True)
class Target:
    """A row on which statements are tried."""

    table: TableRows
    key: tuple[tuple[str, str], ...]
    """The columns of its key, and their values as text."""
    owner: str | None

    @property
    def where(self) -> str:
        """The condition that selects the row."""
        return " AND ".join(f'"{name}" = {literal(value)}' for name, value in self.key)


class Trial:
    """The transaction; `statements` counts what was tried."""

    def __init__(self, connection: Connection) -> None:
        """Use the connection's transaction."""
        self.connection = connection
        self.statements = 0
        self.refusal = ""
        """PostgreSQL's message of the last refusal."""

    @property
    def driver(self) -> psycopg.Connection[Any]:
        """Psycopg's connection, for several statements in one round trip and for COPY."""
        return driver_of(self.connection)

    def attempt(self, role: str, user: str, *statements: str) -> int | None:
        """Return how many rows the last statement returns or changes; None if it is refused.

        Raises:
            UndecidedError: it failed, but was not refused.

        """
        self.statements += 1
        acting = f"SAVEPOINT attempt; {_acting(role, user)}; "
        with self.driver.cursor() as cursor:
            try:
                cursor.execute(f"{acting}{'; '.join(statements)}".encode())
                while cursor.nextset():
                    pass
            except REFUSALS as error:
                self.refusal = error.diag.message_primary or ""
                return None
            except REACHED:
                return 1
            except psycopg.Error as error:
                raise UndecidedError from error
            else:
                return cursor.rowcount
            finally:
                cursor.execute("ROLLBACK TO attempt; RELEASE attempt")

    @contextmanager
    def acting(self, role: str, user: str) -> Iterator[psycopg.Connection[Any]]:
        """Act as that role for that user in a block, which is undone at its end."""
        self.statements += 1
        driver = self.driver
        driver.execute(f"SAVEPOINT attempt; {_acting(role, user)}".encode())
        try:
            yield driver
        finally:
            driver.execute("ROLLBACK TO attempt; RELEASE attempt")

    def sees(self, role: str, user: str, table: TableRows) -> bool:
        """Whether the role, acting for that user, sees a row of the table."""
        try:
            return bool(self.attempt(role, user, f"SELECT FROM {table.sql}"))
        except UndecidedError:
            return False

    def changes(self, role: str, user: str, statement: str) -> bool:
        """Whether the statement changes a row; an error means that it does not."""
        try:
            with self.acting(role, user) as driver:
                return driver.execute(statement.encode()).rowcount > 0
        except psycopg.Error:
            return False

    def refused(self, role: str, user: str, statement: str) -> bool:
        """Whether the statement raises an error."""
        try:
            with self.acting(role, user) as driver:
                driver.execute(statement.encode())
        except psycopg.Error:
            return True
        return False


@dataclass(frozen=True)
class Scene:
    """The rows of a trial."""

    tables: Tables
    users: tuple[str, ...]
    """Who acts: the owner, another owner, members of each sort, somebody without any row."""
    targets: Mapping[str, tuple[Target, ...]]
    """Some rows of each table, of both owners, empty and filled."""
    shortages: tuple[str, ...]
    """The tables on which nothing can be tried, as sentences."""


@contextmanager
def scene(trial: Trial) -> Iterator[Scene]:
    """Make rows in every table, of two owners and of members of each sort; roll back at the end.

    Raises:
        CannotRunError: the connecting role may not act as the group roles.

    """
    connection = trial.connection
    _become_group_roles(connection)
    tables = read_tables(connection)
    generator = Generator(connection, tables, seed="isolation", samples=declared_samples())
    memberships = {table.name for table in tables.tables if kind_of(table.name) == "membership"}
    sorts = max((len(list(_sorts(name))) for name in memberships), default=0)
    wanted = {
        table.name: EACH
        for table in tables.tables
        if table.name not in memberships
        and not (kind_of(table.name) == "reference" and generator.rows(table.name))
    }
    wanted |= {USERS: 2 + sorts + 1}
    # To the end: the owner evaluates over all rows what the rules let a user reach.
    with all_rows_visible(connection):
        generator.fill(wanted)
        for name in memberships:
            _add_members(generator, name)
        targets = {table.name: tuple(_targets(generator, table)) for table in tables.tables}
        untried = [
            *(str(one) for one in generator.shortages if not generator.rows(one.table)),
            *(
                f"Table {table.name} has no key by which a row can be named."
                for table in tables.tables
                if not table.keys
            ),
        ]
        yield Scene(tables, tuple(generator.users), targets, tuple(untried))
    connection.rollback()


def _shared_with(membership: str) -> dict[str, Members]:
    """Return what the tables that a membership shares declare of its members."""
    return {
        name: access.members
        for name, access in declared_accesses().items()
        if access.members is not None and access.members.table == membership
    }


def _sorts(membership: str) -> Iterator[dict[str, str | None]]:
    """Yield each combination of what the rules distinguish in a membership."""
    shared = _shared_with(membership).values()
    flags = sorted({one.can_write for one in shared if isinstance(one.can_write, str)})
    ends = sorted({one.ended for one in shared if one.ended is not None})
    values: tuple[tuple[str | None, ...], ...] = (
        *(("true", "false") for _ in flags),
        *((None, "2020-01-01") for _ in ends),
    )
    for sort in product(*values):
        yield dict(zip((*flags, *ends), sort, strict=True))


def _add_members(generator: Generator, membership: str) -> None:
    """Make users members, of each sort, of what the first owner's shared rows lead to."""
    table = generator.tables[membership]
    owner, _other, *users = generator.users
    done: set[tuple[tuple[str, str | None], ...]] = set()
    for name, members in _shared_with(membership).items():
        for row in generator.rows(name):
            path = tuple((theirs, row.values[own]) for own, theirs in members.path.items())
            if row.owner != owner or path in done or None in dict(path).values():
                continue
            done.add(path)
            for user, sort in zip(users, _sorts(membership), strict=False):
                generator.add(table, [owner], {**dict(path), "member_id": user, **sort})


def _targets(generator: Generator, table: TableRows) -> Iterator[Target]:
    names = table.primary_key or (table.keys[0] if table.keys else ())
    by_owner: dict[str | None, int] = {}
    for row in generator.rows(table.name):
        key = tuple((name, value) for name in names if (value := row.values[name]) is not None)
        by_owner[row.owner] = by_owner.get(row.owner, 0) + 1
        if key and by_owner[row.owner] <= EACH and len(by_owner) <= EACH:
            yield Target(table, key, row.owner)


def _acting(role: str, user: str) -> str:
    return f"SET LOCAL ROLE {role_to_set(role)}; SET LOCAL app.user_id = {literal(user)}"


def _become_group_roles(connection: Connection) -> None:
    """Allow SET ROLE to the group roles, and to a new role without privileges."""
    unprivileged = role_to_set(PUBLIC)
    try:
        connection.exec_driver_sql(f"CREATE ROLE {unprivileged}")
        connection.exec_driver_sql(
            f"GRANT {APPLICATION}, {BETTER_AUTH}, {unprivileged} TO CURRENT_USER"
            " WITH INHERIT FALSE, SET TRUE"
        )
    except DBAPIError as error:
        raise CannotRunError(
            f"The role {connection.engine.url.username} may not act as {APPLICATION} and"
            f" {BETTER_AUTH} ({first_error_line(error)}); connect as the role that made them."
        ) from error


def role_to_set(role: str) -> str:
    """Return the role for SET ROLE: for PUBLIC, one without privileges."""
    return "schema_check_nobody" if role == PUBLIC else role


def literal(value: str) -> str:
    """Quote a value as SQL."""
    escaped = value.replace("'", "''")
    return f"E'{escaped.replace(chr(92), chr(92) * 2)}'" if "\\" in value else f"'{escaped}'"
