"""Read a database's schema with the catalog query, query.sql."""

from pathlib import Path

from sqlalchemy import Connection

from migrations.snapshot.fact import Fact, Snapshot

QUERY = Path(__file__).with_name("query.sql").read_text(encoding="utf-8")

VERSION_TABLE = "to_regclass('public.alembic_version')"
"""How the query names Alembic's own table, to leave it out."""

# Whatever changes how PostgreSQL prints a definition. pg_temp is named to come last: a session's
# temporary tables otherwise come first, and take the short name from a table in public. Compiling
# the query would cost more than running it, hence no JIT.
SESSION_SETTINGS = """
    SET LOCAL search_path = public, pg_temp;
    SET LOCAL quote_all_identifiers = off;
    SET LOCAL standard_conforming_strings = on;
    SET LOCAL datestyle = 'ISO';
    SET LOCAL intervalstyle = 'postgres';
    SET LOCAL timezone = 'UTC';
    SET LOCAL extra_float_digits = 1;
    SET LOCAL bytea_output = 'hex';
    SET LOCAL lc_monetary = 'C';
    SET LOCAL jit = off;
"""


def read(connection: Connection, *, version_table: bool = False) -> Snapshot:
    """The schema as this connection sees it now, its own uncommitted DDL included.

    Alembic's own table is left out, because a schema that models have made has none, unless
    `version_table` asks for who may read or write it, which the history decides as well. Its key is
    left out even then: a deploy keeps its record there.

    Leaves the connection as it was: in a transaction or not, in autocommit, its settings unchanged.
    It goes below SQLAlchemy to do so, whose first statement begins a transaction that Alembic would
    take for the caller's, and would not commit.

    Raises:
        psycopg.Error: the caller's transaction had failed, a lock was not to be had in time, or
            another session dropped something in the middle ("cache lookup failed").
        ValueError: the connection has been invalidated.

    """
    driver = connection.connection.driver_connection
    if driver is None:
        raise ValueError("the connection has been invalidated: connect again")
    # A savepoint in a transaction, else a transaction: rolling either back undoes SET LOCAL.
    with driver.transaction(force_rollback=True), driver.cursor() as cursor:
        cursor.execute(SESSION_SETTINGS)
        cursor.execute(QUERY.replace(VERSION_TABLE, "NULL::regclass") if version_table else QUERY)
        facts = (Fact(*row) for row in cursor)
        key = ("table alembic_version", "constraint alembic_version_pkc")
        return tuple(fact for fact in facts if fact[:2] != key)
