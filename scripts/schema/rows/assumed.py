"""The rows that a revision assumes not to be there, in a database of generated rows."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg

from schema.rows.tables import quote


def leave_only(session: psycopg.Connection[Any], assumed: Mapping[str, str]) -> None:
    """Delete the rows of each table that do not meet its condition.

    What cannot be deleted stays: the revision then fails on it, and says so.
    """
    for table, condition in assumed.items():
        named = ".".join(map(quote, table.split(".")))
        with suppress(psycopg.Error):
            session.execute(f"DELETE FROM {named} WHERE ({condition}) IS FALSE".encode())
