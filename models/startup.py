"""Checks of the role and the database, which an application makes once, at its start."""

from collections.abc import Sequence
from typing import Any

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from .access import declared_access
from .base import metadata
from .roles import APPLICATION, BETTER_AUTH
from .version import HISTORY

type AnyConnection = Connection | Session | psycopg.Connection[Any]

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

# Roles that the session can become and that row security does not limit.
BYPASSING = """
SELECT DISTINCT r.rolname
FROM pg_catalog.pg_roles AS r
WHERE pg_has_role(session_user, r.oid, 'MEMBER') AND (
  r.rolsuper OR r.rolbypassrls OR EXISTS (
    SELECT FROM pg_catalog.pg_class AS c
    WHERE c.relowner = r.oid AND c.relnamespace = to_regnamespace('public') AND c.relkind = 'r'
  )
)
ORDER BY 1
"""

COLUMNS = """
SELECT c.relname, a.attname, pg_catalog.format_type(a.atttypid, NULL)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p')
  AND a.attnum > 0 AND NOT a.attisdropped
"""


class NotIsolatedError(RuntimeError):
    """The application's role can see other users' rows."""


class IncompatibleDatabaseError(RuntimeError):
    """These models do not work with the database's revision."""


def assert_isolated(connection: AnyConnection) -> None:
    """Check that row security limits the connection's role to the acting user's rows.

    On Neon it does not limit a role created in the console or by the API, even a member of
    `todo_app`: create the login in SQL, for example with `schema roles`.

    Raises:
        NotIsolatedError: the role can see all rows of a table, is a member of Better Auth's group
            role, or a table is missing.

    """
    active: dict[str, bool] = dict(
        _rows(connection, ISOLATED.format(tables=",".join(metadata.tables)))
    )
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
    if visible:
        role = _rows(connection, "SELECT current_user::text")[0][0]
        raise NotIsolatedError(
            f"The role {role} sees every user's rows ({', '.join(visible)}): row security is not"
            " active for it. Connect as a login that was made in SQL, holds todo_app, owns nothing"
            " and lacks BYPASSRLS."
        )
    if bypassing := [row[0] for row in _rows(connection, BYPASSING)]:
        raise NotIsolatedError(
            f"The session can become {', '.join(bypassing)}, which row security does not limit:"
            f" connect as a login that holds {APPLICATION} and no other role."
        )
    if holders := _rows(connection, AS_BETTER_AUTH):
        raise NotIsolatedError(
            f"The role {holders[0][0]} holds {BETTER_AUTH}, and with it every user's sessions and"
            f" passwords: connect as a login that holds {APPLICATION} and no other role."
        )


def assert_compatible(connection: AnyConnection) -> None:
    """Check that these models work with the database's revision.

    If the revision is earlier than the models', the deploy has not run yet. If it is unknown, it is
    later; every mapped column must then exist: a deploy keeps what the last release uses.

    Raises:
        IncompatibleDatabaseError: the revision is an earlier one, or a mapped column is missing.

    """
    found = [row[0] for row in _rows(connection, "SELECT version_num FROM public.alembic_version")]
    head = HISTORY[-1]
    if found == [head]:
        return
    if not found or found[0] in HISTORY:
        at = found[0] if found else "no revision"
        raise IncompatibleDatabaseError(
            f"The database is at {at}, but these models need {head}: deploy it first"
            " (alembic upgrade head)."
        )
    lacking = _lacking(connection)
    if lacking:
        raise IncompatibleDatabaseError(
            f"The database is at {found[0]}, which these models ({head}) do not know, and lacks"
            f" {', '.join(lacking)}: install the version of the models that belongs to it."
        )


def _lacking(connection: AnyConnection) -> list[str]:
    """List the mapped columns that are missing or have another type in the database."""
    there = {(table, column): kind for table, column, kind in _rows(connection, COLUMNS)}
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
    lacking = []
    for table in metadata.sorted_tables:
        for column in table.columns:
            if "retiring" in column.info:
                continue
            kind = column.type.compile(dialect).lower()
            if there.get((table.name, column.name)) != kind:
                lacking.append(f"{table.name}.{column.name} ({kind})")
    return lacking


def _rows(connection: AnyConnection, query: str) -> Sequence[Any]:
    if isinstance(connection, psycopg.Connection):
        return connection.execute(query.encode()).fetchall()
    return connection.execute(text(query)).all()
