"""Whether each release's models work on the other release's schema.

During a deploy, code and schema change one after the other. What works on its own schema and not
on the other one says which must come first. Nothing is listed: each statement is compared with
itself, on the schema before the new revisions and on the one after them.

The values are those that the release writes: the base's models insert rows of the old schema, also
into the new one. The errors are PostgreSQL's, without values of rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from schema.review.models.samples import Sample, sample_rows, undone
from schema.review.models.start_up import application_login, try_start_up
from schema.review.models.statements import ModelStatement, Release
from schema.review.result import Break
from schema.roles import GROUPS

OWNER = "owner"
"""How the connecting role is named beside the group roles."""

type Outcomes = Mapping[tuple[ModelStatement, str], Sequence[str]]
"""The error of each statement as each role, for each row that it was tried with; "" is success."""

type Rows = Mapping[str, Sequence[Sample]]
"""The rows that statements are tried with, by table."""

_BUT_READ = ", and the models read "
"""Stands in the message about a column that is read as another type."""

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
        self._rows: Rows = {}
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

    def _try(self, connection: Connection, rows: Mapping[str, Rows]) -> dict[str, Outcomes]:
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


def try_statements(
    connection: Connection, statements: Sequence[ModelStatement], rows: Rows
) -> Outcomes:
    """Execute each statement as the owner and as each group role, and undo it.

    Start-up assertions are left out: `schema.review.models.start_up` tries them. So is an INSERT
    into a table without a row, unless no row could make it succeed.

    Raises:
        CannotRunError: the connecting role may not act as a group role.

    """
    found: dict[tuple[ModelStatement, str], Sequence[str]] = {}
    user = next((one.user for samples in rows.values() for one in samples), "")
    executed = [one for one in statements if one.command != START_UP]
    with undone(connection):
        for role in (OWNER, *_group_roles(connection)):
            for statement in executed:
                samples = rows.get(statement.table) or [Sample("{}", user)]
                said = _attempts(connection, statement, role, samples)
                surely = statement.table in rows or statement.command != "INSERT"
                if surely or isinstance(said[0], _IN_ANY_ROW):
                    found[statement, role] = tuple(map(_message, said))
    return found


def _attempts(
    connection: Connection, statement: ModelStatement, role: str, samples: Sequence[Sample]
) -> list[psycopg.Error | str | None]:
    """Try a statement with each row, where the row can make a difference."""
    said: list[psycopg.Error | str | None] = []
    for sample in samples:
        said.append(_attempt(connection, statement, role, sample))
        if statement.command == "SELECT" or isinstance(said[-1], _IN_ANY_ROW):
            break
    return said


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
            misread = _misread(driver, statement, cursor)
            # What is deferred to a commit, which an attempt never reaches.
            driver.execute("SET CONSTRAINTS ALL IMMEDIATE")
            return misread
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
    return f"column {statement.table}.{column.name} is {actual[0]}{_BUT_READ}{expected[0]}"


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
    that only the new models have breaks on the old schema, so that the migration must. Each error
    is reported once per table and command, with the group roles that meet it, or for the owner
    alone.
    """
    in_base = {statement for statement, _ in (*base_on_old, *base_on_new)}
    same = {(one.table, one.command, one.sql) for one in in_base if one.command != START_UP}
    return (
        *_breaks("base", _base_errors(base_on_old, base_on_new), new_on_new),
        *_breaks(
            "new",
            (
                (statement, role, error)
                for statement, role, error in _new_errors(new_on_old, new_on_new)
                # What it reads as another type than the base's models is new in it.
                if (statement.table, statement.command, statement.sql) not in same
                or (statement not in in_base and _BUT_READ in error)
            ),
            {},
        ),
    )


def _base_errors(works: Outcomes, tried: Outcomes) -> Iterator[tuple[ModelStatement, str, str]]:
    """Yield what fails with a row that it worked with: the rows are the same on both schemas."""
    for (statement, role), said in tried.items():
        for before, error in zip(works.get((statement, role), ()), said, strict=False):
            if error and not before:
                yield statement, role, error


def _new_errors(tried: Outcomes, works: Outcomes) -> Iterator[tuple[ModelStatement, str, str]]:
    """Yield what works with a row of the new schema, and with none of the old one."""
    for (statement, role), said in tried.items():
        if all(said) and "" in works.get((statement, role), ()):
            yield statement, role, said[0]


def _breaks(
    models: Literal["base", "new"],
    failed: Iterable[tuple[ModelStatement, str, str]],
    others: Outcomes,
) -> Iterator[Break]:
    """Yield each error once; `others` may fail there as well."""
    failing = {
        (statement.table, statement.command, error)
        for (statement, _), said in others.items()
        for error in said
    }
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for statement, role, error in failed:
        roles = found[statement.table, statement.command, error]
        if role not in roles:
            roles.append(role)
    for (table, command, error), roles in found.items():
        lasting = (table, command, error) in failing
        yield Break(models, table, command, _joined(roles), error, lasting)


def _joined(roles: Iterable[str]) -> str:
    """Name the roles that applications use; the owner only if it is the only one."""
    return ", ".join(role for role in roles if role != OWNER) or OWNER
