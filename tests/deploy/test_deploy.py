"""The safe deploy: `alembic upgrade head`, its locks, warnings, report and verification.

The theory: a deploy never blocks other sessions for long, logs what it waits for, and ends with the
committed schema or reports the difference.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, text

from migrations.deploy.connection import LATER_SETTINGS
from migrations.deploy.statement import describe_sql, index_to_build, is_concurrent
from schema.postgres.connection import connect
from schema.project import ROOT
from tests.support.alembic_process import deploy, execute, report, state, stopped_at, terminator
from tests.support.frozen import FIRST, LAST, TAGS
from tests.support.repo_copy import IRREVERSIBLE, Checkout, Launcher, sql
from tests.support.servers import disposable
from tests.support.waiting import when


@contextmanager
def holding(url: URL, *statements: str) -> Iterator[Connection]:
    """Keep a transaction with these statements open during the block."""
    with connect(url) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        yield connection


def test_the_first_deploy(run: Launcher, frozen: Path, empty: URL) -> None:
    """The report lists the revisions and the time, and confirms the committed schema."""
    result = deploy(run, frozen, empty)
    assert result.code == 0, result.everything
    assert f"upgrade   {FIRST}" in result.out
    assert "Create Better Auth's tables" in result.out
    assert f"went from nothing to {LAST}" in result.out
    assert "Its schema equals the history's." in result.out
    again = deploy(run, frozen, empty)
    assert again.code == 0, again.everything
    assert again.out.startswith("Nothing to do:")
    assert again.err == ""


def test_the_report_as_json(run: Launcher, frozen: Path, empty: URL) -> None:
    """With `-x report=json`, standard output is one JSON document."""
    document = report(deploy(run, frozen, empty, "-x", "report=json", "upgrade", "head"))
    assert document["ok"] is True
    assert document["error"] is None
    assert (document["before"], document["after"]) == (None, LAST)
    assert document["verified"] is True
    assert [one["revision"] for one in document["revisions"]][-1] == LAST
    assert {one["attempts"] for one in document["revisions"]} == {1}
    assert all(one["seconds"] >= 0 for one in document["revisions"])
    assert document["attempts"] == len(document["revisions"])
    down = report(deploy(run, frozen, empty, "-x", "report=json", "downgrade", "-1"))
    assert (down["before"], down["after"]) == (LAST, TAGS)
    assert down["verified"] is True
    assert [one["direction"] for one in down["revisions"]] == ["downgrade"]


def test_what_changes_nothing(
    run: Launcher, frozen: Path, head: URL, models_server: list[str]
) -> None:
    """Read-only commands do not wait for a deploy, and print no report."""
    options = [word for one in models_server for word in ("-x", one)]
    with holding(head, "SELECT pg_advisory_lock(x'616c656d626963'::bigint)"):
        assert deploy(run, frozen, head, "current").out == f"{LAST} (head)\n"
        # The models may be newer than the frozen history.
        checked = deploy(run, frozen, head, *options, "check")
        assert "new upgrade operations detected" in checked.out.lower()


def test_offline(run: Launcher, frozen: Path) -> None:
    """`--sql` needs no database, and prints SQL and nothing else to standard output."""
    result = deploy(run, frozen, "", "upgrade", "head", "--sql")
    assert result.code == 0, result.everything
    assert result.out.startswith("BEGIN;\n")
    assert result.out.rstrip().endswith("COMMIT;")


def test_who_is_in_the_way(run: Launcher, frozen: Path, head: URL) -> None:
    """While a session holds a lock, the deploy retries and names that session.

    `downgrade -2` reverts two revisions, even after retries.
    """
    with holding(head, "SELECT FROM todo_tag", "SELECT 'a secret' FROM todo_tag") as holder:
        with when(lambda: run.count("giving way") > 2, holder.rollback):
            result = deploy(run, frozen, head, "-x", "report=json", "downgrade", "-2")
    assert result.code == 0, result.everything
    assert "DROP TABLE todo_tag waits for session" in result.err
    assert "idle in transaction for" in result.err
    assert "and its lock on todo_tag; giving way, retrying in" in result.err
    assert "secret" not in result.everything
    document = report(result)
    assert [one["revision"] for one in document["revisions"]] == [LAST, TAGS]
    assert document["revisions"][-1]["attempts"] > 2
    assert 0.05 < document["longest_lock_wait_seconds"] < 1


@pytest.mark.slow
def test_nobody_waits_behind_a_deploy(run: Launcher, frozen: Path, head: URL) -> None:
    """A session that queues behind the deploy's lock request waits only briefly."""
    deploy(run, frozen, head, "downgrade", "-1")
    stalls = []

    ended = threading.Event()

    def read() -> None:
        with connect(head, autocommit=True) as connection:
            while not ended.is_set():
                start = time.monotonic()
                connection.exec_driver_sql("SELECT FROM todo_tag")
                stalls.append(time.monotonic() - start)

    reader = threading.Thread(target=read)
    with holding(head, "SELECT FROM todo_tag") as holder:

        def let_it_through() -> None:  # reverting it drops the table of the reader
            ended.set()
            reader.join()
            holder.rollback()

        reader.start()
        with when(lambda: run.count("giving way") > 4, let_it_through):
            assert deploy(run, frozen, head, "downgrade", "-1").code == 0
    # lock_timeout is 0.2 s, and the machine may be busy. Without it, the reader would wait for the
    # holder, which ends only after the deploy's fifth attempt.
    assert 0.1 < max(stalls) < 1.5


