"""No sequence of statements in concurrent transactions can access another user's rows.

Two connections act for different users, or for none, in interleaved transactions with savepoints,
commits and rollbacks. The machine checks the rows that each statement returns. A third connection,
which sees all rows, checks the changes and locks of each transaction.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from psycopg.pq import TransactionStatus
from sqlalchemy import URL

from tests.support.servers import conninfo, pooled

USERS = tuple(UUID(int=number, version=4) for number in range(1, 4))
KNOWN = tuple(map(str, USERS))
DELETED = UUID(int=9, version=4)
IDENTITIES = (*KNOWN, str(DELETED), "", "garbage", None)

FULL = 100_000
"""Minimum of operations in the full tier."""

# {me} and {other} are users, {id} is an id of any user, {word} a text. The first column that a
# statement returns is the user of the row.
STATEMENTS = (
    "SELECT user_id FROM todo",
    "SELECT user_id FROM todo WHERE user_id = {other}",
    "SELECT user_id FROM todo WHERE id = {id} FOR UPDATE",
    "SELECT user_id FROM todo FOR SHARE",
    'SELECT id FROM "user"',
    'SELECT t.user_id FROM todo AS t RIGHT JOIN "user" AS u ON true',
    "SELECT t.user_id FROM todo AS t JOIN todo_tag AS l USING (id) WHERE l.user_id <> t.user_id",
    "SELECT user_id FROM tag WHERE EXISTS (SELECT FROM todo WHERE todo.user_id <> tag.user_id)",
    "SELECT user_id FROM todo UNION ALL SELECT user_id FROM tag"
    " UNION ALL SELECT user_id FROM todo_tag",
    "SELECT (SELECT user_id FROM todo WHERE user_id = {other} LIMIT 1)",
    "INSERT INTO todo (user_id, title) VALUES ({me}, {word}) RETURNING user_id",
    "INSERT INTO todo (user_id, id, title) VALUES ({other}, {id}, {word}) RETURNING user_id",
    "INSERT INTO todo (user_id, id, title) VALUES ({me}, {id}, {word}) ON CONFLICT (user_id, id)"
    " DO UPDATE SET title = EXCLUDED.title RETURNING user_id",
    "INSERT INTO todo (user_id, id, title) VALUES ({other}, {id}, {word})"
    " ON CONFLICT DO NOTHING RETURNING user_id",
    "INSERT INTO todo (user_id, title) SELECT user_id, title FROM todo LIMIT 3 RETURNING user_id",
    "UPDATE todo SET title = {word} RETURNING user_id",
    "UPDATE todo SET title = {word} WHERE user_id = {other} RETURNING user_id",
    "UPDATE todo SET user_id = {other} RETURNING user_id",
    "UPDATE todo SET id = uuid_v7() WHERE id = {id} RETURNING user_id",
    'UPDATE todo SET title = u.name FROM "user" AS u RETURNING todo.user_id',
    "DELETE FROM todo WHERE id = {id} RETURNING user_id",
    "DELETE FROM todo WHERE user_id = {other} RETURNING user_id",
    "DELETE FROM todo USING tag WHERE tag.user_id <> todo.user_id RETURNING todo.user_id",
    "WITH gone AS (DELETE FROM tag RETURNING user_id) SELECT user_id FROM gone",
    "WITH new AS (INSERT INTO tag (user_id, name) VALUES ({me}, {word})"
    " ON CONFLICT DO NOTHING RETURNING user_id) SELECT user_id FROM new",
    # Without RETURNING, which would itself reject a row that the policy hides.
    "INSERT INTO tag (user_id, name) VALUES ({other}, {word})",
    "INSERT INTO todo (user_id, title) VALUES ({other}, {word})",
    "MERGE INTO todo AS t USING (SELECT 1) AS one ON t.id = {id} WHEN MATCHED THEN DELETE"
    " WHEN NOT MATCHED THEN INSERT (user_id, title) VALUES ({other}, {word})",
    "MERGE INTO todo AS t USING tag AS s ON t.title = s.name"
    " WHEN MATCHED THEN UPDATE SET title = {word}",
    "INSERT INTO todo_tag (user_id, todo_id, tag_id)"
    " SELECT t.user_id, t.id, s.id FROM todo AS t, tag AS s ON CONFLICT DO NOTHING"
    " RETURNING user_id",
    "INSERT INTO todo_tag (user_id, todo_id, tag_id) VALUES ({me}, {id}, {id}) RETURNING user_id",
    "INSERT INTO todo_tag (user_id, todo_id, tag_id) VALUES ({other}, {id}, {id})"
    " RETURNING user_id",
    "UPDATE todo_tag SET user_id = {other} RETURNING user_id",
    'SELECT "userId" FROM session',
    'DELETE FROM "user"',
    "TRUNCATE todo CASCADE",
    "CREATE TEMPORARY TABLE todo (user_id uuid)",
)

# A hash of each user's rows: only transactions of that user may change it.
FINGERPRINT = """
SELECT id, (
  SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t.id), '')) FROM todo AS t
  WHERE t.user_id = u.id
) || (
  SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t.id), '')) FROM tag AS t
  WHERE t.user_id = u.id
) || (
  SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t.todo_id, t.tag_id), ''))
  FROM todo_tag AS t WHERE t.user_id = u.id
) FROM "user" AS u ORDER BY id
"""

OTHERS_ROWS = """
SELECT FROM todo WHERE user_id::text <> ALL (%s) FOR UPDATE NOWAIT
"""


type Drawn = tuple[str, UUID, int, str]
"""A statement, another user, the index of a known id, and a word."""


class Stage:
    """The connections and the number of operations, for all runs of the machine."""

    def __init__(self, owner: URL, application: URL) -> None:
        """Connect once as a role that sees all rows, and twice as the application."""
        self.owner = psycopg.connect(conninfo(owner), autocommit=True)
        self.owner.execute("SET lock_timeout = '1s'")
        self.connections = [
            # A pooler in transaction mode may change the server connection of a prepared statement.
            psycopg.connect(conninfo(application), autocommit=True, prepare_threshold=None)
            for _ in range(2)
        ]
        self.operations = 0

    def reset(self) -> None:
        """Insert three users with two todos, a tag and a link each."""
        self.owner.execute('DELETE FROM "user"')
        for user in (*USERS, DELETED):
            self.owner.execute(
                'INSERT INTO "user" (id, name, email) VALUES (%(u)s, %(t)s, %(t)s)',
                {"u": user, "t": str(user)},
            )
            self.owner.execute(
                "INSERT INTO todo (user_id, title) VALUES (%(u)s, 'one'), (%(u)s, 'two')",
                {"u": user},
            )
            self.owner.execute("INSERT INTO tag (user_id, name) VALUES (%s, 'one')", [user])
        self.owner.execute(
            "INSERT INTO todo_tag (user_id, todo_id, tag_id)"
            " SELECT t.user_id, t.id, s.id FROM todo AS t JOIN tag AS s USING (user_id)"
        )
        self.owner.execute('DELETE FROM "user" WHERE id = %s', [DELETED])

    def ids(self) -> list[UUID]:
        """Return the ids of all users' todos and tags: a user may know any of them."""
        rows = self.owner.execute("SELECT id FROM todo UNION ALL SELECT id FROM tag ORDER BY id")
        return [row[0] for row in rows]

    def fingerprint(self) -> dict[UUID, str]:
        """Return a hash of each user's committed rows."""
        return dict(self.owner.execute(FINGERPRINT).fetchall())

    def close(self) -> None:
        """Close every connection."""
        for connection in (self.owner, *self.connections):
            connection.close()


