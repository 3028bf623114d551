"""A review executes the revisions: what it says of locks, work, rows and downgrades is what ran.

The theory: production was taken down by migrations that had been tried, because the trial looked at
each statement by itself and at how long it took. What decides is which locks a transaction holds
while it works in proportion to rows, and what is not as it was after the downgrade. Each test makes
a history of its own on a schema of its own; nothing depends on how fast it runs. The quick tier
runs one of each sort.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import URL

from schema.errors import CannotRunError
from schema.postgres.scratch import Server
from schema.review import findings
from schema.review.execution.databases import Ground, session
from schema.review.execution.trace import UNSEEN
from schema.review.execution.walk import Walked, walk
from schema.review.policy import Policy, accept, read_policy
from schema.review.result import Finding, Lock, Statement
from tests.review.history import IRREVERSIBLE, Revision, changing, executing, write_history

ROWS = 2_000
BASE = f"""
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE person (id int PRIMARY KEY, email text);
CREATE TABLE session (id int PRIMARY KEY, person_id int, mood mood NOT NULL, note text, n int);
CREATE TABLE small (id int PRIMARY KEY);
INSERT INTO person SELECT n, 'p' || n FROM generate_series(1, {ROWS}) AS n;
INSERT INTO session SELECT n, n, 'glad', 'secret ' || n, n % 7 FROM generate_series(1, {ROWS}) AS n;
INSERT INTO small VALUES (1);
"""

type Review = Callable[..., tuple[Walked, list[Finding]]]


@pytest.fixture(scope="module")
def template(server: Server) -> Iterator[URL]:
    """The schema of these tests, with rows."""
    with server.database() as url:
        with session(url) as opened:
            opened.execute(BASE.encode())
        yield url


@pytest.fixture
def review(server: Server, template: URL, tmp_path: Path) -> Review:
    """Run revisions on a copy of it; return what was seen, and the findings."""

    def run(
        *revisions: Revision, policy: Policy | None = None, generated: bool = True
    ) -> tuple[Walked, list[Finding]]:
        with (
            server.database(template) as url,
            tempfile.TemporaryDirectory(dir=tmp_path) as folder,
        ):
            pull_request = write_history(Path(folder), revisions)
            walked = walk(Ground(url, generated), pull_request, lambda _step: None)
            found = findings.of_walk(walked, pull_request.new, policy or Policy())
            return walked, list(accept(found, pull_request.new))

    return run


def named(found: Sequence[Finding]) -> list[str]:
    """Return the names by which the findings are accepted."""
    return sorted(f"{one.kind} {one.object}" for one in found)


def statements(walked: Walked) -> list[Statement]:
    """Return the statements of the first upgrade."""
    return [one for part in walked.steps[0].transactions for one in part.statements]


def lock(statement: Statement, relation: str) -> Lock:
    """Return the lock that a statement takes on a relation."""
    return next(one for one in statement.locks if one.relation == relation)


def test_lock_held_during_a_rewrite(review: Review) -> None:
    """A small change of one table, in the transaction that rewrites another, stops both.

    So an enum that became text took a product down whose migration had been tried: its users'
    table was locked meanwhile, for a column that takes no time.
    """
    walked, found = review(
        changing(
            "ALTER TABLE person ADD COLUMN active boolean",
            "ALTER TABLE session ALTER COLUMN mood TYPE text",
            down=(
                "ALTER TABLE session ALTER COLUMN mood TYPE mood USING mood::mood",
                "ALTER TABLE person DROP COLUMN active",
            ),
        )
    )
    assert named(found) == ["held person", "rewrite session"]
    (transaction,) = walked.steps[0].transactions
    assert transaction.slowest == 1
    assert [one.relation for one in transaction.held] == ["person", "session"]
    assert {one.blocks for one in transaction.held} == {"reads and writes"}


@pytest.mark.slow
def test_apart_they_are_safe(review: Review) -> None:
    """The same change of the small column, in a revision of its own, is no finding."""
    up, down = (
        "ALTER TABLE person ADD COLUMN active boolean",
        "ALTER TABLE person DROP COLUMN active",
    )
    walked, found = review(changing(up, down=[down]))
    assert found == []
    assert lock(statements(walked)[0], "person").mode == "ACCESS EXCLUSIVE"


@pytest.mark.slow
def test_lock_lasts_to_the_end_of_its_transaction(review: Review) -> None:
    """A lock's time is counted to the commit, not to the end of its statement."""
    walked, _ = review(changing("LOCK TABLE person IN SHARE MODE", "SELECT pg_sleep(0.3)"))
    taken = lock(statements(walked)[0], "person")
    assert taken.blocks == "writes"
    assert taken.seconds >= 0.3
    assert statements(walked)[0].seconds < taken.seconds


