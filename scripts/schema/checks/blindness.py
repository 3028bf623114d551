"""A revision that changes rows, tried as an owner that obeys row security.

Neon's owner has BYPASSRLS; the owner of another server may not have it. On a table with forced row
security such an owner's UPDATE then finds no row, and says nothing.
"""

import re
from contextlib import nullcontext
from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from sqlalchemy import Connection, event

from schema.checks.result import Failure
from schema.rows.contents import Contents, read_contents
from schema.rows.tables import read_tables

_CHANGES_ROWS = re.compile(
    r"\b(UPDATE|DELETE\s+FROM|MERGE\s+INTO)\b|\.(update|delete)\(", re.IGNORECASE
)
_CONCURRENTLY = re.compile(r"\bCONCURRENTLY\b", re.IGNORECASE)
_OWNER = "schema_check_owner"

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
    """
    trial = MigrationContext.configure(connection)
    trial.autocommit_block = nullcontext  # type: ignore[assignment,method-assign]  # the transaction stays
    event.listen(connection, "before_cursor_execute", _in_transaction, retval=True)
    try:
        for statement in (
            f"CREATE ROLE {_OWNER} CREATEROLE",
            f"GRANT {_OWNER} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE",
            f"REASSIGN OWNED BY CURRENT_USER TO {_OWNER}",
            f"SET LOCAL ROLE {_OWNER}",
        ):
            connection.exec_driver_sql(statement)
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