@pytest.mark.slow
def test_the_timeout_has_an_end(run: Launcher, frozen: Path, head: URL) -> None:
    """A deploy that gets no lock within its timeout fails and changes nothing."""
    deploy(run, frozen, head, "downgrade", "-1")
    before = state(head)
    with holding(head, "SELECT FROM todo_tag"):
        result = deploy(run, frozen, head, "-x", "timeout-minutes=0.01", "downgrade", "-1")
    assert result.code == 1, result.everything
    assert f"FAILED: Revision {TAGS}" in result.err
    assert f"gave up waiting, and the database is at {TAGS}: DROP TABLE todo_tag" in result.err
    assert state(head) == before


def test_another_deploy(run: Launcher, frozen: Path, head: URL) -> None:
    """A second deploy names the session that it waits for, and its own timeout."""
    lock = "SELECT pg_advisory_lock(x'616c656d626963'::bigint)"
    with holding(head, "SET application_name = 'alembic on another machine'", lock) as other:
        gave_up = deploy(run, frozen, head, "-x", "timeout-minutes=0.01", "upgrade", "head")
        assert gave_up.code == 2, gave_up.everything
        assert "FAILED: Another deploy has not ended within 0.01 minutes: session" in gave_up.err
        waits = "Waiting for another deploy: session"
        with when(lambda: run.count(waits) > 0, other.invalidate):
            result = deploy(run, frozen, head)
    assert result.code == 0, result.everything
    assert "alembic on another machine" in result.err


def test_sessions_that_share_the_lock(run: Launcher, frozen: Path, head: URL) -> None:
    """The oldest of several sessions that share the deploy lock is named."""
    lock = "SELECT pg_advisory_lock_shared(x'616c656d626963'::bigint), pg_backend_pid()"
    with holding(head) as first, holding(head, lock):
        pid = first.exec_driver_sql(lock).one()[1]
        result = deploy(run, frozen, head, "-x", "timeout-minutes=0.01", "upgrade", "head")
    assert result.code == 2, result.everything
    assert f"Another deploy has not ended within 0.01 minutes: session {pid} (" in result.err


