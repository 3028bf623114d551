"""Whether each release's models work on the other release's schema.

During a deploy, code and schema change one after the other. What works on its own schema and not
on the other one says which must come first. Nothing is listed: each statement is compared with
itself, on the schema before the new revisions and on the one after them.

The values are those that the release writes: the base's models insert rows of the old schema, also
into the new one. The errors are PostgreSQL's, without values of rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import psycopg
from psycopg import errors
from psycopg.pq import Format
from sqlalchemy import Connection

from migrations.postgres import first_error_line
from schema.access.trial import REACHED
from schema.errors import CannotRunError
from schema.postgres.connection import driver_of
from schema.review.models.program import START_UP
from schema.review.models.start_up import application_login, try_start_up
from schema.review.models.statements import ModelStatement, Release
from schema.review.result import Break
from schema.roles import GROUPS
from schema.rows.generator import Generator
from schema.rows.maker import Row
from schema.rows.tables import TableRows, quote, read_tables
from schema.rows.visibility import all_rows_visible

OWNER = "owner"
"""How the connecting role is named beside the group roles."""

type Outcomes = Mapping[tuple[ModelStatement, str], str]
"""The error of each statement as each role; "" if it succeeds."""

_LOOKED_AT = 20
"""Of how many rows of a table the fullest one is chosen."""

_REACHED = (*REACHED, errors.ExclusionViolation)
"""Why a copy of a row is refused once all else is well."""

# What fails whatever the values are.
_IN_ANY_ROW = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedObject,
    errors.DatatypeMismatch,
)


# A value of a domain is read as its base type, one of an array as its elements. A type that the
# schema does not have leads to no row.
_AS_READ = """
SELECT format_type(t.oid, NULL),
  CASE b.typcategory WHEN 'A' THEN b.typelem ELSE b.oid END, b.typcategory = 'A'
