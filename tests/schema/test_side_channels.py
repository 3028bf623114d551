"""Side channels: information on another user's rows without access to them.

migrations/adr/0003-threat-model.md lists them. A closed channel must stay closed; an open one
("Residual") is tested too, so that a change is noticed.
"""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from migrations.deploy.advisory_lock import LOCK
from schema.postgres.connection import connect
from tests.support.users import ALICE, BOB

SECRET = "bob meets the notary"  # noqa: S105  # Alice must not learn it


@pytest.fixture
def alice(head: URL, application: URL) -> Iterator[Connection]:
    """A transaction of the application that acts for Alice; Bob has a todo and a tag."""
    with connect(head) as owner:
        for user in (ALICE, BOB):
            owner.execute(
                text('INSERT INTO "user" (id, name, email) VALUES (:id, :name, :name)'),
                {"id": user, "name": f"{user}@example.invalid"},
            )
        owner.execute(
            text("INSERT INTO todo (user_id, id, title) VALUES (:u, :u, :t)"),
            {"u": BOB, "t": SECRET},
        )
        owner.execute(
            text("INSERT INTO tag (user_id, id, name) VALUES (:u, :u, 'notary')"), {"u": BOB}
        )
        owner.commit()
    with connect(head, autocommit=True) as owner:
        owner.exec_driver_sql("ANALYZE")
    with connect(application) as connection, connection.begin():
        connection.execute(text(f"SELECT set_config('app.user_id', '{ALICE}', true)"))
        yield connection


def error(connection: Connection, statement: str) -> str:
    """Return PostgreSQL's error, with its details; "" if the statement succeeds."""
    try:
        with connection.begin_nested():
            connection.execute(text(statement))
    except DBAPIError as failure:
        return str(failure.orig)
    return ""


def test_unique_violations_tell_nothing(alice: Connection) -> None:
    """Alice can use Bob's ids and names: every unique index leads with the user."""
    assert not error(alice, f"INSERT INTO todo (user_id, id, title) VALUES ('{ALICE}','{BOB}','x')")
    assert not error(alice, f"INSERT INTO tag (user_id, name) VALUES ('{ALICE}', 'notary')")


def test_a_row_for_another_user_is_refused_the_same_whether_it_exists(alice: Connection) -> None:
    """The error is the same for an existing id of Bob's: row security is checked before the key."""
    insertion = "INSERT INTO todo (user_id, id, title) VALUES ('{}', '{}', 'x')"
    taken, free = (error(alice, insertion.format(BOB, one)) for one in (BOB, uuid4()))
    assert "row-level security" in taken
    assert taken == free


def test_foreign_key_errors_tell_nothing(alice: Connection) -> None:
    """A link to Bob's todo fails like a link to a missing one: the key contains Alice's id."""
    error(alice, "SELECT")
    alice.execute(text(f"INSERT INTO tag (user_id, id, name) VALUES ('{ALICE}', '{ALICE}', 'x')"))
    link = "INSERT INTO todo_tag (user_id, todo_id, tag_id) VALUES ('{}', '{}', '{}')"
    existing = error(alice, link.format(ALICE, BOB, ALICE))
    missing_id = uuid4()
    missing = error(alice, link.format(ALICE, missing_id, ALICE))
    assert "violates foreign key constraint" in existing
    assert existing.replace(str(BOB), "") == missing.replace(str(missing_id), "")


def test_errors_show_no_row_of_another_user(alice: Connection) -> None:
    """No constraint is checked on a hidden row, so no DETAIL quotes it."""
    for statement in (
        "UPDATE todo SET title = ''",
        f"UPDATE todo SET user_id = '{ALICE}'",
        f"UPDATE todo SET title = '' WHERE user_id = '{BOB}'",
        "SELECT title::int FROM todo",
    ):
        assert SECRET not in error(alice, statement)


def test_leaky_functions_see_no_row_of_another_user(alice: Connection) -> None:
    """A function that is not leakproof runs only on visible rows."""
    assert not error(
        alice, "SELECT FROM todo WHERE (1 / (title <> 'bob meets the notary')::int) = 1"
    )
    assert not error(alice, "SELECT FROM todo WHERE title::xml IS NOT NULL")


def test_statistics_show_no_value_of_another_user(alice: Connection) -> None:
    """pg_stats hides tables whose row security is active for the current role."""
    shown = alice.execute(text("SELECT * FROM pg_stats WHERE tablename IN ('todo', 'tag')")).all()
    assert shown == []
    assert "permission denied" in error(alice, "SELECT * FROM pg_statistic")


def test_estimates_tell_how_many_rows_there_are(alice: Connection) -> None:
    """Residual: EXPLAIN and pg_class show the number of all users' rows."""
    rows = alice.execute(
        text("SELECT reltuples FROM pg_class WHERE oid = 'todo'::regclass")
    ).scalar_one()
    assert rows == 1


def estimate(connection: Connection, condition: str) -> int:
    """Return how many todos the planner expects under the condition."""
    (plan,) = connection.execute(
        text(f"EXPLAIN (FORMAT JSON) SELECT FROM todo WHERE {condition}")
    ).scalar_one()
    rows: int = plan["Plan"]["Plan Rows"]
    return rows


