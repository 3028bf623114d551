"""A transaction in which two users have a row in every table, to try statements on.

It is rolled back, with the grants and the role that it creates.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from migrations.postgres import first_error_line
from schema.access.privileges import owned_tables
from schema.errors import CannotRunError
from schema.roles import APPLICATION, BETTER_AUTH, BETTER_AUTH_TABLES

type Row = dict[str, Any]

PUBLIC = "PUBLIC"

# A value of each type, for columns without a default.
SAMPLES = {
    "text": "'sample ' || gen_random_uuid()",
    "character varying": "gen_random_uuid()",
    "uuid": "gen_random_uuid()",
    "boolean": "false",
    "integer": "1",
    "bigint": "1",
    "date": "CURRENT_DATE",
    "timestamp with time zone": "CURRENT_TIMESTAMP",
    "jsonb": "'{}'",
}

# The columns that an INSERT must name, with the parent column of those in a foreign key.
REQUIRED_COLUMNS = """
SELECT
  quote_ident(a.attname) AS name,
  format_type(a.atttypid, NULL) AS type,
  format_type(a.atttypid, a.atttypmod) AS sized,
  (
    SELECT json_build_array(p.relname, f.attname)
    FROM pg_constraint AS k
    CROSS JOIN unnest(k.conkey, k.confkey) AS pair (child, parent)
    JOIN pg_class AS p ON p.oid = k.confrelid
    JOIN pg_attribute AS f ON f.attrelid = p.oid AND f.attnum = pair.parent
    WHERE k.conrelid = a.attrelid AND k.contype = 'f' AND pair.child = a.attnum
    ORDER BY k.conname LIMIT 1
  ) AS parent
FROM pg_attribute AS a
WHERE a.attrelid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped
  AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
ORDER BY a.attnum
"""

COLUMNS = """
SELECT
  string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
    FILTER (WHERE a.attgenerated = '' AND a.attidentity <> 'a'),
  array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attnum = ANY (k.conkey))
FROM pg_attribute AS a
LEFT JOIN pg_constraint AS k ON k.conrelid = a.attrelid AND k.contype = 'p'
WHERE a.attrelid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped
"""

# A table comes after all tables that it references.
BY_DEPENDENCY = """
WITH RECURSIVE chain (oid, level) AS (
  SELECT oid, 0 FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
  UNION
  SELECT k.conrelid, c.level + 1
  FROM chain AS c JOIN pg_constraint AS k ON k.confrelid = c.oid AND k.conrelid <> c.oid
  WHERE k.contype = 'f' AND c.level < 100
)
SELECT c.relname FROM chain JOIN pg_class AS c USING (oid)
WHERE c.relname = ANY (:names)
GROUP BY c.relname ORDER BY max(chain.level), c.relname
"""


@dataclass(frozen=True)
class Rows:
    """A table, and the row of each user in it."""

    table: str
    columns: str
    """The columns that an INSERT may name, as SQL."""
    key: list[str]
    """The names of the primary key's columns."""
    own: Row
    other: Row

    @property
    def name(self) -> str:
        """The table's name, as SQL."""
        return f'public."{self.table}"'

    def where(self, row: Row) -> str:
        """Return a condition that selects the row by its key."""
        return " AND ".join(f"\"{name}\" = '{row[name]}'" for name in self.key)

    def insertion(self, row: Row) -> str:
        """Return an INSERT statement for the row."""
        document = json.dumps(row).replace("'", "''").replace(":", "\\:")
        return (
            f"INSERT INTO {self.name} ({self.columns}) SELECT {self.columns}"
            f" FROM json_populate_record(CAST(NULL AS {self.name}), '{document}')"
        )