FROM unnest(ARRAY[to_regtype(%s)::oid, %s::oid]) WITH ORDINALITY AS u (oid, place)
JOIN pg_type AS t ON t.oid = u.oid
JOIN pg_type AS b ON b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
ORDER BY u.place
"""


@dataclass(frozen=True)
class Sample:
    """A row of a table."""

    document: str
    """As JSON."""
    user: str
    """The id of the user who owns it, or of any; "" if there is no user."""


class Compatibility:
    """Two releases of the models, on the schema before the new revisions and on the one after."""

    def __init__(self, base: Path, new: Path) -> None:
        """Begin to import the models of both folders."""
        self.not_covered: list[str] = []
        """What cannot be read."""
        self.count = 0
        """How many statements were executed on both schemas, as each role."""
        self._releases = {"base": Release(base), "new": Release(new)}
        self._statements: dict[str, tuple[ModelStatement, ...]] = {}
        self._rows: Mapping[str, Sample] = {}
        self._old: dict[str, Outcomes] = {}

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_error: object) -> None:
        """End the processes that have imported the models."""
        for release in self._releases.values():
            release.close()

    def before(self, connection: Connection) -> None:
        """Try both releases on the old schema; its rows must be committed.

        Raises:
            CannotRunError: the connecting role may not act as a group role.

        """
        self._statements = {name: self._read(name) for name in self._releases}
        self._rows = sample_rows(connection)
        self._old = self._try(connection, {"base": self._rows, "new": self._rows})

    def after(self, connection: Connection) -> tuple[Break, ...]:
        """Try both on the new schema, whose rows must be committed; return what breaks.

        Raises:
            CannotRunError: as above.

        """
        new = self._try(connection, {"base": self._rows, "new": sample_rows(connection)})
        self.count = sum(len(self._old[name].keys() & new[name].keys()) for name in new)
        return breaks(self._old["base"], new["base"], self._old["new"], new["new"])

    def _read(self, name: str) -> tuple[ModelStatement, ...]:
        try:
            return self._releases[name].statements()
        except CannotRunError as error:
            which = {"base": "The base's models", "new": "The new models"}[name]
            self._leave_out(str(error).replace("The models", which, 1))
            return ()

    def _try(
        self, connection: Connection, rows: Mapping[str, Mapping[str, Sample]]
    ) -> dict[str, Outcomes]:
        found = {
            name: dict(try_statements(connection, statements, rows[name]))
            for name, statements in self._statements.items()
        }
        connection.rollback()
        for name, said in self._start_up(connection).items():
            found[name] |= said
        return dict(found)

    def _start_up(self, connection: Connection) -> Mapping[str, Outcomes]:
        """Try the start-up assertions of the models that have any."""
        having = [
            name
            for name, statements in self._statements.items()
            if any(one.command == START_UP for one in statements)
        ]
        if not having:
            return {}
        try:
            with application_login(connection.engine.url) as application:
                return {name: try_start_up(self._releases[name], application) for name in having}
        except CannotRunError as error:
            self._leave_out(str(error))
            return {}

    def _leave_out(self, sentence: str) -> None:
        if sentence not in self.not_covered:
            self.not_covered.append(sentence)


def sample_rows(connection: Connection) -> Mapping[str, Sample]:
    """Return one row of each table that has any, by name: the one with the fewest NULLs."""
    tables = read_tables(connection)
    generator = Generator(connection, tables)
    found: dict[str, Sample] = {}
    with _undone(connection), all_rows_visible(connection):
        users = [*generator.users, ""]
        for table in tables.tables:
            rows = generator.rows(table.name)[:_LOOKED_AT]
            samples = [
                Sample(document, row.owner or users[0])
                for row in rows
                for document in _documents(connection, table, row)
            ]
            if samples:
                found[table.name] = min(samples, key=lambda one: one.document.count(":null"))
    return found


def _documents(connection: Connection, table: TableRows, row: Row) -> Iterator[str]:
    """Yield the row as JSON; of a table without keys, any row."""
    where = " AND ".join(f"{quote(name)}::text IS NOT DISTINCT FROM %s" for name in row.values)
    query = f"SELECT row_to_json(t)::text FROM {table.sql} AS t WHERE ".replace("%", "%%")
    found = driver_of(connection).execute(
        f"{query}{where or 'true'} LIMIT 1".encode(), list(row.values.values())
    )
    yield from (document for (document,) in found)


def try_statements(
    connection: Connection, statements: Sequence[ModelStatement], rows: Mapping[str, Sample]
) -> Outcomes:
    """Execute each statement as the owner and as each group role, and undo it.

    Start-up assertions are left out: `schema.review.models.start_up` tries them. So is an INSERT
    into a table without a row, unless no row could make it succeed.

    Raises:
        CannotRunError: the connecting role may not act as a group role.

    """
    found: dict[tuple[ModelStatement, str], str] = {}
    user = next(iter(rows.values()), Sample("{}", "")).user
    executed = [one for one in statements if one.command != START_UP]
    with _undone(connection):
        for role in (OWNER, *_group_roles(connection)):
            for statement in executed:
                row = rows.get(statement.table)
                error = _attempt(connection, statement, role, row or Sample("{}", user))
                surely = row is not None or statement.command != "INSERT"
                if surely or isinstance(error, _IN_ANY_ROW):
                    found[statement, role] = _message(error)
    return found


def _attempt(
    connection: Connection, statement: ModelStatement, role: str, row: Sample
) -> psycopg.Error | str | None:
    """Return why the statement fails: PostgreSQL's error, or a type that reads as another one."""
    driver = driver_of(connection)
    acting = "SELECT set_config('role', %s, true), set_config('app.user_id', %s, true)"
    try:
        with driver.transaction(force_rollback=True):
            driver.execute(acting, ["none" if role == OWNER else role, row.user])
            # A prepared statement would outlive the schema.
            cursor = driver.execute(statement.sql.encode(), {"row": row.document}, prepare=False)
            return _misread(driver, statement, cursor)
    except _REACHED:
        return None
    except psycopg.Error as error:
        return error


