"""Read a database's schema with the catalog query, query.sql."""

from pathlib import Path

from sqlalchemy import Connection

from migrations.snapshot.fact import Fact, Snapshot

QUERY = Path(__file__).with_name("query.sql").read_text(encoding="utf-8")

VERSION_TABLE = "to_regclass('public.alembic_version')"
"""The expression in query.sql that excludes Alembic's own table."""

# The settings that change how PostgreSQL prints a definition. pg_temp must come last: otherwise a
# temporary table hides the table of the same name in public. Without JIT: compiling the query takes
# longer than running it.
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
    """Read the schema as this connection sees it, including its uncommitted DDL.

    Alembic's own table is excluded unless `version_table`: `metadata.create_all` makes none.

    The transaction, the autocommit mode and the settings of the connection do not change. The query
    does not run through SQLAlchemy, which would begin a transaction: Alembic would take that for
    the caller's and not commit it.

    Raises:
        psycopg.Error: the caller's transaction has failed, a lock was not free in time, or another
            session dropped an object during the read ("cache lookup failed").
        ValueError: the connection is invalidated.

    """
    driver = connection.connection.driver_connection
    if driver is None:
        raise ValueError("the connection has been invalidated: connect again")
    # A savepoint inside a transaction, otherwise a transaction: its rollback undoes SET LOCAL.
    with driver.transaction(force_rollback=True), driver.cursor() as cursor:
        cursor.execute(SESSION_SETTINGS)
        cursor.execute(QUERY.replace(VERSION_TABLE, "NULL::regclass") if version_table else QUERY)
        return tuple(_without_record(Fact(*row)) for row in cursor)


def _without_record(fact: Fact) -> Fact:
    """Remove what deploys once stored: the schema, as a comment on Alembic's primary key."""
    if fact[:2] != ("table alembic_version", "constraint alembic_version_pkc"):
        return fact
    return fact._replace(definition=fact.definition.partition("  comment ")[0])
