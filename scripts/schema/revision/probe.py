"""Whether a change of a column writes every row anew: observed on an empty table."""

import psycopg
from sqlalchemy import Connection

from schema.ddl.definition import column, split_comment
from schema.ddl.tables import column_definition
from schema.postgres.connection import driver_of

_TABLE = "schema_revision_probe"


class Probe:
    """Tries changes on empty tables like those of a scratch database, and rolls them back."""

    def __init__(self, connection: Connection) -> None:
        """Use a connection to the scratch database, in a transaction."""
        self._connection = connection

    def rewrites(self, heading: str, name: str, definition: str) -> bool:
        """Whether adding a column, or giving one another type, writes every row anew.

        A default that cannot be tried, for it calls what the same change makes, is taken for one
        that differs from row to row.
        """
        table = heading.removeprefix("table ")
        file = f"SELECT pg_relation_filenode('{_TABLE}')".encode()
        body = split_comment(definition)[0]
        kind, written = column(body).get("type"), column_definition(body)
        if kind is None or written is None:
            return False
        driver = driver_of(self._connection)
        try:
            with driver.transaction(force_rollback=True), driver.cursor() as cursor:
                cursor.execute(f"CREATE TABLE {_TABLE} (LIKE {table} INCLUDING GENERATED)".encode())
                before = cursor.execute(file).fetchone()
                alter = f"ALTER TABLE {_TABLE} ADD COLUMN {name} {written}"
                if self._has(name):
                    alter = (
                        f"ALTER TABLE {_TABLE} ALTER COLUMN {name} TYPE {kind} USING {name}::{kind}"
                    )
                cursor.execute(alter.encode())
                return cursor.execute(file).fetchone() != before
        except psycopg.Error:
            return bool(column(body).get("default"))

    def _has(self, name: str) -> bool:
        query = f"""
            SELECT EXISTS (SELECT FROM pg_attribute
            WHERE attrelid = '{_TABLE}'::regclass AND quote_ident(attname) = %s)
        """
        found = driver_of(self._connection).execute(query.encode(), (name,)).fetchone()
        return found is not None and bool(found[0])
