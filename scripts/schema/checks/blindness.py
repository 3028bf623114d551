"""A revision that changes rows, tried as an owner that obeys row security.

Neon's owner has BYPASSRLS; the owner of another server may not have it. On a table with forced row
security such an owner's UPDATE then finds no row, and says nothing.
"""

import re
import secrets
from contextlib import nullcontext
from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from sqlalchemy import Connection, event

from schema.checks.result import Failure
from schema.rows.contents import Contents, read_contents
from schema.rows.tables import OWN_SCHEMAS, quote, read_tables

_CHANGES_ROWS = re.compile(
    r"\b(UPDATE|DELETE\s+FROM|MERGE\s+INTO)\b|\.(update|delete)\(", re.IGNORECASE
)
_CONCURRENTLY = re.compile(r"\bCONCURRENTLY\b", re.IGNORECASE)
_GIVE_AWAY = """
DO $$
DECLARE command text;
BEGIN
  FOR command IN
    SELECT format('ALTER SCHEMA %%I OWNER TO %(role)s', n.nspname)
    FROM pg_namespace AS n WHERE %(own)s AND n.nspowner = current_user::regrole
    UNION ALL
    SELECT format('ALTER %%s %%s OWNER TO %(role)s',
      CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW'
        WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, c.oid::regclass)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE %(own)s AND c.relowner = current_user::regrole AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
      AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass
        AND d.objid = c.oid AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
    UNION ALL
    SELECT format('ALTER ROUTINE %%s OWNER TO %(role)s', p.oid::regprocedure)
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE %(own)s AND p.proowner = current_user::regrole AND p.prokind IN ('f', 'p')
    UNION ALL
    SELECT format('ALTER TYPE %%s OWNER TO %(role)s', y.oid::regtype)
    FROM pg_type AS y JOIN pg_namespace AS n ON n.oid = y.typnamespace
    WHERE %(own)s AND y.typowner = current_user::regrole AND y.typtype IN ('d', 'e')
  LOOP
    EXECUTE command;
  END LOOP;
END $$
"""
"""Makes another role the owner of everything in this database. REASSIGN OWNED would also change the
server's other databases, where other checks may run."""

type Changed = frozenset[tuple[str, tuple[str | None, ...]]]
"""Rows, by table and key."""


def changes_rows(revision: Script) -> bool:
    """Whether the file contains a statement that changes rows."""
    return _CHANGES_ROWS.search(Path(revision.path).read_text(encoding="utf-8")) is not None


def changed(before: Contents, after: Contents) -> Changed:
    """Return the rows that differ, or are gone."""
    found = []
    for name, old in before.items():
        new = after.get(name)
        if new is None or not old.key:
            continue
        columns = tuple(column for column in old.columns if column in new.columns)
        if not set(old.key) <= set(columns):
            continue
        places = [columns.index(column) for column in old.key]
        there = set(new.select(columns))
        found += [
            (name, tuple(row[place] for place in places))
            for row in old.select(columns)
            if row not in there
        ]
    return frozenset(found)


def try_blind(
    connection: Connection, revision: Script, before: Contents, outer: MigrationContext
) -> Changed | None:
    """Return the rows that the upgrade changes as such an owner; None if that cannot be tried.

    It runs in a transaction that is rolled back, in which another role owns everything; so do its
    autocommit blocks, where CONCURRENTLY is left out. An upgrade that raises an error there is not
    blind, and one that ends the transaction by itself is not tried.

    Raises:
        DBAPIError: no other owner could be made.

    """
    trial = MigrationContext.configure(connection)
    trial.autocommit_block = nullcontext  # type: ignore[assignment,method-assign]  # the transaction stays
    event.listen(connection, "before_cursor_execute", _in_transaction, retval=True)
    role = f"schema_check_{secrets.token_hex(4)}"
    give_away = _GIVE_AWAY % {"role": role, "own": OWN_SCHEMAS}
    try:
        for statement in (
            f"CREATE ROLE {role} CREATEROLE",
            f"GRANT {role} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE",
            f"GRANT CREATE ON DATABASE {quote(str(connection.engine.url.database))} TO {role}",
            f"GRANT ALL ON SCHEMA public TO {role}",
            give_away.replace("%", "%%"),
            f"SET LOCAL ROLE {role}",
        ):
            connection.exec_driver_sql(statement)
        try:
            with Operations.context(trial):
                revision.module.upgrade()
            connection.exec_driver_sql("RESET ROLE")
            return changed(before, read_contents(connection, read_tables(connection).tables))
        except Exception:  # noqa: BLE001  # PostgreSQL refuses it, or the transaction has ended
            return None
    finally:
        event.remove(connection, "before_cursor_execute", _in_transaction)
        connection.rollback()
        Operations.context(outer).__enter__()  # `op` is the surrounding run's again


def _in_transaction(
    _connection: object, _cursor: object, statement: str, parameters: object, *_: object
) -> tuple[str, object]:
    """Leave out the word that no transaction allows."""
    return _CONCURRENTLY.sub("", statement), parameters


def compare(revision: Script, blind: Changed | None, really: Changed) -> list[Failure]:
    """Report rows that the upgrade changes only where its role ignores row security."""
    if blind is None or really <= blind:
        return []
    tables = ", ".join(sorted({table for table, _ in really - blind}))
    return [
        Failure(
            f"{Path(revision.path).name} changes no row of {tables} if the owner obeys row"
            " security, and says nothing.",
            "Begin it with SELECT set_config('row_security', 'off', true): such an owner then gets"
            " an error.",
        )
    ]