def test_string_of_several_statements(review: Review) -> None:
    """A script in one string is traced statement by statement."""
    script = "ALTER TABLE person ADD COLUMN a int; UPDATE session SET n = 8 WHERE id = 1;"
    walked, _ = review(changing(f"{script} SELECT '%'"))
    assert [one.sql for one in statements(walked)] == [
        "ALTER TABLE person ADD COLUMN a int",
        "UPDATE session SET n = 8 WHERE id = 1",
        "SELECT '%'",
    ]
    assert statements(walked)[1].written == {"session": 1}


@pytest.mark.slow
def test_what_goes_past_sqlalchemy(review: Review) -> None:
    """A revision that uses the driver itself, as for COPY, cannot hide its locks and rows."""
    lines = [
        "op.execute('SELECT 1')",
        "driver = op.get_bind().connection.driver_connection",
        "driver.execute('LOCK TABLE person')",
        "driver.execute('UPDATE session SET n = 1')",
    ]
    walked, found = review(Revision(lines))
    unseen = statements(walked)[-1]
    assert (unseen.sql, unseen.written) == (UNSEEN, {"session": ROWS})
    assert lock(unseen, "person").blocks == "reads and writes"
    assert "backfill session" in named(found)


LOOP = [
    "for number in range(300):",
    "    op.get_bind().execute(sa.text('UPDATE session SET n = 9 WHERE id = :id'), {'id': number})",
    "op.execute('LOCK TABLE person')",
]


def test_loop(review: Review) -> None:
    """A loop in Python is one statement, with all that it did: a page has no place for more."""
    walked, _ = review(Revision(LOOP, [IRREVERSIBLE]))
    looped, locked = statements(walked)
    assert (looped.times, looped.written) == (300, {"session": 299})
    assert lock(looped, "session").mode == "ROW EXCLUSIVE"
    assert lock(locked, "person").mode == "ACCESS EXCLUSIVE"


LATER = "ALTER TABLE person ADD COLUMN later int"
DRIVER = "op.get_bind().connection.driver_connection"
HIDDEN = {
    "an exit": (["op.execute('SELECT 1')", "raise SystemExit(0)"], {"fails 000000000001"}),
    "the driver alone": (
        [f"{DRIVER}.execute('UPDATE session SET n = 9')"],
        {"backfill session", "loses session.n"},
    ),
    "a connection of its own": (
        [
            "with op.get_bind().engine.connect() as other:",
            "    other.exec_driver_sql('DELETE FROM session')",
            "    other.commit()",
        ],
        {"backfill session", "loses session"},
    ),
    "one block": (
        executing(f"DO $$ BEGIN {LATER}; PERFORM max(note) FROM session; END $$"),
        {"held person"},
    ),
    "a transaction in an autocommit block": (
        executing("BEGIN", LATER, "UPDATE session SET n = 9", "COMMIT", alone=True),
        {"held person", "backfill session", "loses session.n"},
    ),
    "a string in an autocommit block": (
        executing(
            "ALTER TABLE session ADD CONSTRAINT c CHECK (n < 9) NOT VALID;"
            " ALTER TABLE session VALIDATE CONSTRAINT c",
            alone=True,
        ),
        {"scan session"},
    ),
    "one row less": (
        executing(
            "DELETE FROM session WHERE id = 1",
            "ALTER TABLE session ADD CONSTRAINT c CHECK (n < 9)",
        ),
        {"scan session", "loses session"},
    ),
    "through an index": (
        [
            *executing("SET LOCAL enable_seqscan = off"),
            *executing("LOCK TABLE session IN SHARE MODE", "SELECT count(*) FROM session"),
        ],
        {"scan session"},
    ),
    "handlers, which are no commits": (
        executing(
            "DO $$ DECLARE i int; BEGIN FOR i IN SELECT id FROM session LOOP BEGIN"
            " UPDATE session SET n = 9 WHERE id = i; EXCEPTION WHEN others THEN NULL; END;"
            " END LOOP; END $$",
            alone=True,
        ),
        {"backfill session", "loses session.n"},
    ),
}
"""Ways to hide what is done, and the findings all the same; each cannot be reverted."""


@pytest.mark.slow
@pytest.mark.parametrize("case", HIDDEN)
def test_hidden(review: Review, case: str) -> None:
    """What a revision does is seen, however it does it."""
    lines, expected = HIDDEN[case]
    _, found = review(Revision(lines, [IRREVERSIBLE]))
    assert {one for one in named(found) if "irreversible" not in one} == expected


