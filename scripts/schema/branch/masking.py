"""The masking rules of an anonymised branch, from what the models declare.

A column whose comment begins with SECRET: or PERSONAL: is masked. Neon runs the rules with
PostgreSQL Anonymizer, once, when the branch is made. A rule must not break a constraint: Neon does
not check that.
"""

import time
from typing import Any

from sqlalchemy import Column, String

from schema.branch.neon import Answer, Neon, Show
from schema.errors import CannotRunError

MARKS = ("SECRET:", "PERSONAL:")
"""How the comment of a column begins that holds what no copy should show."""

_DIFFERENT = "anon.dummy_uuidv4()"
_FAILED = {"error", "initialization_error"}


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


def wait(neon: Neon, branch_id: str, show: Show) -> None:
    """Wait until the rows of a new branch are masked.

    Raises:
        CannotRunError: Neon could not mask them, or it takes too long.

    """
    deadline = time.monotonic() + neon.patience
    while True:
        status = neon.get(f"branches/{branch_id}/anonymized_status")
        if status["state"] == "anonymized":
            return
        if status["state"] in _FAILED:
            raise CannotRunError(
                f"Neon could not mask the rows (state {status['state']}): the branch holds what"
                " its parent holds."
            )
        if time.monotonic() > deadline:
            raise CannotRunError("Neon still masks the rows, longer than expected.")
        show(f"masking: {status['state']}")
        time.sleep(0.5)


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
    text = f"pg_catalog.concat({_DIFFERENT}, '{ending}')"
    length = column.type.length
    return {"masking_function": f"pg_catalog.substr({text}, 1, {length})" if length else text}
