"""The todo table: keys, checks, trigger, and queries by index."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from models import metadata
from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from schema.project import scripts
from schema.revisions.runner import upgrade

USER = UUID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")


@pytest.fixture
def owner(head: URL) -> URL:
    """The owner's URL of a database at head with one user, who has no todos."""
    with connect(head) as connection:
        add_user(connection, USER)
        connection.commit()
    return head


def add_user(connection: Connection, user: UUID) -> None:
    """Insert a user."""
    connection.execute(
        text('INSERT INTO "user" (id, name, email) VALUES (:id, :name, :name)'),
        {"id": user, "name": str(user)},
    )


def timestamp(version_7: UUID) -> datetime:
    """Return the time in a version 7 uuid: the first 48 bits, in milliseconds (RFC 9562)."""
    return datetime.fromtimestamp((version_7.int >> 80) / 1000, UTC)


def test_ids_are_version_7_in_the_order_of_their_making(any_server: Server) -> None:
    """Ids sort by time of creation, which newest-first pages need.

    The twelve bits after the version contain the fraction of the millisecond; without them, ids
    of the same millisecond would sort at random.
    """
    with any_server.database() as url, connect(url) as connection:
        upgrade(connection, scripts())
        before = datetime.now(UTC)
        ids = (
            connection.execute(text("SELECT uuid_v7() FROM generate_series(1, 10000)"))
            .scalars()
            .all()
        )
        after = datetime.now(UTC)
    assert {made.version for made in ids} == {7}
    assert {made.variant for made in ids} == {uuid4().variant}
    assert len(set(ids)) == len(ids)
    ordered = [made.int >> 64 for made in ids]
    assert ordered == sorted(ordered)
    millisecond = timedelta(milliseconds=1)
    assert before - millisecond <= timestamp(ids[0]) <= timestamp(ids[-1]) <= after


def test_ids_hold_the_time_that_postgresql_reads(owner: URL) -> None:
    """PostgreSQL's functions for version 7 (from 18 on) read the same time."""
    with connect(owner) as connection:
        if connection.dialect.server_version_info < (18,):  # type: ignore[operator]  # set by now
            pytest.skip("PostgreSQL before 18 reads no time from a version 7 uuid")
        version, lag = connection.execute(
            text(
                "SELECT uuid_extract_version(id), clock_timestamp() - uuid_extract_timestamp(id)"
                " FROM (SELECT uuid_v7() AS id) AS made"
            )
        ).one()
    assert version == 7
    assert timedelta(0) <= lag < timedelta(seconds=5)


BAD_TEXTS = {
    "empty title": ("title", "", "todo_title_not_blank_check"),
    "blank title": ("title", " \t\n", "todo_title_not_blank_check"),
    "long title": ("title", "x" * 501, "todo_title_length_check"),
    "long description": ("description", "x" * 10_001, "todo_description_length_check"),
}
COLUMNS = metadata.tables["todo"].columns


@pytest.mark.parametrize(
    ("column", "value", "check"),
    [
        pytest.param(column, value, check, id=name)
        for name, (column, value, check) in BAD_TEXTS.items()
        if column in COLUMNS
    ],
)
def test_bad_text_is_refused(owner: URL, column: str, value: str, check: str) -> None:
    """A text beyond its limits is refused, and the error names the check."""
    values = {"title": "fine"} | {column: value}
    names, parameters = ", ".join(values), ", ".join(f":{name}" for name in values)
    with connect(owner) as connection, pytest.raises(DBAPIError, match=check):
        connection.execute(
            text(f"INSERT INTO todo (user_id, {names}) VALUES ('{USER}', {parameters})"), values
        )


def test_text_at_its_limit_is_accepted(owner: URL) -> None:
    """The limits count characters, not bytes: 500 characters of four bytes are accepted."""
    with connect(owner) as connection:
        connection.execute(
            text(f"INSERT INTO todo (user_id, title) VALUES ('{USER}', :t)"), {"t": "🥛" * 500}
        )


def test_updated_at_cannot_be_forgotten_or_faked(owner: URL) -> None:
    """A trigger sets it to the time of the transaction."""
    with connect(owner) as connection:
        connection.execute(text(f"INSERT INTO todo (user_id, title) VALUES ('{USER}', 'a')"))
        connection.commit()
        written, now = connection.execute(
            text(
                "UPDATE todo SET title = 'b', updated_at = '2001-01-01'"
                " RETURNING updated_at, CURRENT_TIMESTAMP"
            )
        ).one()
        assert written == now