UNCHANGED = {
    "another isolation": executing(
        "SET default_transaction_isolation = 'serializable'",
        "DO $$ BEGIN PERFORM count(*) FROM session; PERFORM pg_sleep(0.1); END $$",
        alone=True,
    ),
    "a rollback of its own": executing(
        "BEGIN", "UPDATE session SET note = 'gone' WHERE id = 1", "ROLLBACK", alone=True
    ),
    "no wait": executing("DO $$ BEGIN LOCK TABLE session NOWAIT; END $$", alone=True),
    "a body of statements": [
        "op.execute('CREATE FUNCTION two() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1;"
        " SELECT 2; END; DROP FUNCTION two()')"
    ],
    "a temporary table": executing("CREATE TEMP TABLE pairs AS SELECT 1"),
    "texts with signs": executing("COMMENT ON TABLE small IS 'a;b $$ % :c -- d'",
                                  "COMMENT ON TABLE small IS NULL"),
}  # fmt: skip
"""Upgrades that a deploy applies, and that change nothing."""


@pytest.mark.slow
@pytest.mark.parametrize("case", UNCHANGED)
def test_tracing_changes_nothing(review: Review, case: str) -> None:
    """A revision that a deploy applies is applied here, and is no finding."""
    walked, found = review(Revision(UNCHANGED[case]))
    assert walked.failure is None
    assert found == []


OWN_ENDS = {
    "a commit": executing("ALTER TABLE person ADD COLUMN a int", "COMMIT"),
    "one in a string": ["op.execute('ALTER TABLE person ADD COLUMN a int; COMMIT; BEGIN')"],
}
"""Revisions that end the transaction which a deploy has given them."""


@pytest.mark.slow
@pytest.mark.parametrize("case", OWN_ENDS)
def test_own_transaction(review: Review, case: str) -> None:
    """What a deploy refuses is a failure here."""
    walked, found = review(Revision(OWN_ENDS[case], [IRREVERSIBLE]))
    assert walked.failure is not None
    assert "ended its own transaction" in walked.failure.error
    assert any(one.kind == "fails" and one.blocking for one in found)


def test_concurrent_index(review: Review) -> None:
    """The locks of a statement that no transaction may contain are seen, however short it is."""
    build = "CREATE INDEX CONCURRENTLY small_idx ON small (id)"
    walked, found = review(
        Revision(
            executing(build, alone=True),
            executing("DROP INDEX CONCURRENTLY small_idx", alone=True),
        )
    )
    assert found == []
    assert [(one.relation, one.blocks) for one in statements(walked)[0].locks] == [
        ("small", "schema changes")
    ]
    dropped = walked.steps[1].transactions[0].statements[0]
    assert lock(dropped, "small").mode == "SHARE UPDATE EXCLUSIVE"


@pytest.mark.slow
def test_failed_concurrent_index(review: Review) -> None:
    """A unique index that the rows refuse: the revision fails, and what it leaves is INVALID."""
    walked, found = review(
        Revision(executing("CREATE UNIQUE INDEX CONCURRENTLY n_idx ON session (n)", alone=True))
    )
    assert walked.failure is not None
    assert (walked.failure.constraint, walked.failure.rows) == ("n_idx", ROWS)
    assert named(found) == ["fails n_idx", "invalid n_idx"]


@pytest.mark.slow
def test_batches(review: Review) -> None:
    """Rows that are written in batches, each committed, are no backfill; in one they are."""
    loop = (
        "DO $$ BEGIN FOR i IN 0..9 LOOP"
        " UPDATE session SET n = 9 WHERE id % 10 = i; COMMIT; END LOOP; END $$"
    )
    walked, found = review(Revision(executing(loop, alone=True), [IRREVERSIBLE]))
    assert "backfill session" not in named(found)
    assert statements(walked)[0].written == {"session": ROWS}
    assert statements(walked)[0].transactions >= 10


def test_one_transaction_for_all_rows(review: Review) -> None:
    """The bad case of batches."""
    _, found = review(changing("UPDATE session SET n = 9 WHERE n <> 9"))
    assert named(found) == ["backfill session", "loses session.n"]


FAILURES = {
    "not null": ("ALTER TABLE session ALTER COLUMN person_id SET NOT NULL", "", 3),
    "check": ("ALTER TABLE session ADD CONSTRAINT few CHECK (n < 7)", "few", 2),
    "foreign key": (
        "ALTER TABLE session ADD CONSTRAINT whose FOREIGN KEY (person_id) REFERENCES person",
        "whose",
        1,
    ),
    "unique": ("ALTER TABLE session ADD CONSTRAINT once UNIQUE (person_id)", "once", 2),
    "validated": ("ALTER TABLE session VALIDATE CONSTRAINT later", "later", 2),
}
"""Statements that some rows refuse: the constraint, and how many rows."""


