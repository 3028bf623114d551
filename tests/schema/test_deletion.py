"""Deleting a user deletes exactly their rows, found by index."""

import pytest
from sqlalchemy import URL, Connection, text

from schema.access.declared import declared_samples
from schema.postgres.connection import connect
from schema.rows.generator import Generator
from schema.rows.maker import EACH
from schema.rows.tables import read_tables

INDEXES = """
SELECT i.indexrelid::regclass::text, EXISTS (
  SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u')
)
FROM pg_index AS i WHERE i.indrelid = CAST(:table AS regclass)
"""

# Every table with a chain of foreign keys to "user", and its user column. The catalogs include new
# tables.
DEPENDENTS = """
WITH RECURSIVE chain (oid) AS (
  SELECT 'public."user"'::regclass::oid
  UNION
  SELECT k.conrelid FROM chain AS c JOIN pg_constraint AS k ON k.confrelid = c.oid
  WHERE k.contype = 'f'
)
SELECT chain.oid::regclass::text, quote_ident(a.attname)
FROM chain
JOIN pg_attribute AS a ON a.attrelid = chain.oid AND NOT a.attisdropped
WHERE a.attname IN ('user_id', 'userId')
  OR chain.oid = 'public."user"'::regclass AND a.attname = 'id'
ORDER BY 1
"""


@pytest.fixture
def owner(head: URL) -> tuple[URL, str, str]:
    """Return a database where two users have rows in every table, and the two users."""
    with connect(head) as connection:
        tables = read_tables(connection)
        generator = Generator(connection, tables, seed="deletion", samples=declared_samples())
        generator.fill({table.name: EACH for table in tables.tables})
        assert generator.shortages == []
        connection.commit()
    with connect(head, autocommit=True) as connection:
        connection.exec_driver_sql("ANALYZE")
    mine, theirs, *_ = generator.users
    return head, mine, theirs


def rows_of(connection: Connection, user: str, without: str = "") -> dict[str, int]:
    """Count the user's rows in each table, without those that name another user, too."""
    dependents = connection.execute(text(DEPENDENTS)).all()
    return {
        table: connection.execute(
            text(
                f"SELECT count(*) FROM {table} AS t WHERE {column} = :user"
                " AND (:without = '' OR strpos(t::text, :without) = 0)"
            ),
            {"user": user, "without": without},
        ).scalar_one()
        for table, column in dependents
    }


def test_everything_of_a_user_goes_and_nothing_else(owner: tuple[URL, str, str]) -> None:
    """In every table with a chain of keys to the user, only that user's rows are deleted."""
    url, one, another = owner
    with connect(url) as connection:
        mine, others = rows_of(connection, one), rows_of(connection, another, without=one)
        assert min(mine.values()) > 0
        connection.execute(text('DELETE FROM "user" WHERE id = :u'), {"u": one})
        assert set(rows_of(connection, one).values()) == {0}
        assert rows_of(connection, another, without=one) == others


def tables_read_whole(connection: Connection, user: str) -> list[str]:
    """Delete the user, and list the tables for which PostgreSQL counted a sequential scan.

    Sequential scans are disabled, so that the planner uses one only if there is no index.
    """
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    connection.execute(text('DELETE FROM "user" WHERE id = :u'), {"u": user})
    counts = connection.execute(
        text("SELECT relname FROM pg_stat_xact_user_tables WHERE seq_scan > 0 ORDER BY 1")
    )
    return list(counts.scalars().all())


def test_no_step_of_it_reads_a_whole_table(owner: tuple[URL, str, str]) -> None:
    """The triggers of the foreign keys find their rows by index."""
    url, user, _ = owner
    with connect(url) as connection:
        assert tables_read_whole(connection, user) == []


def test_a_key_without_an_index_is_found(owner: tuple[URL, str, str]) -> None:
    """Without its indexes, the same deletion reads a table whole."""
    url, user, _ = owner
    with connect(url) as connection:
        tables = read_tables(connection).tables
        referenced = {reference.parent for table in tables for reference in table.references}
        child = next(one for one in tables if one.references and one.name not in referenced)
        for name, constraint in connection.execute(text(INDEXES), {"table": child.sql}).all():
            drop = f"ALTER TABLE {child.sql} DROP CONSTRAINT {name}"
            connection.exec_driver_sql(drop if constraint else f"DROP INDEX {name}")
        assert tables_read_whole(connection, user) == [child.name]