def _misread(
    driver: psycopg.Connection[Any], statement: ModelStatement, cursor: psycopg.Cursor[Any]
) -> str | None:
    """Say that the driver reads the column as another Python type than the models expect."""
    if not (statement.reads and cursor.description):
        return None
    column = cursor.description[0]
    types = driver.execute(_AS_READ, [statement.reads, column.type_code]).fetchall()
    expected, actual = types if len(types) == 2 else (types[0], types[0])
    if _python_type(driver, *expected[1:]) == _python_type(driver, *actual[1:]):
        return None
    return (
        f"column {statement.table}.{column.name} is {actual[0]}, and the models read {expected[0]}"
    )


def _python_type(driver: psycopg.Connection[Any], oid: int, array: bool) -> tuple[object, bool]:
    """Return what stands for the Python type of a value: how the driver reads it."""
    loader = driver.adapters.get_loader(oid, Format.TEXT)
    return loader or driver.adapters.get_loader(0, Format.TEXT), array


def _message(error: psycopg.Error | str | None) -> str:
    """Return PostgreSQL's message without values, which PL/pgSQL may write into its own."""
    if isinstance(error, errors.RaiseException):
        return "a trigger or a function raised an error"
    return first_error_line(error) if isinstance(error, psycopg.Error) else error or ""


def _group_roles(connection: Connection) -> list[str]:
    """Return the group roles that exist, and allow SET ROLE to them."""
    driver = driver_of(connection)
    found = driver.execute(
        "SELECT rolname, pg_has_role(current_user, oid, 'SET') FROM pg_roles"
        " WHERE rolname = ANY (%s) ORDER BY 1",
        [list(GROUPS)],
    ).fetchall()
    for role, allowed in found:
        try:
            if not allowed:
                grant = f"GRANT {role} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE"
                driver.execute(grant.encode())
        except psycopg.Error as error:
            raise CannotRunError(
                f"The role {connection.engine.url.username} may not act as {role}"
                f" ({first_error_line(error)}); connect as the role that made it."
            ) from error
    return [role for role, _ in found]


def breaks(
    base_on_old: Outcomes, base_on_new: Outcomes, new_on_old: Outcomes, new_on_new: Outcomes
) -> tuple[Break, ...]:
    """Return which statements work on one schema and not on the other.

    A statement of the base breaks on the new schema, so that the code must be deployed first; one
    of the new models breaks on the old schema, so that the migration must. Each error is reported
    once per table and command, with the group roles that meet it, or for the owner alone.
    """
    return (
        *_breaks("base", works=base_on_old, tried=base_on_new, others=new_on_new),
        *_breaks("new", works=new_on_new, tried=new_on_old, others={}),
    )


def _breaks(
    models: Literal["base", "new"], works: Outcomes, tried: Outcomes, others: Outcomes
) -> Iterator[Break]:
    """Yield what works on one schema and not on the other; `others` fail there as well."""
    failing = {
        (statement.table, statement.command, error) for (statement, _), error in others.items()
    }
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for (statement, role), error in tried.items():
        if error and works.get((statement, role)) == "":
            roles = found[statement.table, statement.command, error]
            if role not in roles:
                roles.append(role)
    for (table, command, error), roles in found.items():
        lasting = (table, command, error) in failing
        yield Break(models, table, command, _joined(roles), error, lasting)


def _joined(roles: Iterable[str]) -> str:
    """Name the roles that applications use; the owner only if it is the only one."""
    return ", ".join(role for role in roles if role != OWNER) or OWNER


@contextmanager
def _undone(connection: Connection) -> Iterator[None]:
    """Undo a block, within the connection's transaction."""
    with connection.begin_nested() as savepoint:
        yield
        savepoint.rollback()
