"""Deleting a user deletes exactly their rows, found by index."""

from uuid import UUID

import pytest
from sqlalchemy import URL, Connection, text

from schema.postgres.connection import connect
from tests.support.users import ALICE, BOB

TODOS = 10_000

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
def owner(head: URL) -> URL:
    """Two users; Alice has 10,000 todos, each with a tag, and Bob has some of everything too."""
    with connect(head) as connection:
        for user, number in ((ALICE, TODOS), (BOB, 10)):
            values = {"u": user, "t": str(user), "n": number}
            for statement in (
                'INSERT INTO "user" (id, name, email) VALUES (:u, :t, :t)',
                "INSERT INTO todo (user_id, title) SELECT :u, i FROM generate_series(1, :n) AS i",
                "INSERT INTO tag (user_id, name) SELECT :u, i FROM generate_series(1, 100) AS i",
                "INSERT INTO todo_tag (user_id, todo_id, tag_id) SELECT t.user_id, t.id, g.id"
                " FROM todo AS t JOIN tag AS g USING (user_id)"
                " WHERE t.user_id = :u AND g.name = (t.title::int % 100 + 1)::text",
                'INSERT INTO session ("userId", token, "expiresAt", "updatedAt")'
                " VALUES (:u, :t, now(), now())",
                'INSERT INTO account ("userId", "accountId", "providerId", "updatedAt")'
                " VALUES (:u, :t, 'credential', now())",
            ):
                needed = {name: value for name, value in values.items() if f":{name}" in statement}
                connection.execute(text(statement), needed)
        connection.commit()
    with connect(head, autocommit=True) as connection:
        connection.exec_driver_sql("ANALYZE")
    return head


def rows_of(connection: Connection, user: UUID) -> dict[str, int]:
    """Count the user's rows in each table."""
    dependents = connection.execute(text(DEPENDENTS)).all()
    return {
        table: connection.execute(
            text(f"SELECT count(*) FROM {table} WHERE {column} = :user"), {"user": user}
        ).scalar_one()
        for table, column in dependents
    }


def test_everything_of_a_user_goes_and_nothing_else(owner: URL) -> None:
    """In every table with a chain of keys to the user, only that user's rows are deleted."""
    with connect(owner) as connection:
        mine, others = rows_of(connection, ALICE), rows_of(connection, BOB)
        assert min(mine.values()) > 0, "a table is not filled here: fill it"
        assert mine["todo"] == TODOS
        connection.execute(text('DELETE FROM "user" WHERE id = :u'), {"u": ALICE})
        assert set(rows_of(connection, ALICE).values()) == {0}
        assert rows_of(connection, BOB) == others


def tables_read_whole(connection: Connection) -> list[str]:
    """Delete Alice, and list the tables for which PostgreSQL counted a sequential scan.

    Sequential scans are disabled, so that the planner uses one only if there is no index.
    """
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    connection.execute(text('DELETE FROM "user" WHERE id = :u'), {"u": ALICE})
    counts = connection.execute(
        text("SELECT relname FROM pg_stat_xact_user_tables WHERE seq_scan > 0 ORDER BY 1")
    )
    return list(counts.scalars().all())


def test_no_step_of_it_reads_a_whole_table(owner: URL) -> None:
    """The triggers of the foreign keys find their rows by index."""
    with connect(owner) as connection:
        assert tables_read_whole(connection) == []


def test_a_key_without_an_index_is_found(owner: URL) -> None:
    """Without the index of one key, the same deletion reads a whole table."""
    with connect(owner) as connection:
        connection.execute(text("DROP INDEX todo_tag_user_id_tag_id_todo_id_idx"))
        connection.execute(text("ALTER TABLE todo_tag DROP CONSTRAINT todo_tag_pkey"))
        assert tables_read_whole(connection) == ["todo_tag"]