@pytest.mark.sample(1)
@pytest.mark.parametrize("output", [">&-", ">/dev/full"])
@pytest.mark.parametrize("options", ["", "-x report=json "])
def test_an_output_that_cannot_be_written(
    frozen: Path, head: URL, options: str, output: str
) -> None:
    """The outcome of a deploy does not depend on whether its report can be printed."""
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m alembic {options}upgrade head {output}"],
        cwd=frozen,
        env={"DATABASE_URL": head.render_as_string(hide_password=False)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("WARNING [deploy] The report could not be printed (")
    assert done.stderr.count("\n") == 1


def test_a_serialization_failure(run: Launcher, copy: Checkout, head: URL) -> None:
    """A revision that cannot be serialized is rolled back and run again."""
    execute(head, "CREATE SEQUENCE tries")
    copy.add(
        sql(
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "DO $$ BEGIN IF nextval('tries') = 1 THEN RAISE serialization_failure; END IF; END $$",
        )
    )
    result = deploy(run, copy.root, head, "-x", "report=json", "upgrade", "head")
    assert result.code == 0, result.everything
    assert report(result)["revisions"][0]["attempts"] == 2


def test_drift_is_seen_before_and_after(run: Launcher, frozen: Path, head: URL) -> None:
    """Manual changes are shown as a warning before the deploy, and make its verification fail."""
    deploy(run, frozen, head, "downgrade", "-1")
    execute(head, "ALTER TABLE todo ADD COLUMN by_hand integer", "DROP INDEX todo_due_idx")
    result = deploy(run, frozen, head)
    assert result.code == 3, result.everything
    warning, _, failure = result.err.partition("FAILED: ")
    assert f"The schema is not the one of {TAGS}: table todo differ" in warning
    assert f"The database is at {LAST}, but its schema is not the history's: table todo" in failure
    assert "+     column by_hand  integer" in failure
    assert "-     index todo_due_idx" in failure
    execute(head, "ALTER TABLE todo DROP COLUMN by_hand")
    document = report(deploy(run, frozen, head, "-x", "report=json", "upgrade", "head"))
    assert document["verified"] is False
    assert "by_hand" not in document["difference"]
    assert "todo_due_idx" in document["difference"]


@pytest.mark.slow
def test_a_lock_on_a_table_of_another(run: Launcher, frozen: Path, head: URL) -> None:
    """What only warns does not end a deploy: it goes on, and compares when the lock is gone."""
    deploy(run, frozen, head, "downgrade", "-1")
    execute(head, "CREATE TABLE theirs (id int, CHECK (id > 0))")
    with (
        holding(head, "LOCK TABLE theirs") as holder,
        when(lambda: run.count("giving way") > 0, holder.rollback),
    ):
        result = deploy(run, frozen, head)
    assert result.code == 0, result.everything
    named = r"[Tt]he comparison of the schema waits for session \d+ .* its lock on theirs"
    assert re.search(rf"could not be compared beforehand: {named}\.", result.err)
    assert re.search(rf"{named}; giving way", result.err)
    assert "No revision has table theirs." in result.out


ANY_IS_OLD = "from migrations.deploy import preflight; preflight.LONG_SECONDS = 0"


def test_old_transactions(run: Launcher, frozen: Path, head: URL) -> None:
    """An old transaction is named before the first revision."""
    deploy(run, frozen, head, "downgrade", "-1")
    with holding(head, 'SELECT FROM "user"'):
        result = deploy(run, frozen, head, before=ANY_IS_OLD)
    assert result.code == 0, result.everything
    assert "The deploy may have to wait for an old transaction: session" in result.err
    assert 'SELECT FROM "user"' not in result.err  # it may hold values


INVALID = "UPDATE pg_index SET indisvalid = false{} WHERE indexrelid = '{}'::regclass"
VALID = "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indisvalid = {}"


def indexes(url: URL, *, valid: bool) -> set[str]:
    """Return the names of the valid or invalid indexes."""
    with connect(url) as connection:
        return set(connection.scalars(text(VALID.format(valid))))


def superuser_of(url: URL, superusers: dict[int, URL]) -> URL:
    """Return a URL of the same database, for the superuser of its server."""
    with connect(url) as connection:
        version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10000
    return superusers[version].set(database=url.database)


@pytest.fixture
def superuser(head: URL, superusers: dict[int, URL]) -> URL:
    """The database at LAST, as its superuser, who can damage an index as an interruption does."""
    return superuser_of(head, superusers)


CONCURRENTLY = """with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS todo_title_idx")
        op.execute("CREATE INDEX CONCURRENTLY todo_title_idx ON todo (title)")"""
IF_NOT_EXISTS = """with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS todo_title_idx ON todo (title)")"""


def test_remnants_of_an_interrupted_build(
    run: Launcher, copy: Checkout, head: URL, superuser: URL
) -> None:
    """Only the invalid index that a revision builds is dropped, before that revision builds it."""
    execute(head, "CREATE TABLE parted (a int) PARTITION BY RANGE (a)")
    execute(head, "CREATE TABLE part PARTITION OF parted DEFAULT")
    execute(head, "CREATE INDEX parted_idx ON ONLY parted (a)", "CREATE TABLE many (a int)")
    execute(head, "CREATE INDEX part_idx ON part (a)")
    execute(head, "ALTER INDEX parted_idx ATTACH PARTITION part_idx")
    execute(
        head, "CREATE INDEX many_idx ON many (a)", "CREATE INDEX todo_title_idx ON todo (title)"
    )
    for index in ("many_idx", "todo_title_idx", "part_idx"):
        execute(superuser, INVALID.format("", index))
    copy.add(IF_NOT_EXISTS)
    result = deploy(run, copy.root, head)
    assert result.code == 0, result.everything
    assert "Dropping the index todo_title_idx, which an interrupted build left" in result.err
    assert "The index many_idx is invalid and not in schema.txt, so that" in result.err
    assert result.err.count("Dropping") == 1
    assert "todo_title_idx" in indexes(head, valid=True)
    assert indexes(head, valid=False) == {"many_idx", "part_idx"}


@pytest.mark.parametrize(
    "more", ["", ", indisready = false, indislive = false"], ids=["in use", "dead"]
)
def test_an_interrupted_drop_of_a_committed_index(
    run: Launcher, frozen: Path, head: URL, superuser: URL, more: str
) -> None:
    """An index of the committed schema that DROP INDEX CONCURRENTLY left invalid is rebuilt."""
    execute(superuser, INVALID.format(more, "todo_due_idx"))
    result = deploy(run, frozen, head)
    assert result.code == 0, result.everything
    assert "Rebuilding the index todo_due_idx, which is invalid." in result.err
    assert indexes(head, valid=False) == set()
    assert "todo_due_idx" in indexes(head, valid=True)


def test_a_committed_index_that_cannot_be_rebuilt(
    run: Launcher, copy: Checkout, head: URL, superuser: URL
) -> None:
    """It stays as it is, no copy of it is left, and the verification names it."""
    execute(
        head,
        "INSERT INTO \"user\" (id, name, email) VALUES (gen_random_uuid(), 'A', 'a@example.org')",
        'INSERT INTO account ("accountId", "providerId", "userId", "updatedAt")'
        " SELECT n, 'x', id, now() FROM \"user\", generate_series(1, 2) AS n",
    )
    execute(superuser, INVALID.format(", indisunique = true", '"account_userId_idx"'))
    result = deploy(run, copy.root, head)
    assert result.code == 3, result.everything
    assert 'The index "account_userId_idx" stays invalid: could not create unique' in result.err
    assert indexes(head, valid=False) == {"account_userId_idx"}


def test_a_concurrent_build_is_not_interrupted(run: Launcher, copy: Checkout, head: URL) -> None:
    """A concurrent index build waits for old transactions longer than lock_timeout."""
    copy.add(CONCURRENTLY, sql("DROP INDEX todo_title_idx"))
    writing = "INSERT INTO tag (user_id, id, name) SELECT id, id, 'x' FROM \"user\""
    with holding(head, writing, "LOCK TABLE todo IN ROW EXCLUSIVE MODE") as holder:
        with when(lambda: run.count("waits for session") > 0, holder.rollback):
            result = deploy(run, copy.root, head, "-x", "report=json", "upgrade", "head")
    assert result.code == 0, result.everything
    document = report(result)
    assert document["revisions"][0]["attempts"] == 1
    assert document["longest_lock_wait_seconds"] > 0.5  # longer than any lock_timeout
    assert "CREATE INDEX CONCURRENTLY todo_title_idx ON todo … waits for session" in result.err


PARTED = (
    "CREATE TABLE parted (a int) PARTITION BY RANGE (a)",
    "CREATE TABLE part PARTITION OF parted FOR VALUES FROM (1) TO (2)",
)
DETACH = """with op.get_context().autocommit_block():
        op.execute("ALTER TABLE parted DETACH PARTITION part CONCURRENTLY")"""
BOUNDED = {
    "index": (IF_NOT_EXISTS, "LOCK TABLE todo IN ROW EXCLUSIVE MODE", "CREATE INDEX CONCURRENTLY"),
    "index-and-snapshot": (
        IF_NOT_EXISTS,
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT FROM tag",
        "CREATE INDEX CONCURRENTLY",
    ),
    "partition": (DETACH, "SELECT FROM parted", "ALTER TABLE parted DETACH PARTITION part"),
}


@pytest.mark.parametrize(
    "name",
    ["index", *(pytest.param(one, marks=pytest.mark.slow) for one in list(BOUNDED)[1:])],
)
def test_the_timeout_bounds_concurrent_statements(
    run: Launcher, copy: Checkout, head: URL, name: str
) -> None:
    """A concurrent statement gives up at the timeout and names the session; a rerun ends it."""
    revision, hold, words = BOUNDED[name]
    execute(head, *PARTED)
    copy.add(revision)
    with holding(head, hold) as holder:
        pid = holder.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        start = time.monotonic()
        result = deploy(run, copy.root, head, "-x", "timeout-minutes=0.04", "upgrade", "head")
        assert 2.4 <= time.monotonic() - start < 10
    assert result.code == 1, result.everything
    assert re.search(rf"For \d s: {words}.* waits for session {pid} ", result.err)
    waited = f"_change_something.py, line 14) gave up waiting, and the database is at {LAST}"
    assert waited in result.err, result.everything
    assert re.search(rf"FAILED: .*{words}.* waits for session {pid} ", result.err)
    again = deploy(run, copy.root, head)
    assert again.code == 0, again.everything
    assert indexes(head, valid=False) == set()
    with connect(head) as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_inherits")) == (name != "partition")


@pytest.mark.slow
def test_a_detachment_is_not_interrupted(run: Launcher, copy: Checkout, head: URL) -> None:
    """DETACH PARTITION … CONCURRENTLY waits for old transactions longer than lock_timeout."""
    execute(head, *PARTED)
    copy.add(DETACH)
    with holding(head, "SELECT FROM parted") as holder:
        with when(lambda: run.count("waits for session") > 0, holder.rollback):
            result = deploy(run, copy.root, head, "-x", "report=json", "upgrade", "head")
    assert result.code == 0, result.everything
    assert report(result)["longest_lock_wait_seconds"] > 0.5


def test_a_failed_build_that_is_caught(run: Launcher, copy: Checkout, head: URL) -> None:
    """After a concurrent build that failed and was caught, lock_timeout is the deploy's again."""
    execute(head, "CREATE TABLE many (a int)", "INSERT INTO many VALUES (1), (1)")
    copy.add(
        """with op.get_context().autocommit_block():
        try:
            op.execute("CREATE UNIQUE INDEX CONCURRENTLY many_idx ON many (a)")
        except Exception:
            op.execute("DROP INDEX CONCURRENTLY many_idx")
    op.execute("CREATE TABLE shown AS SELECT current_setting('lock_timeout') AS a")"""
    )
    result = deploy(run, copy.root, head)
    assert result.code == 0, result.everything
    with connect(head) as connection:
        assert connection.scalar(text("SELECT a FROM shown")) == "200ms"


SETTINGS = {
    "statement_timeout": "200ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "300ms",
    "transaction_timeout": "500ms",
    "search_path": "pg_catalog",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "xmloption": "document",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Tokyo",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    "quote_all_identifiers": "on",
    "check_function_bodies": "off",
    "row_security": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "exit_on_error": "on",
    "createrole_self_grant": "set",
    "restrict_nonsystem_relation_kind": "view",
}
"""Values with which a revision means something else, or is ended."""

SHOWN = "CREATE TABLE public.shown_{} AS SELECT name, setting FROM pg_settings"


def settings_during(url: URL, name: str) -> dict[str, str]:
    """Read what a revision has written with SHOWN."""
    with connect(url) as connection:
        rows = connection.execute(text(f"SELECT name, setting FROM public.shown_{name}"))
        return {name: value for name, value in rows if name in SETTINGS}


@pytest.mark.slow
def test_settings_of_the_database(run: Launcher, copy: Checkout, head: URL) -> None:
    """Settings of the database affect neither a deploy nor, after RESET ALL, its revisions."""
    execute(head, SHOWN.format("before"))
    with connect(head, autocommit=True) as connection:
        known = set(connection.scalars(text("SELECT name FROM pg_settings")))
        for name in known & SETTINGS.keys():
            statement = f"ALTER DATABASE \"{head.database}\" SET {name} = '{SETTINGS[name]}'"
            connection.exec_driver_sql(statement)
    copy.add(
        sql(
            "SELECT pg_sleep(0.7)",
            SHOWN.format("deployed"),
            "RESET ALL",
            SHOWN.format("reset"),
            r"CREATE TABLE made (a text DEFAULT 'a\\b', b date DEFAULT '01/02/2026')",
        )
        + "\n    time.sleep(0.4)"
    )
    copy.edit(next(copy.versions.glob("*_change_something.py")), "\nfrom", "\nimport time\n\nfrom")
    result = deploy(run, copy.root, head)
    assert result.code == 0, result.everything
    assert result.err.count("upgrade") == 1, result.everything
    before = settings_during(head, "before") | {
        "lock_timeout": "200",
        "search_path": "public",
        "TimeZone": "UTC",
        "idle_in_transaction_session_timeout": "60000",
        "client_encoding": "UTF8",
    }
    assert settings_during(head, "deployed") == before
    # What only some versions know is no startup option, and comes back.
    reset = settings_during(head, "reset")
    assert {name: reset[name] for name in reset.keys() - LATER_SETTINGS} == {
        name: before[name] for name in before.keys() - LATER_SETTINGS
    }


def test_settings_that_the_role_may_not_set(
    run: Launcher, copy: Checkout, head: URL, superuser: URL
) -> None:
    """A session without triggers is refused, unless the deploy's role may set it right."""
    execute(superuser, f'ALTER DATABASE "{head.database}" SET session_replication_role = replica')
    copy.add(sql(SHOWN.format("deployed")))
    before = state(head)
    result = deploy(run, copy.root, head)
    assert result.code == 2, result.everything
    assert "session_replication_role is not origin" in result.err
    assert "ALTER DATABASE … RESET session_replication_role" in result.err
    assert state(head) == before


def test_settings_do_not_reach_the_verification(run: Launcher, copy: Checkout, head: URL) -> None:
    """What the last revision sets changes neither the verification nor its outcome."""
    copy.add(
        sql(
            "SET default_transaction_read_only = on",
            "SET client_encoding = 'LATIN1'",
            "SET statement_timeout = '1ms'",
            "SET search_path = pg_catalog, public",
            "SET quote_all_identifiers = on",
        )
    )
    result = deploy(run, copy.root, head)
    assert result.code == 0, result.everything


BROKEN = {
    "sql": (sql("SELECT 1/0"), "line 14) failed, and the database is at {last}: division by zero"),
    "python": ("raise KeyError('x')", "failed, and the database is at {last}: KeyError: 'x'."),
    "privilege": (sql("CREATE ROLE x SUPERUSER"), "permission denied to create role"),
}


@pytest.mark.parametrize(("upgrade", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_revision_that_fails(
    run: Launcher, copy: Checkout, head: URL, upgrade: str, words: str
) -> None:
    """The message names the revision and its line; the database is unchanged."""
    before = state(head)
    copy.add("op.execute('CREATE TABLE half_done ()')\n    " + upgrade)
    result = deploy(run, copy.root, head)
    assert result.code == 1, result.everything
    assert words.format(last=LAST) in result.err
    assert "2099_01_01_0000_a0b1c2d3e4f5_change_something.py" in result.err
    assert "Traceback" not in result.everything
    assert state(head) == before


VALUES = {
    "literal": sql("SELECT 'hunter2', 1/0"),
    "literal-that-is-no-number": sql("SELECT 'hunter2', 'hunter2'::integer"),
    "parameter": """op.get_bind().exec_driver_sql("SELECT %s::integer", ("hunter2",))""",
    "value-with-quotes": """op.execute('SELECT $$a "hunter2\\nhunter2" b$$::integer')""",
    "literal-in-a-syntax-error": sql("SELECT 'a' 'hunter2'"),
    "literal-without-an-end": sql("SELECT 1 'hunter2"),
    "statement-that-waits": sql("ALTER TABLE work ADD COLUMN a text DEFAULT 'hunter2'"),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("upgrade", VALUES.values(), ids=VALUES.keys())
def test_values_of_a_revision_that_fails(
    run: Launcher, copy: Checkout, head: URL, upgrade: str
) -> None:
    """Neither log nor report contains a value of a statement, a parameter or a row."""
    execute(head, "CREATE TABLE work ()")
    copy.add(upgrade)
    options = ("-x", "report=json", "-x", "timeout-minutes=0.01")
    with holding(head, "LOCK TABLE work IN SHARE MODE"):
        result = deploy(run, copy.root, head, *options, "upgrade", "head")
    assert result.code == 1, result.everything
    assert "_change_something.py, line 13) " in report(result)["error"]
    assert "hunter2" not in result.everything


COMMITTED = "what it did before that is committed and stays"
LOST = "what it did before that is lost"
ALSO_COMMITTED = "what stands behind that in the same string is committed and stays"
DRIVER = "op.get_bind().connection.driver_connection"

# What a revision does between CREATE TABLE one and CREATE TABLE two; what the deploy says of that;
# and the tables that are left.
ENDS: dict[str, tuple[str, tuple[str, ...], set[str]]] = {
    "commit": (sql("COMMIT"), ("(COMMIT)", COMMITTED), {"one"}),
    "commit-and-begin": (sql("COMMIT; BEGIN"), ("(COMMIT)", COMMITTED), {"one"}),
    "commit-and-chain": (sql("COMMIT AND CHAIN"), ("(COMMIT)", COMMITTED), {"one"}),
    "end-after-a-comment": (sql("/* x */ END"), ("(COMMIT)", COMMITTED), {"one"}),
    "rollback": (sql("ROLLBACK"), ("(ROLLBACK)", LOST), set()),
    "rollback-and-chain": (sql("ROLLBACK AND CHAIN"), ("(ROLLBACK)", LOST), set()),
    "script": (
        sql("CREATE TABLE a (); COMMIT; CREATE TABLE b ()"),
        ("(COMMIT)", COMMITTED, ALSO_COMMITTED),
        {"one", "a", "b"},
    ),
    "script-that-begins-again": (
        sql("CREATE TABLE a (); COMMIT; BEGIN; CREATE TABLE b ()"),
        ("(COMMIT)", COMMITTED, "behind that in the same string is lost"),
        {"one", "a"},
    ),
    "drivers-commit": (f"{DRIVER}.commit()", (COMMITTED,), {"one"}),
    "drivers-rollback": (f"{DRIVER}.rollback()", (LOST,), set()),
    "drivers-chain": (f"{DRIVER}.execute('COMMIT AND CHAIN')", (COMMITTED,), {"one"}),
    "sqlalchemys-commit": ("op.get_bind().commit()", (COMMITTED,), {"one"}),
    "caught": (
        "try:\n        op.execute('COMMIT')\n    except Exception:\n        pass",
        ("(COMMIT)", COMMITTED),
        {"one"},
    ),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", ENDS)
def test_a_revision_that_ends_its_transaction(
    run: Launcher, copy: Checkout, head: URL, name: str
) -> None:
    """The deploy stops at once and says what is committed and what is lost, and where."""
    end, words, left = ENDS[name]
    copy.add(
        "op.execute('CREATE TABLE one ()')\n    " + end + "\n    " + sql("CREATE TABLE two ()")
    )
    result = deploy(run, copy.root, head)
    assert result.code == 1, result.everything
    assert "_change_something.py" in result.err
    assert f"the database is at {LAST}: it ended its own transaction" in result.err
    for one in words:
        assert one in result.err
    assert "Traceback" not in result.everything
    with connect(head) as connection:
        names = connection.scalars(text("SELECT relname FROM pg_class WHERE relkind = 'r'"))
        assert set(names) & {"one", "two", "a", "b"} == left
    assert state(head)[1] == [LAST]


LAST_ACTS = ["op.execute('COMMIT')", f"{DRIVER}.commit()", f"{DRIVER}.execute('COMMIT AND CHAIN')"]


@pytest.mark.parametrize("end", LAST_ACTS)
def test_a_revision_that_ends_its_transaction_at_last(
    run: Launcher, copy: Checkout, head: URL, end: str
) -> None:
    """It is noticed before the revision is recorded."""
    copy.add("op.execute('CREATE TABLE one ()')\n    " + end)
    result = deploy(run, copy.root, head)
    assert result.code == 1, result.everything
    assert "_change_something.py" in result.err
    assert COMMITTED in result.err
    assert state(head)[1] == [LAST]


def test_a_revision_that_prepares_its_transaction(
    run: Launcher, copy: Checkout, request: pytest.FixtureRequest
) -> None:
    """The message names the prepared transaction and how to end it."""
    with disposable(request.config.option.postgres) as server:
        execute(server.superuser, "ALTER SYSTEM SET max_prepared_transactions = 5", "CHECKPOINT")
        server.kill()
        server.start()
        with server.database() as url:
            assert deploy(run, copy.root, url).code == 0
            copy.add(sql("CREATE TABLE one ()", "PREPARE TRANSACTION 'half'"))
            result = deploy(run, copy.root, url)
            assert result.code == 1, result.everything
            assert "it ended its own transaction (PREPARE TRANSACTION)" in result.err
            assert "is left as a prepared transaction; end it with ROLLBACK PREPARED 'half'" in (
                result.err
            )
            execute(url, "ROLLBACK PREPARED 'half'")


KEEPS: dict[str, str] = {
    "savepoints": sql(
        "SAVEPOINT a", "CREATE TABLE lost ()", "ROLLBACK TO a", "RELEASE a", "RESET ALL"
    ),
    "a-script": sql("SAVEPOINT a; CREATE TABLE lost (); ROLLBACK TO a; CREATE TABLE b ()"),
    "nested": """connection = op.get_bind()
    nested = connection.begin_nested()
    connection.exec_driver_sql("CREATE TABLE lost ()")
    nested.rollback()""",
    "a-caught-error": """try:
        with op.get_bind().begin_nested():
            op.execute("SELECT 1/0")
    except Exception:
        pass""",
    "isolation": sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT 1"),
    "a-block": """op.execute("CREATE TABLE a ()")
    with op.get_context().autocommit_block():
        op.execute("CREATE TABLE b ()")
        op.execute("BEGIN; COMMIT")
        op.execute("DO 'BEGIN COMMIT; END'")
    op.execute("CREATE TABLE c ()")""",
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("upgrade", KEEPS.values(), ids=KEEPS.keys())
def test_a_revision_that_keeps_its_transaction(
    run: Launcher, copy: Checkout, head: URL, upgrade: str
) -> None:
    """Savepoints, isolation levels and autocommit blocks are no end of the transaction."""
    copy.add(upgrade)
    result = deploy(run, copy.root, head)
    assert result.code == 0, result.everything


# Revisions that interfere with the session or the process, and the deploy's message.
MEDDLING = {
    "rolls-back": (
        "op.get_bind().rollback()\n    op.execute('CREATE TABLE lost ()')",
        "it ended its own transaction",
    ),
    "commits-in-a-procedure": (
        sql("CREATE TABLE half_done ()", "DO 'BEGIN COMMIT; END'"),
        "invalid transaction termination",
    ),
    "gives-the-lock-away": (
        "op.execute('SELECT pg_advisory_unlock_all()')",
        "A revision released the deploy lock",
    ),
    "exits": (
        "raise SystemExit(0)",
        "(2099_01_01_0000_a0b1c2d3e4f5_change_something.py, line 13) failed, and the database is"
        f" at {LAST}: it ended the program",
    ),
    "raises-alembics-error": (
        "from alembic.util import CommandError\n    raise CommandError('no')",
        "(2099_01_01_0000_a0b1c2d3e4f5_change_something.py, line 14) failed",
    ),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize(("upgrade", "words"), MEDDLING.values(), ids=MEDDLING.keys())
def test_a_revision_that_meddles(
    run: Launcher, copy: Checkout, head: URL, upgrade: str, words: str
) -> None:
    """A deploy fails if a revision releases the deploy lock, exits, or lets a procedure commit."""
    copy.add(upgrade)
    last = "b0b1c2d3e4f5"
    name = f"2099_01_01_0001_{last}_x.py"
    copy.add(sql("CREATE TABLE afterwards ()"), revision=last, parents="a0b1c2d3e4f5", name=name)
    result = deploy(run, copy.root, head)
    assert result.code == 1, result.everything
    assert words in result.err
    assert "Traceback" not in result.everything
    with connect(head) as connection:
        for table in ("lost", "half_done", "afterwards"):
            assert connection.scalar(text(f"SELECT to_regclass('{table}')")) is None


def test_settings_do_not_outlive_a_revision(run: Launcher, copy: Checkout, head: URL) -> None:
    """Session settings of a revision, for example from a pasted dump, are reset before the next."""
    copy.add(sql("SET search_path = pg_catalog, public", "SET lock_timeout = 0"))
    last = "b0b1c2d3e4f5"
    name = f"2099_01_01_0001_{last}_x.py"
    shown = "SELECT name, setting FROM pg_settings WHERE name IN ('search_path', 'lock_timeout')"
    copy.add(
        sql(f"CREATE TABLE shown AS {shown}"), revision=last, parents="a0b1c2d3e4f5", name=name
    )
    result = deploy(run, copy.root, head)
    assert result.code == 0, result.everything
    with connect(head) as connection:
        found = connection.execute(text("SELECT name, setting FROM public.shown")).all()
        assert sorted(map(tuple, found)) == [("lock_timeout", "200"), ("search_path", "public")]


def test_a_build_that_somebody_else_runs(
    run: Launcher, copy: Checkout, head: URL, superuser: URL
) -> None:
    """An index that another session is building is kept, and named."""
    copy.add(sql("CREATE TABLE made ()"))
    with holding(head, "LOCK TABLE todo IN ROW EXCLUSIVE MODE") as holder:
        build = ("CREATE INDEX CONCURRENTLY by_hand ON todo (title)",)
        building = threading.Thread(target=execute, args=(superuser, *build))
        building.start()
        with connect(head, autocommit=True) as observer:
            while not observer.scalar(text("SELECT count(*) FROM pg_index WHERE NOT indisvalid")):
                time.sleep(0.02)
        result = deploy(run, copy.root, head)
        holder.rollback()
        building.join()
    assert result.code == 0, result.everything
    assert "The index by_hand is not valid yet: another session builds" in result.err
    with connect(head) as connection:
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_hand'::regclass"
        assert connection.scalar(text(valid)) is True


@pytest.mark.slow
def test_stamping(run: Launcher, frozen: Path, head: URL) -> None:
    """A stamp is verified too; --purge replaces a wrong record."""
    execute(head, "UPDATE alembic_version SET version_num = 'feedfacefeed'")
    assert deploy(run, frozen, head, "stamp", "head").code == 2
    purged = deploy(run, frozen, head, "stamp", "--purge", "head")
    assert purged.code == 0, purged.everything
    assert state(head)[1] == [LAST]
    execute(head, f"INSERT INTO alembic_version VALUES ('{FIRST}')")
    several = deploy(run, frozen, head, "stamp", "head")
    assert several.code == 2, several.everything
    assert "records 2 revisions" in several.err
    assert deploy(run, frozen, head, "stamp", "--purge", "head").code == 0
    assert state(head)[1] == [LAST]
    deploy(run, frozen, head, "downgrade", "-1")
    lie = deploy(run, frozen, head, "stamp", "head")
    assert lie.code == 3, lie.everything
    assert "-     grant to todo_app  SELECT" in lie.err


QUERIES = {
    "DROP TABLE IF EXISTS public . todo;": "DROP TABLE IF EXISTS public.todo",
    "ALTER TABLE todo ADD a text DEFAULT 'x'": "ALTER TABLE todo ADD a text DEFAULT …",
    "/* don't /* nested */ 'x' */ COMMIT -- it's": "COMMIT",
    "SELECT 'alice@example.org'": "SELECT …",
    "SELECT x": "SELECT …",
    "SET app.token TO x": "SET app.token TO …",
    "SET app.token = x": "SET app.token …",
    "ALTER ROLE a PASSWORD x": "ALTER ROLE a PASSWORD …",
    "COMMENT ON TABLE a IS E'it\\'s x'": "COMMENT ON TABLE a IS …",
    "COMMENT ON TABLE a E'x'": "COMMENT ON TABLE a …",
    "DO $x$ x $x$": "DO …",
    'UPDATE "it\'s" SET x = 1': "UPDATE …",
    "INSERT INTO a VALUES (1)": "INSERT INTO a VALUES …",
    "'cut off": "…",
    "/* cut off": "",
}


@pytest.mark.parametrize(("query", "shown"), QUERIES.items())
def test_values_in_queries(query: str, shown: str) -> None:
    """The log names a statement by its first words, before any comment, quote or value."""
    assert describe_sql(query) == shown


CONCURRENT = {
    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS a ON ONLY b.c (d)": ("a", "b.c"),
    '/* x */ create index concurrently "a b" on c (d)': ('"a b"', "c"),
    "CREATE INDEX CONCURRENTLY ON c (d)": None,
    "DROP INDEX CONCURRENTLY IF EXISTS a": None,
    "REINDEX (VERBOSE, CONCURRENTLY) TABLE a": None,
    "REINDEX INDEX CONCURRENTLY a": None,
    "ALTER TABLE ONLY a DETACH PARTITION b CONCURRENTLY": None,
}
NOT_CONCURRENT = [
    "CREATE INDEX a ON b (c) -- CONCURRENTLY",
    'CREATE INDEX "CONCURRENTLY" ON b (c)',
    "ALTER TABLE a DETACH PARTITION b",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY a",
    "SELECT 'CREATE INDEX CONCURRENTLY a ON b (c)'",
    "",
]


@pytest.mark.parametrize(("statement", "built"), CONCURRENT.items())
def test_concurrent_statements(statement: str, built: tuple[str, str] | None) -> None:
    """Statements that may wait long are recognised, and the index that one builds."""
    assert is_concurrent(statement)
    assert index_to_build(statement) == built


@pytest.mark.parametrize("statement", NOT_CONCURRENT)
def test_statements_that_are_not_concurrent(statement: str) -> None:
    """No other statement may wait long: sessions would queue behind it."""
    assert not is_concurrent(statement)
    assert index_to_build(statement) is None


def test_what_cannot_be_undone(run: Launcher, copy: Checkout, head: URL) -> None:
    """The message contains the reason of an irreversible revision."""
    copy.add(downgrade=IRREVERSIBLE)
    assert deploy(run, copy.root, head).code == 0
    result = deploy(run, copy.root, head, "downgrade", "-1")
    assert result.code == 1
    assert "cannot be reverted, and the database is at a0b1c2d3e4f5: This cannot be" in result.err
    assert "Traceback" not in result.everything


@pytest.mark.slow
def test_from_a_folder_with_migrations_of_its_own(frozen: Path, head: URL, tmp_path: Path) -> None:
    """The configuration's folder decides which package `migrations` is, not the current folder."""
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", frozen / "alembic.ini", "upgrade", "head"],
        cwd=tmp_path,
        env={"DATABASE_URL": head.render_as_string(hide_password=False)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_called_by_a_program(run: Launcher, head: URL) -> None:
    """A program that calls Alembic gets an exception, not SystemExit."""
    code = f"""
import os
os.environ["DATABASE_URL"] = {head.set(database="nope").render_as_string(hide_password=False)!r}
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
try:
    command.upgrade(Config("alembic.ini"), "head")
except CommandError as error:
    print(error)
"""
    result = run.run(ROOT, code=code)
    assert result.code == 0, result.everything
    assert 'database "nope" does not exist' in result.out


def test_a_connection_that_is_lost(
    run: Launcher, frozen: Path, empty: URL, superusers: dict[int, URL], tmp_path: Path
) -> None:
    """A lost connection is logged and replaced; each revision is applied once."""
    terminate = terminator(superuser_of(empty, superusers).set(database="postgres"))
    with stopped_at(60, tmp_path, terminate) as before:
        result = deploy(run, frozen, empty, "-x", "report=json", "upgrade", "head", before=before)
    assert result.code == 0, result.everything
    assert "The connection was lost (terminating connection due to administrator" in result.err
    assert "Traceback" not in result.err
    document = json.loads(result.out.splitlines()[0])
    assert document["connections"] == 2
    assert document["verified"] is True
    names = [one["revision"] for one in document["revisions"]]
    assert len(names) == len(set(names))


def test_a_server_that_goes_down_each_time(run: Launcher, copy: Checkout, head: URL) -> None:
    """A revision that ends each of its sessions is not retried for ever."""
    copy.add(sql("SELECT pg_terminate_backend(pg_backend_pid())"))
    result = deploy(run, copy.root, head)
    assert result.code != 0
    assert "FAILED: The connection was lost (terminating connection" in result.err
    assert "3 times" in result.err
    assert "Traceback" not in result.err
    assert state(head)[1] == [LAST]


@pytest.mark.slow
def test_what_a_deploy_installs(tmp_path: Path, empty: URL) -> None:
    """A deploy needs only requirements.txt, alembic.ini, migrations and models."""
    for part in ("alembic.ini", "migrations", "models"):
        subprocess.run(["cp", "-R", ROOT / part, tmp_path], check=True)
    venv = tmp_path / "venv"
    subprocess.run(["python3", "-m", "venv", venv], check=True, cwd=ROOT)
    subprocess.run(
        [
            venv / "bin" / "pip",
            "install",
            "-q",
            "--require-hashes",
            "-r",
            ROOT / "requirements.txt",
        ],
        check=True,
        capture_output=True,
    )
    result = subprocess.run(
        [venv / "bin" / "alembic", "-c", tmp_path / "alembic.ini", "upgrade", "head"],
        env={"DATABASE_URL": empty.render_as_string(hide_password=False)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Its schema equals the history's." in result.stdout


def test_a_deploy_needs_no_models(copy: Checkout, head: URL) -> None:
    """A deploy installs neither sqlmodel nor the models; only Alembic's comparisons need them."""
    shutil.rmtree(copy.root / "models")
    code = (
        "import sys; from alembic.config import main; sys.modules['sqlmodel'] = None;"
        " main(['upgrade', 'head'])"
    )
    environment = {name: os.environ[name] for name in ("PATH",)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=copy.root,
        env=environment | {"DATABASE_URL": head.render_as_string(hide_password=False)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Its schema equals the history's." in done.stdout


# ── the last words of a failed deploy ─────────────────────────────────────────────────────────────


def test_last_words_after_a_wait(run: Launcher, frozen: Path, head: URL) -> None:
    """Who gave up waiting runs the same deploy again: nothing has to be corrected."""
    with holding(head, "SELECT FROM alembic_version", "LOCK TABLE todo_tag"):
        result = deploy(run, frozen, head, "-x", "timeout-minutes=0", "downgrade", "-2")
    assert result.code == 1, result.everything
    assert "gave up waiting" in result.err
    assert "Wait for that session or end it, and run the same deploy again" in result.err
    assert "Correct the failed revision" not in result.err


def test_last_words_after_a_wrong_stamp(run: Launcher, frozen: Path, head: URL) -> None:
    """Where the schema was exactly another revision's, the record is wrong, not a revision."""
    execute(head, f"UPDATE alembic_version SET version_num = '{FIRST}'")
    result = deploy(run, frozen, head)
    assert result.code == 1, result.everything
    assert f"the schema was exactly the one at {LAST}. `schema drift` gives" in result.err
    assert "Correct the failed revision" not in result.err


def test_a_first_statement_that_ends_its_transaction(
    run: Launcher, copy: Checkout, head: URL
) -> None:
    """SET TRANSACTION must come first in a transaction; another SET hides no COMMIT behind it."""
    copy.add(sql("SET LOCAL work_mem = '8MB'; CREATE TABLE early (); COMMIT; BEGIN"))
    result = deploy(run, copy.root, head)
    assert result.code == 1, result.everything
    assert "it ended its own transaction (COMMIT)" in result.err