class Trial:
    """The transaction in which the statements run; `statements` counts them."""

    def __init__(self, connection: Connection) -> None:
        """Use the connection's transaction."""
        self.connection = connection
        self.statements = 0

    def run(self, statement: str) -> int:
        """Execute a statement and return the number of rows that it returned or changed."""
        self.statements += 1
        return self.connection.execute(text(statement)).rowcount

    @contextmanager
    def acting(self, role: str, user: UUID | str | None = None) -> Iterator[None]:
        """Act as that role for that user, in a savepoint for the block."""
        with self.connection.begin_nested():
            self.connection.execute(text(f"SET LOCAL ROLE {role}"))
            if user is not None:
                self.connection.execute(text(f"SET LOCAL app.user_id = '{user}'"))
            yield
            self.connection.execute(text("RESET ROLE"))

    def sees(self, role: str, user: UUID | str, rows: Rows) -> bool:
        """Whether the role, acting for that user, can see a row of the table."""
        try:
            with self.acting(role, user):
                return self.run(f"SELECT FROM {rows.name}") > 0
        except DBAPIError:
            return False

    def refused(self, role: str, user: UUID | str, statement: str) -> bool:
        """Whether the statement raises an error; its effect is rolled back."""
        savepoint = self.connection.begin_nested()
        try:
            with self.acting(role, user):
                self.run(statement)
        except DBAPIError:
            return True
        finally:
            savepoint.rollback()
        return False


@contextmanager
def sample_rows(trial: Trial) -> Iterator[tuple[UUID, list[Rows]]]:
    """Insert the rows of two users; yield the acting user and all tables, and roll back."""
    connection = trial.connection
    _become_group_roles(connection)
    names = [*owned_tables(connection), *BETTER_AUTH_TABLES]
    ordered = connection.execute(text(BY_DEPENDENCY), {"names": names}).scalars().all()
    users = (uuid4(), uuid4())
    written: dict[tuple[UUID, str], Row] = {}
    for user in users:
        for table in ordered:
            with trial.acting(*writing_role(table, user)):
                written[user, table] = _write(trial, table, user, written)
    own, other = users
    tables = []
    for table in ordered:
        columns, key = connection.execute(text(COLUMNS), {"name": f'public."{table}"'}).one()
        key = key or ["user_id"]  # the ownership check reports a table without a key
        tables.append(Rows(table, columns, key, written[own, table], written[other, table]))
    yield own, tables
    connection.rollback()


def writing_role(table: str, user: UUID) -> tuple[str, UUID]:
    """Return the role and the user that may insert into the table.

    The owner may not, unless it ignores row security.
    """
    return (BETTER_AUTH if table in BETTER_AUTH_TABLES else APPLICATION), user


def _write(trial: Trial, table: str, user: UUID, written: dict[tuple[UUID, str], Row]) -> Row:
    """Insert and return a row of that user, with a value in every required column."""
    values = {"id": f"'{user}'"} if table == "user" else {}
    if table == "user":
        values["email"] = f"'{user}@example.invalid'"
    required = trial.connection.execute(text(REQUIRED_COLUMNS), {"name": f'public."{table}"'}).all()
    for name, kind, sized, parent in required:
        if parent is not None:
            values[name] = f"'{written[user, parent[0]][parent[1]]}'"
        elif name == "user_id":
            values[name] = f"'{user}'"
        elif name not in values:
            # The cast truncates a text to the column's length.
            values[name] = f"CAST({SAMPLES.get(kind, 'NULL')} AS {sized})"
    trial.statements += 1
    row: Row = trial.connection.execute(
        text(
            f'INSERT INTO public."{table}" AS t ({", ".join(values)})'
            f" VALUES ({', '.join(values.values())}) RETURNING to_json(t)"
        )
    ).scalar_one()
    return row


def _become_group_roles(connection: Connection) -> None:
    """Allow SET ROLE to the group roles, and to a new role without privileges."""
    unprivileged = role_to_set(PUBLIC)
    try:
        connection.execute(text(f"CREATE ROLE {unprivileged}"))
        connection.execute(
            text(
                f"GRANT {APPLICATION}, {BETTER_AUTH}, {unprivileged} TO CURRENT_USER"
                " WITH INHERIT FALSE, SET TRUE"
            )
        )
    except DBAPIError as error:
        raise CannotRunError(
            f"The role {connection.engine.url.username} may not act as {APPLICATION} and"
            f" {BETTER_AUTH} ({first_error_line(error)}); connect as the role that made them."
        ) from error


def role_to_set(role: str) -> str:
    """Return the role for SET ROLE: for PUBLIC, one without privileges."""
    return "schema_check_nobody" if role == PUBLIC else role