class Transactions(RuleBasedStateMachine):
    """Interleaved transactions of two connections."""

    stage: Stage

    def __init__(self) -> None:
        """Begin without an identity."""
        super().__init__()
        self.acting: list[str | None] = ["", ""]

    @initialize()
    def start(self) -> None:
        """Begin with known rows and without a transaction."""
        self.stage.reset()

    @rule(
        which=st.sampled_from((0, 1)),
        identity=st.sampled_from(IDENTITIES),
        batch=st.lists(
            st.tuples(
                st.sampled_from(STATEMENTS),
                st.sampled_from(USERS),
                st.integers(0, 30),
                st.sampled_from(("one", "two", "Drei")),
            ),
            min_size=1,
            max_size=20,
        ),
    )
    def execute(self, which: int, identity: str | None, batch: list[Drawn]) -> None:
        """Run statements, in a new transaction if none is open on the connection."""
        connection = self.stage.connections[which]
        if connection.info.transaction_status == TransactionStatus.IDLE:
            if identity is not None and identity == self._acting_elsewhere(which):
                return  # two transactions of one user may wait for each other
            connection.execute("BEGIN")
            connection.execute("SET LOCAL lock_timeout = '1s'")
            if identity is not None:
                connection.execute("SELECT set_config('app.user_id', %s, true)", [identity])
            self.acting[which] = identity
        ids = self.stage.ids() or [uuid4()]
        for statement, other, pick, word in batch:
            values: dict[str, object] = {
                "me": self.acting[which] if self.acting[which] in KNOWN else str(other),
                "other": other,
                "id": ids[pick % len(ids)],
                "word": word,
            }
            self._try(which, statement, values)

    def _try(self, which: int, statement: str, values: dict[str, object]) -> None:
        """Assert that the statement returns only the acting user's rows, or is refused."""
        connection, identity = self.stage.connections[which], self.acting[which]
        self.stage.operations += 1
        connection.execute("SAVEPOINT before")
        try:
            cursor = connection.execute(
                statement.format(**{name: f"%({name})s" for name in values}), values
            )
            rows = cursor.fetchall() if cursor.description else []
        except psycopg.errors.LockNotAvailable:
            pytest.fail(f"{statement} as {identity!r} waits for a row of another user's")
        except psycopg.Error:
            connection.execute("ROLLBACK TO SAVEPOINT before")
            return
        owners = {str(row[0]) for row in rows if row[0] is not None}
        assert owners <= {identity}, f"{statement} as {identity!r} returns rows of {owners}"

    @rule(which=st.sampled_from((0, 1)), commit=st.booleans())
    def end(self, which: int, commit: bool) -> None:  # drawn by name
        """End a transaction, and assert that it locked and changed only its user's rows."""
        connection = self.stage.connections[which]
        if connection.info.transaction_status == TransactionStatus.IDLE:
            return
        both = [identity or "" for identity in self.acting]
        with (
            suppress(psycopg.errors.QueryCanceled),
            self.stage.owner.transaction(force_rollback=True),
        ):
            self.stage.owner.execute(OTHERS_ROWS, [both])
        before = self.stage.fingerprint()
        connection.execute("COMMIT" if commit else "ROLLBACK")
        after = self.stage.fingerprint()
        changed = {str(user) for user in before if before[user] != after.get(user)}
        assert changed <= {self.acting[which]}, f"{self.acting[which]!r} changed {changed}"
        assert before.keys() == after.keys()
        self.acting[which] = ""

    def teardown(self) -> None:
        """Roll back the open transactions."""
        for connection in self.stage.connections:
            if connection.info.transaction_status != TransactionStatus.IDLE:
                connection.execute("ROLLBACK")

    def _acting_elsewhere(self, which: int) -> str | None:
        connection = self.stage.connections[1 - which]
        idle = connection.info.transaction_status == TransactionStatus.IDLE
        return None if idle else self.acting[1 - which]


