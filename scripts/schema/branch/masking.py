"""The masking rules of an anonymised branch, from what the models declare.

A column whose comment begins with SECRET: or PERSONAL: is masked. Neon runs the rules with
PostgreSQL Anonymizer, once, when the branch is made. A rule must not break a constraint: Neon does
not check that.
"""

import time
from typing import Any

from sqlalchemy import URL, Column, String, text

from schema.branch.database import wait_until_reachable
from schema.branch.neon import Answer, Neon, Show, understood
from schema.errors import CannotRunError
from schema.postgres.connection import connect

MARKS = ("SECRET:", "PERSONAL:")
"""How the comment of a column begins that holds what no copy should show."""

_DIFFERENT = "anon.dummy_uuidv4()"
_MARKED = text(
    """
SELECT c.relname, a.attname
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p')
  AND a.attgenerated = ''
  AND EXISTS (SELECT FROM unnest(CAST(:marks AS text[])) AS m (mark)
              WHERE starts_with(col_description(c.oid, a.attnum), m.mark))
"""
)

_FAILED = {"error", "initialization_error"}


class NotMaskedError(CannotRunError):
    """Neon could not mask the rows of a branch."""


def declared_columns() -> list[Column[Any]]:
    """List the columns that hold secrets or personal data, except generated ones."""
    from models import metadata  # noqa: PLC0415  # a checkout may hold one that cannot be imported

    return [
        column
        for table in metadata.sorted_tables
        for column in table.columns
        if (column.comment or "").startswith(MARKS) and column.computed is None
    ]


def rules(database: str) -> list[Answer]:
    """Return a rule for each declared column, as Neon's API takes it.

    Raises:
        CannotRunError: nothing is known that a column could hold instead.

    """
    return [
        {
            "database_name": database,
            "schema_name": column.table.schema or "public",
            "table_name": column.table.name,
            "column_name": column.name,
        }
        | _mask(column)
        for column in declared_columns()
    ]


def require_declared(parent: URL, show: Show) -> None:
    """Make sure that the models know every column that the parent's own comments mark.

    Raises:
        CannotRunError: they do not, or the parent cannot be read.

    """
    wait_until_reachable(parent, show)
    known = {(one.table.name, one.name) for one in declared_columns()}
    with connect(parent) as connection:
        marked = {
            (table, column) for table, column in connection.execute(_MARKED, {"marks": list(MARKS)})
        }
    if unknown := sorted(f"{table}.{column}" for table, column in marked - known):
        raise CannotRunError(
            f"The parent marks {', '.join(unknown)} as secret or personal, and the models do not"
            " know that: nothing would mask it. Use a checkout of the parent's revision or a later"
            " one."
        )


def require_masked(neon: Neon, branch_id: str) -> None:
    """Make sure that the rows of an anonymised branch are masked.

    Raises:
        CannotRunError: they are not, or not yet.

    """
    state = _state(neon, branch_id)
    if state != "anonymized":
        raise CannotRunError(
            f"The rows of this branch are not masked (state {state}): it holds what its parent"
            " holds. Delete it, or make it anew."
        )


def wait(neon: Neon, branch_id: str, show: Show) -> None:
    """Wait until the rows of a new branch are masked.

    Raises:
        CannotRunError: Neon could not mask them, or it takes too long.

    """
    deadline = time.monotonic() + neon.patience
    while True:
        state = _state(neon, branch_id)
        if state == "anonymized":
            return
        if state in _FAILED:
            raise NotMaskedError(
                f"Neon could not mask the rows (state {state}): the branch holds what its parent"
                " holds."
            )
        if time.monotonic() > deadline:
            raise CannotRunError("Neon still masks the rows, longer than expected.")
        show(f"masking: {state}")
        time.sleep(0.5)


def _state(neon: Neon, branch_id: str) -> str:
    with understood():
        return str(neon.get(f"branches/{branch_id}/anonymized_status")["state"])


def _mask(column: Column[Any]) -> dict[str, str]:
    """Return what the column holds instead: a value that differs in each row, or NULL."""
    named = column.info.get("mask")
    if named is not None:
        return {"masking_function": str(named)}
    if column.primary_key or column.foreign_keys:
        raise CannotRunError(
            f"{column.table.name}.{column.name} is part of a key and cannot be masked."
        )
    if column.nullable:
        return {"masking_value": "NULL"}
    if not isinstance(column.type, String):
        raise CannotRunError(
            f"Nothing is known that {column.table.name}.{column.name} could hold instead; name an"
            ' expression on the model\'s column: sa_column_kwargs={"info": {"mask": "…"}}.'
        )
    ending = "@example.com" if "email" in column.name.lower() else ""
    made = f"pg_catalog.concat({_DIFFERENT}, '{ending}')"
    length = column.type.length
    return {"masking_function": f"pg_catalog.substr({made}, 1, {length})" if length else made}
