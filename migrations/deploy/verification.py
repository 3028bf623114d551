"""Compare the database's schema with the committed one and with that of the last deploy."""

from pathlib import Path

from sqlalchemy import Connection, text

from migrations import snapshot

COMMITTED = Path(__file__).parents[1] / "schema.txt"

# Stored as a comment on the primary key of alembic_version: lists of tables do not show it.
_STORED_SCHEMA = """
    SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint
    WHERE conname = 'alembic_version_pkc'
      AND conrelid = to_regclass('public.alembic_version')
"""


def committed_schema() -> str:
    """The text of schema.txt: the schema at the head; '' if there is no such file."""
    return COMMITTED.read_text(encoding="utf-8") if COMMITTED.exists() else ""


def read_schema(connection: Connection, revision: str | None) -> str:
    """The database's schema, in the format of schema.txt."""
    return snapshot.layout(snapshot.read(connection, version_table=True), revision)


def changes_since_deploy(connection: Connection, revision: str | None) -> str:
    """Schema changes since the last deploy; '' if there are none or nothing to compare with."""
    for known in (committed_schema(), stored_schema(connection)):
        if revision is not None and snapshot.revision(known) == revision:
            return snapshot.text_difference(known, read_schema(connection, revision))
    return ""


def stored_schema(connection: Connection) -> str:
    """The schema that the last deploy stored, or ''."""
    return str(connection.scalar(text(_STORED_SCHEMA)) or "")


def store_schema(connection: Connection, schema: str) -> None:
    """Store the schema in the database, so that the next deploy can find changes since this one.

    schema.txt is not enough for that: it belongs to the next deploy's head.
    """
    literal = "'" + schema.replace("'", "''").replace("%", "%%") + "'"
    connection.exec_driver_sql(
        f"COMMENT ON CONSTRAINT alembic_version_pkc ON public.alembic_version IS {literal}"
    )
