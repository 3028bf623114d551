"""Checks of the role and the database, which an application makes once, at its start."""

from collections.abc import Coroutine, Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, overload

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import Connection, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from .access import declared_access
from .base import metadata
from .roles import APPLICATION, BETTER_AUTH
from .version import HISTORY

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

type AnyConnection = Connection | Session | psycopg.Connection[Any]
type AnyAsyncConnection = "AsyncConnection | AsyncSession | psycopg.AsyncConnection[Any]"

type _Queries = Generator[str, Sequence[Any]]
"""The queries of an assertion: it yields each one, and is sent its rows."""

# A role sees every user's rows of a table if row security is not active for it.
ISOLATED = """
SELECT c.relname, row_security_active(c.oid)
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = to_regnamespace('public')
  AND c.relname = ANY (string_to_array('{tables}', ','))
"""

# Better Auth's role sees all rows of its tables. The roles that the session can get by SET ROLE or
# RESET ROLE count as well.
AS_BETTER_AUTH = f"""
SELECT a.name
FROM (VALUES (1, current_user::text), (2, session_user::text)) AS a (place, name)
JOIN pg_catalog.pg_roles AS r ON r.rolname = '{BETTER_AUTH}'
WHERE pg_has_role(a.name, r.oid, 'MEMBER')
ORDER BY a.place
"""

# Roles that the session can become and that row security does not limit, or that can make it so.
BYPASSING = """
SELECT DISTINCT r.rolname
FROM pg_catalog.pg_roles AS r
WHERE pg_has_role(session_user, r.oid, 'MEMBER') AND (
  r.rolsuper OR r.rolbypassrls OR r.rolreplication OR r.rolcreaterole OR r.rolname ~ '^pg_'
  OR EXISTS (
    SELECT FROM pg_catalog.pg_class AS c
    WHERE c.relowner = r.oid AND c.relnamespace = to_regnamespace('public')
  )
  OR EXISTS (
    SELECT FROM pg_catalog.pg_proc AS p
    WHERE p.proowner = r.oid AND p.pronamespace = to_regnamespace('public')
  )
  OR EXISTS (
    SELECT FROM pg_catalog.pg_namespace AS n WHERE n.nspowner = r.oid AND n.nspname = 'public'
  )
  OR EXISTS (
    SELECT FROM pg_catalog.pg_database AS d
    WHERE d.datdba = r.oid AND d.datname = current_database()
  )
)
ORDER BY 1
"""

# An unqualified name must mean the table in public, and no setting may name a user already.
MISLED = """
SELECT t.name
FROM unnest(string_to_array('{tables}', ',')) AS t (name)
CROSS JOIN LATERAL quote_ident(t.name) AS q
WHERE to_regclass(q) IS DISTINCT FROM to_regclass('public.' || q)
ORDER BY 1
"""
IDENTITY_SET = "SELECT coalesce(current_setting('app.user_id', true), '') <> ''"

HOLDS_GROUP = f"""
SELECT current_user::text, coalesce(
  pg_has_role(current_user, to_regrole('{APPLICATION}')::oid, 'USAGE'), false
)
"""

# What the session may do with a relation, itself or as a role that it can become, and the group
# role may not. PostgreSQL's own checks include columns.
BEYOND_GROUP = f"""
SELECT DISTINCT c.relname, p.name
FROM pg_catalog.pg_class AS c
CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('REFERENCES')) AS p (name)
JOIN pg_catalog.pg_roles AS r ON pg_has_role(session_user, r.oid, 'MEMBER')
WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND has_any_column_privilege(r.oid, c.oid, p.name)
  AND NOT has_any_column_privilege('{APPLICATION}', c.oid, p.name)
UNION
SELECT DISTINCT c.relname, p.name
FROM pg_catalog.pg_class AS c
CROSS JOIN (VALUES ('DELETE'), ('TRUNCATE'), ('TRIGGER')) AS p (name)
JOIN pg_catalog.pg_roles AS r ON pg_has_role(session_user, r.oid, 'MEMBER')
WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND has_table_privilege(r.oid, c.oid, p.name)
  AND NOT has_table_privilege('{APPLICATION}', c.oid, p.name)
ORDER BY 1, 2
"""

# A mapped column's type is given as SQL, and read by PostgreSQL: `varchar(50)` is `character
# varying`. Lengths are not compared.
LACKING = """
SELECT wanted.name, coalesce(to_regtype(wanted.kind)::text, wanted.kind)
FROM (VALUES {columns}) AS wanted (place, name, relation, attribute, kind)
WHERE NOT EXISTS (
  SELECT FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
  WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p')
    AND a.attnum > 0 AND NOT a.attisdropped
    AND c.relname = wanted.relation AND a.attname = wanted.attribute
    AND a.atttypid = to_regtype(wanted.kind)
)
ORDER BY wanted.place
"""


class NotIsolatedError(RuntimeError):
    """The application's role can see other users' rows."""


class IncompatibleDatabaseError(RuntimeError):
    """These models do not work with the database's revision."""


@overload
def assert_isolated(connection: AnyConnection) -> None: ...


@overload
def assert_isolated(connection: AnyAsyncConnection) -> Coroutine[Any, Any, None]: ...


def assert_isolated(
    connection: AnyConnection | AnyAsyncConnection,
) -> Coroutine[Any, Any, None] | None:
    """Check that row security limits the connection's role to the acting user's rows.

    `await` it for an async connection or session. On Neon, row security does not limit a role
    created in the console or by the API, even a member of `todo_app`: create the login in SQL, for
    example with `schema roles`.

    Raises:
        NotIsolatedError: the role can see all rows of a table, is not a member of `todo_app`, is a
            member of Better Auth's group role, has privileges that `todo_app` has not, or a table
            is missing.

    """
    return _run(connection, _isolated())