@pytest.mark.slow
@pytest.mark.parametrize("generated", [True, False], ids=["generated", "given"])
@pytest.mark.parametrize("case", FAILURES)
def test_rows_that_stand_in_the_way(review: Review, case: str, *, generated: bool) -> None:
    """A failure says which constraint and how many rows; an example only if they were generated."""
    sql, constraint, rows = FAILURES[case]
    prepared = changing(
        "UPDATE session SET person_id = NULL WHERE id <= 3",
        "UPDATE session SET n = 70 WHERE id IN (5, 6)",
        "UPDATE session SET person_id = 99999 WHERE id = 7",
        "UPDATE session SET person_id = 9 WHERE id = 10",
        "ALTER TABLE session ADD CONSTRAINT later CHECK (n < 7) NOT VALID",
    )
    walked, found = review(
        Revision(prepared.up, [IRREVERSIBLE]), changing(sql), generated=generated
    )
    failure = walked.failure
    assert failure is not None
    assert (failure.constraint, failure.rows) == (constraint, rows)
    assert bool(failure.example) is generated
    (finding,) = (one for one in found if one.kind == "fails")
    assert "secret" not in f"{failure.error} {finding.message} {failure.example}"


RAISING = {
    "python": [
        "raise ValueError(op.get_bind().exec_driver_sql('SELECT note FROM session').scalar())"
    ],
    "plpgsql": executing(
        "DO $$ BEGIN RAISE EXCEPTION 'bad: %', (SELECT note FROM session LIMIT 1); END $$"
    ),
    "cast": executing("ALTER TABLE session ALTER COLUMN note TYPE int USING note::int"),
    "a raise with another code": executing(
        "DO $$ BEGIN RAISE unique_violation USING MESSAGE = (SELECT note FROM session LIMIT 1);"
        " END $$"
    ),
    "a name": executing(
        "DO $$ BEGIN EXECUTE format('SELECT * FROM %I', (SELECT note FROM session LIMIT 1)); END $$"
    ),
    "an exit": [
        "raise SystemExit(op.get_bind().exec_driver_sql('SELECT note FROM session').scalar())"
    ],
    "a statement": [
        "note = op.get_bind().exec_driver_sql('SELECT note FROM session').scalar()",
        "print(note)",
        "op.execute(f\"UPDATE session SET note = '{note}' WHERE id = 0\")",
        "raise ValueError(note)",
    ],
}
"""Upgrades whose error quotes a row."""


@pytest.mark.slow
@pytest.mark.parametrize("case", RAISING)
def test_an_error_that_quotes_a_row(
    review: Review, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    """No text of an error shows a value of rows that were given."""
    walked, found = review(Revision(RAISING[case]), generated=False)
    assert walked.failure is not None
    assert "secret" not in f"{walked.failure} {found} {walked.steps}" + "".join(capfd.readouterr())


@pytest.mark.slow
def test_inexact_downgrade(review: Review) -> None:
    """A downgrade that leaves something behind blocks, and shows what."""
    walked, found = review(changing("CREATE TABLE IF NOT EXISTS extra (id int)"))
    assert named(found) == ["downgrade 0001.py"]
    assert "+ table extra" in walked.reversals[0].difference


def test_lost_values(review: Review) -> None:
    """What is gone after down and up blocks, unless the revision says that it loses it."""
    up, down = "ALTER TABLE session DROP COLUMN note", "ALTER TABLE session ADD COLUMN note text"
    walked, found = review(changing(up, down=[down]))
    assert named(found) == ["loses session.note"]
    assert walked.reversals[0].lost == {"session.note": ROWS}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reason", "expected"), [("it is unused", []), (" ", ["loses session.note"])]
)
def test_declared_losses(review: Review, reason: str, expected: list[str]) -> None:
    """A declared loss needs a reason."""
    up, down = "ALTER TABLE session DROP COLUMN note", "ALTER TABLE session ADD COLUMN note text"
    _, found = review(changing(up, down=[down], declared=f"loses = {{'session.note': '{reason}'}}"))
    assert named(found) == expected


