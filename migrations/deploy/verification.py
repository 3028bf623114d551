"""Whether the database is what the migrations say: at the head, and since the last deploy."""

from pathlib import Path

from sqlalchemy import Connection, text

from migrations import snapshot

COMMITTED = Path(__file__).parents[1] / "schema.txt"

# Where nobody stumbles over it: no list of tables or columns shows a constraint's comment.
_RECORD = """
    SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint
    WHERE conname = 'alembic_version_pkc'
      AND conrelid = to_regclass('public.alembic_version')
"""


def committed_schema() -> str:
    """The schema that the migrations lead to at the head, as schema.txt says it.

    Empty when there is no such file: nothing can be verified then.
    """
    return COMMITTED.read_text(encoding="utf-8") if COMMITTED.exists() else ""


def read_schema(connection: Connection, revision: str | None) -> str:
    """The schema as the database has it now, laid out as schema.txt is."""
    return snapshot.layout(snapshot.read(connection, version_table=True), revision)


def changes_since_deploy(connection: Connection, revision: str | None) -> str:
    """What was changed since the last deploy; '' too when there is nothing to compare with."""
    for known in (committed_schema(), stored_schema(connection)):
        if revision is not None and snapshot.revision(known) == revision:
            return snapshot.text_difference(known, read_schema(connection, revision))
    return ""


def stored_schema(connection: Connection) -> str:
    """The schema as the last deploy left it; empty when there was none that recorded it."""
    return str(connection.scalar(text(_RECORD)) or "")


def store_schema(connection: Connection, schema: str) -> None:
    """Leave the schema in the database, for the next deploy to see what was changed in between.

    A deploy has only the committed schema of the head, and the next one begins below its head.
    """
    literal = "'" + schema.replace("'", "''").replace("%", "%%") + "'"
    connection.exec_driver_sql(
        f"COMMENT ON CONSTRAINT alembic_version_pkc ON public.alembic_version IS {literal}"
    )