def test_a_todo_needs_a_user(owner: URL) -> None:
    """A todo without a user or with an unknown one is refused."""
    with connect(owner) as connection:
        with pytest.raises(DBAPIError, match="todo_user_id_fkey"), connection.begin():
            connection.execute(text(f"INSERT INTO todo (user_id, title) VALUES ('{uuid4()}', 'x')"))
        with pytest.raises(DBAPIError, match="not-null"), connection.begin():
            connection.execute(text("INSERT INTO todo (title) VALUES ('x')"))


def test_two_users_may_use_the_same_id(owner: URL) -> None:
    """Two users may use the same id: a unique index on ids would reveal another user's."""
    other = uuid4()
    with connect(owner) as connection:
        add_user(connection, other)
        for user in (USER, other):
            connection.execute(
                text(f"INSERT INTO todo (user_id, id, title) VALUES ('{user}', '{USER}', 'x')")
            )


HOT_QUERIES = {
    "newest 50": ("todo_pkey", "SELECT * FROM todo ORDER BY id DESC LIMIT 50"),
    "next 50": (
        "todo_pkey",
        "SELECT * FROM todo WHERE id < 'ffffffff-ffff-7fff-bfff-ffffffffffff'"
        " ORDER BY id DESC LIMIT 50",
    ),
    "one": ("todo_pkey", "SELECT * FROM todo WHERE id = '00000000-0000-0000-0000-000000000000'"),
    "newest 50 open": (
        "todo_open_idx",
        "SELECT * FROM todo WHERE completed_at IS NULL ORDER BY id DESC LIMIT 50",
    ),
    "next 50 due": (
        "todo_due_idx",
        "SELECT * FROM todo WHERE completed_at IS NULL AND due_at IS NOT NULL"
        " ORDER BY due_at, id LIMIT 50",
    ),
    "due this week": (
        "todo_due_idx",
        "SELECT * FROM todo WHERE completed_at IS NULL AND due_at < now() + interval '7 days'"
        " ORDER BY due_at, id LIMIT 50",
    ),
}


@pytest.fixture(scope="module")
def plans(server: Server, head_template: URL) -> dict[str, dict[str, Any]]:
    """The plan of each hot query as the application; 20 users have 5,000 todos each."""
    found = {}
    with server.database(head_template) as url, connect(url) as connection:
        connection.execute(
            text('INSERT INTO "user" (name, email) SELECT i, i FROM generate_series(1, 20) AS i')
        )
        connection.execute(
            text(
                """
                INSERT INTO todo (user_id, title, due_at, completed_at)
                SELECT
                  u.id, 'todo ' || i,
                  CASE WHEN i % 2 = 0 THEN now() + i * interval '2 minutes' END,
                  CASE WHEN i % 5 < 3 THEN now() END
                FROM generate_series(1, 5000) AS i CROSS JOIN "user" AS u
                """
            )
        )
        connection.commit()
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(
            text("VACUUM ANALYZE todo")
        )
        connection.commit()
        connection.execution_options(isolation_level="READ COMMITTED")
        user = connection.execute(text('SELECT id FROM "user" LIMIT 1')).scalar_one()
        connection.execute(text("GRANT todo_app TO CURRENT_USER WITH INHERIT FALSE, SET TRUE"))
        connection.execute(text(f"SELECT set_config('app.user_id', '{user}', true)"))
        connection.execute(text("SET LOCAL ROLE todo_app"))
        for name, (_index, query) in HOT_QUERIES.items():
            explained = connection.execute(
                text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}")
            ).scalar_one()
            found[name] = explained[0]["Plan"]
        connection.rollback()
    return found


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """List the plan's nodes, from the top."""
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


@pytest.mark.parametrize("name", HOT_QUERIES)
def test_hot_queries_use_their_index(plans: dict[str, dict[str, Any]], name: str) -> None:
    """Under row security each hot query uses an index that leads with the user.

    Without a sort and a filter, the cost of a page does not depend on the number of todos. A page
    of 50 rows reads at most 60 buffers.
    """
    index, _query = HOT_QUERIES[name]
    plan = plans[name]
    scans = [node for node in nodes(plan) if node.get("Relation Name") == "todo"]
    assert [scan.get("Index Name") for scan in scans] == [index], json.dumps(plan, indent=1)
    assert "user_id" in scans[0]["Index Cond"]
    assert "user_id" not in scans[0].get("Filter", "")
    assert not [node for node in nodes(plan) if "Sort" in node["Node Type"]]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= 60