@pytest.mark.slow
def test_renamed_and_brought_back(review: Review) -> None:
    """A rename keeps its values: nothing is lost, and nothing is told."""
    up = "ALTER TABLE session RENAME COLUMN note TO remark"
    down = "ALTER TABLE session RENAME COLUMN remark TO note"
    assert review(changing(up, down=[down]))[1] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ("ALTER TABLE session ALTER COLUMN n TYPE bigint", {}),
        ("ALTER TABLE session ALTER COLUMN mood TYPE text", {}),
        ("ALTER TABLE session ALTER COLUMN note TYPE varchar(3) USING left(note, 3)",
         {"session.note": ROWS}),
    ],
    ids=["wider", "another-type", "cut"],
)  # fmt: skip
def test_another_type(review: Review, change: str, lost: dict[str, int]) -> None:
    """A value in another type is the same, if the old type brings it back."""
    walked, _ = review(Revision(executing(change), [IRREVERSIBLE]))
    assert walked.reversals[0].lost == lost


def test_irreversible(review: Review) -> None:
    """What cannot be reverted is told with its reason, and asks for a decision."""
    walked, (finding,) = review(
        Revision(executing("ALTER TYPE mood ADD VALUE 'angry'"), [IRREVERSIBLE])
    )
    assert (finding.kind, finding.blocking) == ("irreversible", False)
    assert "a test says so" in finding.message
    assert walked.reversals[0].state == "irreversible"


SCAN = "CREATE INDEX n_idx ON session (n)"
ACCEPTANCES = {
    "accepted": ("scan session", "it is read-only at night", []),
    "without a reason": ("scan session", " ", ["acceptance scan session", "scan session"]),
    "of another finding": ("scan person", "so it is", ["acceptance scan person", "scan session"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ACCEPTANCES)
def test_acceptances(review: Review, case: str) -> None:
    """A revision accepts a finding by its name with a reason; what accepts nothing is told."""
    name, reason, expected = ACCEPTANCES[case]
    declared = f"accepts = {{'{name}': '{reason}'}}"
    _, found = review(changing(SCAN, down=["DROP INDEX n_idx"], declared=declared))
    assert named([one for one in found if one.blocking]) == expected
    assert [bool(one.accepted) for one in found if one.kind == "scan"] == [expected == []]


@pytest.mark.slow
def test_unreadable_acceptance(review: Review) -> None:
    """An acceptance that is no reason by name is refused in one sentence."""
    with pytest.raises(CannotRunError, match=r"`accepts` of 0001\.py must give a reason"):
        review(changing("SELECT 1", declared="accepts = ['scan session']"))


BUDGETS = {
    "as it is": ("", "", ["scan session"]),
    "allowed": ("scans = 1", "", []),
    "tightened by the table": ("scans = 1\n[tool.schema.review.tables.session]\nscans = 0", "",
                               ["scan session"]),
    "tightened by the revision": ("scans = 1", "budget = {'scans': 0}", ["scan session"]),
    "not loosened by the revision": ("", "budget = {'scans': 5}", ["scan session"]),
    "not loosened by the table": ("[tool.schema.review.tables.session]\nscans = 9", "",
                                  ["scan session"]),
    "small": ("big = 5_000", "", []),
    "bytes": ("scans = 1\nbytes = 1", "", ["budget session"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", BUDGETS)
def test_budgets(review: Review, case: str) -> None:
    """The project's limits hold; a table or a revision can only tighten them."""
    limits, declared, expected = BUDGETS[case]
    policy = read_policy(f"[tool.schema.review]\n{limits}")
    change = changing(SCAN, down=["DROP INDEX n_idx"], declared=declared)
    assert named(review(change, policy=policy)[1]) == expected


@pytest.mark.parametrize(
    "limits", ["rows = -1", "rows = true", "row = 1", "tables.todo.x = 1", "["]
)
def test_limits_that_are_none(limits: str) -> None:
    """A limit that there is not is refused, with those that there are."""
    with pytest.raises(CannotRunError, match=r"pyproject\.toml"):
        read_policy(f"[tool.schema.review]\n{limits}")


@pytest.mark.slow
def test_equal_twice(review: Review) -> None:
    """The findings of a second run are those of the first: no time decides anything."""
    change = changing(
        "ALTER TABLE person ADD COLUMN a int",
        "ALTER TABLE session ALTER COLUMN n TYPE bigint",
        down=("ALTER TABLE session ALTER COLUMN n TYPE int", "ALTER TABLE person DROP COLUMN a"),
    )
    first, again = review(change), review(change)
    assert first[1] == again[1] != []
    assert _without_times(first[0]) == _without_times(again[0])


def _without_times(walked: Walked) -> str:
    return re.sub(r"seconds=[\d.e-]+", "", repr(walked.steps))
