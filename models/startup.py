"""What an application asks once, when it starts: whether database and role are the right ones."""

from collections.abc import Sequence
from typing import Any

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from .base import metadata
from .roles import APPLICATION, BETTER_AUTH
from .version import HISTORY

type AnyConnection = Connection | Session | psycopg.Connection[Any]

# A role for which row security is not active on a table sees every user's rows of it.
ISOLATED = """
SELECT c.relname, row_security_active(c.oid)
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = to_regnamespace('public')
  AND c.relname = ANY (string_to_array('{tables}', ','))
"""

# Better Auth's role sees every user's rows of its tables. What a session can become by SET ROLE or
# RESET ROLE counts as well.
AS_BETTER_AUTH = f"""
SELECT a.name
FROM (VALUES (1, current_user::text), (2, session_user::text)) AS a (place, name)
JOIN pg_catalog.pg_roles AS r ON r.rolname = '{BETTER_AUTH}'
WHERE pg_has_role(a.name, r.oid, 'MEMBER')
ORDER BY a.place
"""

COLUMNS = """
SELECT c.relname, a.attname, pg_catalog.format_type(a.atttypid, NULL)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p')
  AND a.attnum > 0 AND NOT a.attisdropped
"""


class NotIsolatedError(RuntimeError):
    """The role that the application connects as sees other users' rows."""


class IncompatibleDatabaseError(RuntimeError):
    """The database is not at a revision that this version of the models works with."""


def assert_isolated(connection: AnyConnection) -> None:
    """Refuse to run as a role for which row security is not active.

    On Neon that is every role made in the console or by the API, even one that was granted
    `todo_app`; make the application's login in SQL (`schema roles` does).

    Raises:
        NotIsolatedError: the role sees every user's rows of some table, holds Better Auth's group
            role too, or a table is missing.

    """
    tables = ",".join(metadata.tables)
    active: dict[str, bool] = dict(_rows(connection, ISOLATED.format(tables=tables)))
    missing = sorted(metadata.tables.keys() - active.keys())
    if missing:
        raise NotIsolatedError(f"The database has no table {', '.join(missing)}.")
    visible = sorted(table for table, secured in active.items() if not secured)
    if visible:
        role = _rows(connection, "SELECT current_user::text")[0][0]
        raise NotIsolatedError(
            f"The role {role} sees every user's rows ({', '.join(visible)}): row security is not"
            " active for it. Connect as a login that was made in SQL, holds todo_app, owns nothing"
            " and lacks BYPASSRLS."
        )
    if holders := _rows(connection, AS_BETTER_AUTH):
        raise NotIsolatedError(
            f"The role {holders[0][0]} holds {BETTER_AUTH}, and with it every user's sessions and"
            f" passwords: connect as a login that holds {APPLICATION} and no other role."
        )


def assert_compatible(connection: AnyConnection) -> None:
    """Refuse to run against a database that these models do not match.

    At the models' own revision all is well. At an earlier one the deploy has not run yet. At a
    later one, which these models cannot know, everything that they map must still be there: the
    deploy rule promises it to the release before.

    Raises:
        IncompatibleDatabaseError: the database is at an earlier revision, or lacks what is mapped.

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
    """Name the mapped columns that the database does not have, or has with another type."""
    there = {(table, column): kind for table, column, kind in _rows(connection, COLUMNS)}
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
    lacking = []
    for table in metadata.sorted_tables:
        for column in table.columns:
            kind = column.type.compile(dialect).lower()
            if there.get((table.name, column.name)) != kind:
                lacking.append(f"{table.name}.{column.name} ({kind})")
    return lacking


def _rows(connection: AnyConnection, query: str) -> Sequence[Any]:
    if isinstance(connection, psycopg.Connection):
        return connection.execute(query.encode()).fetchall()
    return connection.execute(text(query)).all()