def test_estimates_give_values_away(alice: Connection, head: URL) -> None:
    """Residual: the planner's statistics know other users' values, and EXPLAIN counts by them."""
    with connect(head, autocommit=True) as owner:
        owner.exec_driver_sql(
            f"INSERT INTO todo (user_id, title) SELECT '{BOB}', '{SECRET}'"
            " FROM generate_series(1, 2000)"
        )
        owner.exec_driver_sql("ANALYZE todo")
    guessed = estimate(alice, f"title = '{SECRET}'")
    assert guessed > 100 * estimate(alice, "title = 'another'")
    # By halves, a whole user id: below it there is nobody, up to it there is everybody.
    below, above = (f"user_id {operator} '{BOB}'" for operator in ("<", "<="))
    assert estimate(alice, above) > 100 * estimate(alice, below)


def test_counters_are_exact(alice: Connection, head: URL) -> None:
    """Residual: pg_stat_user_tables tells every login how many rows were written and read."""
    with connect(head, autocommit=True) as owner:
        counted = text("SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'todo'")
        owner.exec_driver_sql("SELECT pg_stat_force_next_flush()")
        expected = owner.execute(counted).scalar_one()
    alice.execute(text("SELECT pg_stat_clear_snapshot()"))
    assert alice.execute(counted).scalar_one() == expected >= 1


def test_sessions_of_one_login_reach_each_other(application: URL, alice: Connection) -> None:
    """Residual: a login sees its other sessions' statements, and may end them."""
    with connect(application) as sibling:
        pid = sibling.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        sibling.exec_driver_sql(f"SELECT '{SECRET}'")
        shown = alice.execute(
            text("SELECT query FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid}
        ).scalar_one()
        assert SECRET in shown
        ended = alice.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        assert ended.scalar_one()
        sibling.invalidate()


def test_session_state_outlives_an_identity_until_it_is_discarded(
    application: URL, alice: Connection
) -> None:
    """Residual: a cursor WITH HOLD keeps a user's rows on the connection; DISCARD ALL ends it."""
    assert alice.in_transaction()
    for discard in (False, True):
        with connect(application, autocommit=True) as pooled:
            pooled.exec_driver_sql("BEGIN")
            pooled.execute(text(f"SELECT set_config('app.user_id', '{BOB}', true)"))
            pooled.exec_driver_sql("DECLARE kept CURSOR WITH HOLD FOR SELECT title FROM todo")
            pooled.exec_driver_sql("SET app.note = 'kept'")
            pooled.exec_driver_sql("COMMIT")
            if discard:
                pooled.exec_driver_sql("DISCARD ALL")
                note = pooled.exec_driver_sql("SELECT current_setting('app.note', true)")
                assert not note.scalar_one()
                with pytest.raises(DBAPIError, match="does not exist"):
                    pooled.exec_driver_sql("FETCH ALL FROM kept")
            else:
                assert pooled.exec_driver_sql("FETCH ALL FROM kept").scalar_one() == SECRET
                assert pooled.exec_driver_sql("SHOW app.note").scalar_one() == "kept"


def test_any_login_can_hold_the_deploys_lock(alice: Connection, head: URL) -> None:
    """Residual: advisory locks have no privileges. A deploy then waits, and names who holds it."""
    alice.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
    with connect(head) as owner:
        taken = owner.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK})
        assert taken.scalar_one() is False


def test_there_is_no_sequence_to_read(alice: Connection) -> None:
    """Ids are uuids, so no sequence shows how much other users write."""
    found = alice.execute(
        text(
            "SELECT count(*) FROM pg_class"
            " WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
        )
    ).scalar_one()
    assert found == 0


def test_nothing_can_be_put_before_a_table(alice: Connection) -> None:
    """The application can create no table in front of a real one in the search path."""
    assert "permission denied" in error(alice, "CREATE TEMPORARY TABLE todo (title text)")
    assert "permission denied" in error(alice, "CREATE TABLE public.todos (title text)")
    assert "permission denied" in error(alice, "CREATE SCHEMA other")


def test_large_objects_and_notifications_are_shared(alice: Connection) -> None:
    """Residual: they have no row security; an application must not use them."""
    made = alice.execute(text("SELECT lo_from_bytea(0, 'note')")).scalar_one()
    assert made > 0
    assert not error(alice, "NOTIFY todo, 'anybody who listens hears this'")


def test_locks_on_whole_tables_can_be_taken(alice: Connection) -> None:
    """Residual: a role that may write a table may lock it, which blocks other users."""
    assert not error(alice, "LOCK TABLE todo IN ACCESS EXCLUSIVE MODE NOWAIT")


def test_another_users_query_is_not_shown(alice: Connection, head: URL) -> None:
    """pg_stat_activity shows a role's own queries only."""
    with connect(head) as owner:
        owner.execute(text(f"SELECT '{SECRET}'"))
        seen = alice.execute(text("SELECT query FROM pg_stat_activity")).scalars().all()
    assert not [query for query in seen if SECRET in query]