@overload
def assert_compatible(connection: AnyConnection) -> None: ...


@overload
def assert_compatible(connection: AnyAsyncConnection) -> Coroutine[Any, Any, None]: ...


def assert_compatible(
    connection: AnyConnection | AnyAsyncConnection,
) -> Coroutine[Any, Any, None] | None:
    """Check that these models work with the database's revision.

    If the revision is earlier than the models', the deploy has not run yet. If it is unknown, it is
    later; every mapped column must then exist: a deploy keeps what the last release uses. `await`
    it for an async connection or session.

    Raises:
        IncompatibleDatabaseError: the revision is an earlier one, or a mapped column is missing or
            has another type.

    """
    return _run(connection, _compatible())


def _isolated() -> _Queries:
    active: dict[str, bool] = dict((yield ISOLATED.format(tables=",".join(metadata.tables))))
    if missing := sorted(metadata.tables.keys() - active.keys()):
        raise NotIsolatedError(f"The database has no table {', '.join(missing)}.")
    # A reference table shows its rows to everyone; a table whose access is not declared does not.
    public = {
        name
        for name, table in metadata.tables.items()
        if (access := declared_access(table)) and not access.row_security
    }
    visible = sorted(
        table for table, secured in active.items() if not secured and table not in public
    )
    [(role, in_group)] = yield HOLDS_GROUP
    if visible:
        raise NotIsolatedError(
            f"The role {role} sees every user's rows ({', '.join(visible)}): row security is not"
            " active for it. Connect as a login that was made in SQL, holds todo_app, owns nothing"
            " and lacks BYPASSRLS."
        )
    only = f"connect as a login that holds {APPLICATION} and no other role."
    if bypassing := [row[0] for row in (yield BYPASSING)]:
        raise NotIsolatedError(
            f"The session can become {', '.join(bypassing)}, which row security does not limit:"
            f" {only}"
        )
    if holders := (yield AS_BETTER_AUTH):
        raise NotIsolatedError(
            f"The role {holders[0][0]} holds {BETTER_AUTH}, and with it every user's sessions and"
            f" passwords: {only}"
        )
    if not in_group:
        raise NotIsolatedError(f"The role {role} does not hold {APPLICATION}: {only}")
    if misled := [row[0] for row in (yield MISLED.format(tables=",".join(metadata.tables)))]:
        raise NotIsolatedError(
            f"The name {misled[0]} does not mean public.{misled[0]} for {role}: correct its"
            " search_path, or drop what stands before it."
        )
    [(already,)] = yield IDENTITY_SET
    if already:
        raise NotIsolatedError(
            f"{role} acts for a user before any block: take app.user_id out of the URL's options,"
            " and out of the settings of the role and the database; or assert this outside of a"
            " block."
        )
    if beyond := [f"{privilege} on {table}" for table, privilege in (yield BEYOND_GROUP)]:
        raise NotIsolatedError(
            f"The role {role} has {', '.join(beyond)}, which {APPLICATION} has not: {only}"
        )


def _compatible() -> _Queries:
    found = [row[0] for row in (yield "SELECT version_num FROM public.alembic_version")]
    head = HISTORY[-1]
    if len(found) > 1:
        raise IncompatibleDatabaseError(
            f"The database records {len(found)} revisions ({', '.join(sorted(found))}), and has one"
            " of them at most: correct alembic_version first."
        )
    if found == [head]:
        return
    if not found or found[0] in HISTORY:
        at = found[0] if found else "no revision"
        raise IncompatibleDatabaseError(
            f"The database is at {at}, but these models need {head}: deploy it first"
            " (alembic upgrade head)."
        )
    if lacking := [f"{name} ({kind})" for name, kind in (yield LACKING.format(columns=_mapped()))]:
        raise IncompatibleDatabaseError(
            f"The database is at {found[0]}, which these models ({head}) do not know, and lacks"
            f" {', '.join(lacking)}: install the version of the models that belongs to it."
        )


def _mapped() -> str:
    """Return the mapped columns and their types as the rows of an SQL VALUES list."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
    rows: list[str] = []
    for table in metadata.sorted_tables:
        for column in table.columns:
            if "retiring" not in column.info:
                kind = column.type.compile(dialect)
                name = f"{table.name}.{column.name}"
                values = ", ".join(
                    _literal(value) for value in (name, table.name, column.name, kind)
                )
                rows.append(f"({len(rows)}, {values})")
    return ", ".join(rows)


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _run(connection: Any, queries: _Queries) -> Coroutine[Any, Any, None] | None:  # noqa: ANN401  # any of the above
    """Execute the queries, at once or, for an async connection, when it is awaited."""
    if isinstance(connection, psycopg.AsyncConnection):
        return _run_async(connection, queries)
    if hasattr(connection, "run_sync"):  # SQLAlchemy's async classes, which need not be loaded

        async def run() -> None:
            await connection.run_sync(_run, queries)

        return run()
    with suppress(StopIteration):
        query = next(queries)
        while True:
            query = queries.send(_rows(connection, query))
    return None


def _rows(connection: AnyConnection, query: str) -> Sequence[Any]:
    if isinstance(connection, psycopg.Connection):
        return psycopg.Cursor(connection, row_factory=tuple_row).execute(query.encode()).fetchall()
    return connection.execute(text(query)).all()


async def _run_async(connection: "psycopg.AsyncConnection[Any]", queries: _Queries) -> None:
    with suppress(StopIteration):
        query = next(queries)
        while True:
            cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
            await cursor.execute(query.encode())
            query = queries.send(await cursor.fetchall())