def run(
    stage: Stage,
    examples: int,
    steps: int,
    *,
    known: bool,
    phases: tuple[Phase, ...] = tuple(Phase),
) -> None:
    """Run the machine; `known` examples are the same in each run."""
    machine = type("Transactions", (Transactions,), {"stage": stage})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=known,
            database=None,
            phases=phases,
            report_multiple_bugs=False,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def stage(head: URL, application: URL) -> Iterator[Stage]:
    """Connections of the application's login, without a pooler."""
    opened = Stage(head, application)
    yield opened
    opened.close()


def test_no_transaction_reaches_another_users_rows(stage: Stage) -> None:
    """The quick tier: a few thousand statements, the same in each run."""
    run(stage, examples=60, steps=40, known=True)
    assert stage.operations > 2000


@pytest.mark.parametrize(
    "mutation",
    [
        "ALTER POLICY todo_owner ON todo USING (true)",
        "ALTER POLICY tag_owner ON tag WITH CHECK (true)",
        "ALTER TABLE todo_tag DISABLE ROW LEVEL SECURITY",
    ],
)
def test_a_hole_is_found(stage: Stage, mutation: str) -> None:
    """The machine finds a policy that shows or accepts other users' rows, and a missing policy."""
    stage.owner.execute(mutation.encode())
    found = (AssertionError, pytest.fail.Exception)  # the examples depend on this file's text
    with pytest.raises(found, match=r"returns rows of|changed|waits for a row of another user"):
        run(stage, examples=60, steps=40, known=True, phases=(Phase.generate,))


@pytest.mark.slow
def test_no_transaction_of_a_hundred_thousand_operations_does(
    stage: Stage,
    record_property: Any,  # noqa: ANN401  # pytest's own
) -> None:
    """The full tier: new random statements in each run."""
    while stage.operations < FULL:
        run(stage, examples=200, steps=100, known=False)
    record_property("operations", stage.operations)
    print(f"\n{stage.operations:,} operations, none reached another user's row")  # noqa: T201


@pytest.mark.slow
def test_nor_through_a_pooler_in_transaction_mode(head: URL, application: URL) -> None:
    """With a pooler, transactions of several clients share the server's connections."""
    with pooled(application) as through:
        stage = Stage(head, through)
        run(stage, examples=50, steps=50, known=False)
        assert stage.operations > 1000
        print(f"\n{stage.operations:,} operations through PgBouncer")  # noqa: T201
        stage.close()
