"""`schema drift`: compare a live database with the history at its revision.

The theory: a database that only deploys have changed equals the history at its revision, on every
server and through every role that can read it. Every other change is shown. The database is only
read.
"""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from rich.console import Console
from sqlalchemy import URL, Connection

from migrations import snapshot
from migrations.snapshot.fingerprints import BASE
from schema.cli import drift as drift_page
from schema.errors import CannotRunError
from schema.live import comparison, drift, history_schemas, read
from schema.live.read import Live
from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from schema.project import ROOT, scripts
from schema.revisions.history import revisions_oldest_first
from schema.revisions.runner import downgrade_step, run, upgrade
from tests.support.alembic_process import deploy, execute
from tests.support.drift import examine, paste
from tests.support.frozen import LAST
from tests.support.repo_copy import COMMAND, Launcher
from tests.support.servers import pooled

HEAD = scripts().get_current_head() or ""
REVISIONS = [revision.revision for revision in revisions_oldest_first(scripts())]


def assert_repaired(url: URL, found: drift.Drift) -> None:
    """Execute the SQL to paste, and assert that no drift is left."""
    assert all(one.sql for one in found.differences), found.differences
    paste(url, found.script)
    assert not examine(url).drifted


def read_live(url: URL) -> Live:
    """Read a database as the command does."""
    return read.read_twice(url, read.read_live)


def step_back(url: URL, *, steps: int) -> None:
    """Revert the last revisions."""
    directory = scripts()
    undone = revisions_oldest_first(directory)[::-1][:steps]
    with connect(url) as connection:
        run(
            connection,
            directory,
            lambda _context: [downgrade_step(directory, one) for one in undone],
        )


def test_what_was_only_deployed_has_not_drifted(any_server: Server) -> None:
    """A deployed database equals the history, whatever the two server versions."""
    with any_server.database() as url:
        with connect(url) as connection:
            upgrade(connection, scripts())
        at_head = examine(url)
        assert (at_head.drifted, at_head.foreign, at_head.found.behind) == (False, [], 0)
        step_back(url, steps=2)
        behind = examine(url)
        assert (behind.drifted, behind.found.revision) == (False, REVISIONS[-3])
        assert (behind.found.behind, behind.found.head) == (2, HEAD)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("statement", "line"),
    [
        ("CREATE INDEX extra ON todo (title)", "+     index extra  CREATE INDEX extra"),
        ("DROP POLICY todo_owner ON todo", "-     policy todo_owner  permissive"),
        (
            "GRANT TEMPORARY ON DATABASE {database} TO PUBLIC",
            "+     grant to PUBLIC  CONNECT, TEMPORARY",
        ),
        ("REVOKE SELECT ON alembic_version FROM todo_auth", "-     grant to todo_auth  SELECT"),
        ("GRANT UPDATE ON alembic_version TO todo_app", "+     grant to todo_app  SELECT, UPDATE"),
    ],
)
def test_what_was_done_by_hand_is_shown(head: URL, statement: str, line: str) -> None:
    """Added and removed objects are shown, on Alembic's table too; the SQL undoes them."""
    execute(head, statement.format(database=head.database))
    found = examine(head)
    assert found.drifted
    assert line in found.text
    assert_repaired(head, found)


def test_what_deploys_once_stored_is_no_drift(head: URL) -> None:
    """Older deploys stored the schema in the comment of Alembic's key."""
    execute(head, "COMMENT ON CONSTRAINT alembic_version_pkc ON alembic_version IS 'deployed'")
    assert not examine(head).drifted


# ── a record that is not what the schema is ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("built", "stamped"),
    [
        pytest.param(len(REVISIONS), REVISIONS[0], id="stamped-too-early"),
        pytest.param(1, HEAD, id="stamped-too-late", marks=pytest.mark.slow),
        pytest.param(0, HEAD, id="nothing-is-built"),
    ],
)
def test_a_wrong_stamp(run: Launcher, head: URL, built: int, stamped: str) -> None:
    """The matching revision is found; after a stamp there is no drift.

    The remedy does not tell a person to change or drop objects.
    """
    right = [BASE, *REVISIONS][built]
    step_back(head, steps=len(REVISIONS) - built)
    execute(
        head, "DELETE FROM alembic_version", f"INSERT INTO alembic_version VALUES ('{stamped}')"
    )
    found = examine(head)
    assert (found.found.revision, found.found.equals) == (stamped, right)
    assert (found.found.drifted, found.differences, found.text) == (True, [], "")
    page = shown(found)
    assert page.startswith(f"✗ The schema is exactly {right}")
    assert f"; only alembic_version says {stamped}.\n" in page
    assert f"\n  → If {right} is right, run DATABASE_URL=… alembic stamp {right}" in page
    assert not re.search(r"by hand|drop table|\+ ", page, re.IGNORECASE)
    stamp = deploy(run, ROOT, head, "stamp", right)
    assert stamp.code == 0, stamp.everything
    if built:
        assert not examine(head).drifted
    upgraded = deploy(run, ROOT, head)
    assert upgraded.code == 0, upgraded.everything
    assert not examine(head).drifted


def test_the_sql_of_a_wrong_stamp(head: URL) -> None:
    """The SQL records the revision that the schema has."""
    execute(head, f"UPDATE alembic_version SET version_num = '{REVISIONS[0]}'")
    sql = comparison.stamp_sql(examine(head).found)
    assert sql is not None
    execute(head, sql)
    assert not examine(head).drifted


def test_another_revision_is_nearer(head: URL) -> None:
    """The difference is shown from the nearest revision, not from the recorded one."""
    stamped = REVISIONS[0]
    execute(
        head,
        f"UPDATE alembic_version SET version_num = '{stamped}'",
        "CREATE INDEX extra ON todo (title)",
    )
    found = examine(head)
    assert (found.found.equals, found.found.nearest, len(found.differences)) == (None, HEAD, 1)
    page = shown(found)
    far = found.found.differing_at_revision
    assert page.startswith(
        f"✗ alembic_version records {stamped}, but the schema equals no revision, and is nearest to"
        f" {HEAD} (1 object differs, and {far} from {stamped}).\n"
    )
    assert [line for line in page.splitlines() if line.startswith("    +")] == [
        "    +     index extra  CREATE INDEX extra ON todo USING btree (title)"
    ]
    assert "tables that only the database has may hold rows" in page


def test_of_equal_distances_the_recorded_one_counts(head: URL) -> None:
    """If a later revision has the same schema, the recorded one counts."""
    history = history_schemas.committed(scripts())
    live = read_live(head)
    twins = {**history, "0123456789ab": history[HEAD]}
    found = comparison.compare(live, twins)
    assert (found.nearest, found.drifted, found.unverified) == (HEAD, False, [])


@pytest.mark.parametrize("recorded", [0, 2], ids=["recorded-before", "recorded-after"])
def test_revisions_that_no_schema_shows(head: URL, recorded: int) -> None:
    """Revisions without a schema change are named as unverified, in both directions."""
    history = history_schemas.committed(scripts())
    names = [REVISIONS[0], "0123456789ab", HEAD]
    schemas = [history[REVISIONS[0]], history[HEAD], history[HEAD]]
    if recorded:
        schemas[1] = history[REVISIONS[0]]
        step_back(head, steps=len(REVISIONS) - 1)
    execute(head, f"UPDATE alembic_version SET version_num = '{names[recorded]}'")
    found = comparison.compare(read_live(head), dict(zip(names, schemas, strict=True)))
    rows_only = [names[1] if recorded else names[2]]
    assert (found.nearest, found.unverified) == (names[1] if recorded else names[2], rows_only)
    assert f"find out first whether {rows_only[0]} ran" in comparison.advice(found)


@pytest.mark.parametrize(
    ("statement", "fragment"),
    [
        pytest.param(
            "INSERT INTO alembic_version VALUES ('0a1b2c3d4e5f')",
            "records 2 revisions (0a1b2c3d",
            id="several",
        ),
        pytest.param(
            "UPDATE alembic_version SET version_num = 'ffff'",
            "at revision ffff, which this checkout does not have",
            id="unknown",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_record_that_leads_nowhere(
    run: Launcher, head: URL, statement: str, fragment: str
) -> None:
    """An unknown recorded revision is refused; a stamp of the matching one fixes it."""
    execute(head, statement, "CREATE INDEX extra ON todo (title)")
    with pytest.raises(CannotRunError) as refused:
        examine(head)
    assert fragment in str(refused.value)
    assert f"is nearest to {HEAD} (1 object differs)" in str(refused.value)
    execute(head, "DROP INDEX extra")
    with pytest.raises(CannotRunError) as refused:
        examine(head)
    assert f"; the schema is exactly {HEAD} (" in str(refused.value)
    stamp = f"alembic stamp --purge {HEAD}"
    assert f"if {HEAD} is right, run DATABASE_URL=… {stamp}, or BEGIN; DELETE" in str(refused.value)
    stamped = deploy(run, ROOT, head, *stamp.split()[1:])
    assert stamped.code == 0, stamped.everything
    assert not examine(head).drifted


# ── what other sessions do meanwhile ──────────────────────────────────────────────────────────────

IMPATIENT = "from schema.live import read; read.LOCK_TIMEOUT = 0.2; " + COMMAND
"""Runs the command with a shorter lock timeout."""


@pytest.mark.parametrize("command", ["drift", "doctor", "adopt"])
def test_a_lock(run: Launcher, head: URL, command: str) -> None:
    """The session that holds a lock is named without its SQL, and the exit code is 2."""
    if command == "adopt":
        execute(head, "DROP TABLE alembic_version")
    with connect(head.update_query_dict({"application_name": "holder"})) as holder:
        holder.exec_driver_sql("ALTER TABLE todo ADD COLUMN secret_name int")
        pid = holder.exec_driver_sql("SELECT pg_backend_pid() AS secret_name").scalar_one()
        result = run.run(
            ROOT, command, "--json", "--database-url", with_password(head), code=IMPATIENT
        )
    assert result.code == 2, result.everything
    error = json.loads(result.out)["error"]
    assert re.search(rf": session {pid} \(neondb_owner, holder, idle in transaction for", error)
    assert result.err == f"schema: {error}\n"
    assert "secret_name" not in result.everything


def test_a_lock_that_is_waited_for(head: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a session waits for an exclusive lock, the session that blocks it is named."""
    monkeypatch.setattr(read, "LOCK_TIMEOUT", 0.2)
    with connect(head) as holder, connect(head) as waiting, ThreadPoolExecutor() as threads:
        holder.exec_driver_sql("SELECT FROM todo")
        pid = holder.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        threads.submit(waiting.exec_driver_sql, "ALTER TABLE todo ADD COLUMN zz int")
        with connect(head, autocommit=True) as looking:
            while not looking.exec_driver_sql(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted"
                f" AND {pid} = ANY (pg_blocking_pids(pid)))"
            ).scalar_one():
                pass
        with pytest.raises(CannotRunError, match=f": session {pid} .*idle in transaction"):
            read_live(head)
        holder.rollback()


def test_a_lost_connection(head: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that an administrator ends is replaced; one that always ends gives one sentence."""
    original, lost = snapshot.read, 0

    def lose(connection: Connection, *, version_table: bool = False) -> snapshot.Snapshot:
        nonlocal lost
        if lost < losses:
            lost += 1
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        return original(connection, version_table=version_table)

    monkeypatch.setattr(snapshot, "read", lose)
    losses = 1
    assert not examine(head).drifted
    losses = 100
    with pytest.raises(CannotRunError, match=r"could not be read .*terminating connection"):
        examine(head)


MAKING = (
    "CREATE TYPE mood AS ENUM ('up')",
    "CREATE FUNCTION one() RETURNS int LANGUAGE sql IMMUTABLE RETURN 1",
    "CREATE TABLE extra (id int PRIMARY KEY, mood mood, CHECK (id > one()))",
    "CREATE VIEW extras AS SELECT id FROM extra",
)
UNMAKING = ("DROP VIEW extras", "DROP TABLE extra", "DROP FUNCTION one()", "DROP TYPE mood")


@pytest.mark.slow
def test_while_others_change_the_schema(head: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read returns a schema that existed, or fails; it never returns a mixture.

    Catalog functions see newer changes than the transaction: they fail, or return a number for the
    name of a dropped object.
    """
    monkeypatch.setattr(read, "TRIES", 5)
    quiet = set(read_live(head).facts)
    true = set(quiet)
    for statement in (*MAKING, *UNMAKING):
        execute(head, statement)
        true |= set(read_live(head).facts)
    stop = threading.Event()

    def look() -> set[snapshot.Fact] | None:
        try:
            return set(read_live(head).facts)
        except CannotRunError as error:
            if "other sessions kept changing the schema" not in str(error):
                raise
            return None

    def change() -> None:
        while not stop.is_set():
            execute(head, *MAKING, *UNMAKING)

    with ThreadPoolExecutor() as threads:
        changing = threads.submit(change)
        try:
            for found in (look() for _ in range(20)):
                assert found is None or quiet <= found <= true, found ^ true
        finally:
            stop.set()
        changing.result()
    assert set(read_live(head).facts) == quiet


# ── what a role can see ───────────────────────────────────────────────────────────────────────────


def test_an_application_sees_it_all(head: URL, application: URL, better_auth: URL) -> None:
    """A login with a group role reads the same schema as the owner."""
    facts = read_live(head).facts
    for login in (application, better_auth):
        live = read_live(login)
        assert live.facts == facts
        assert live.recorded == read.Recorded(table=True, revisions=(HEAD,))
    execute(head, "ALTER TABLE todo DISABLE ROW LEVEL SECURITY")
    assert "row security  disabled, forced" in examine(application).text


def test_a_revision_that_cannot_be_read(head: URL, application: URL) -> None:
    """If the role cannot read the revision, the nearest one is used."""
    step_back(head, steps=len(REVISIONS) - REVISIONS.index(LAST))  # which grants the reading
    found = examine(application)
    assert found.limitations == [
        "The revision could not be read (permission denied for table alembic_version); the"
        " schema was compared with the nearest one."
    ]
    before = REVISIONS[REVISIONS.index(LAST) - 1]
    assert (found.found.revision, found.found.nearest) == (None, before)
    assert (REVISIONS[-1 - found.found.behind], found.found.drifted) == (before, False)
    execute(head, "CREATE INDEX extra ON todo (title)")
    assert examine(application).found.nearest == before


def test_a_revision_that_row_security_hides(head: URL, application: URL) -> None:
    """A row that a policy hides is not taken for a missing one."""
    execute(head, "ALTER TABLE alembic_version ENABLE ROW LEVEL SECURITY")
    found = examine(application)
    assert "row-level security policy" in found.limitations[0]
    assert found.found.nearest == HEAD
    assert "+     row security  enabled" in found.text


def test_a_role_that_may_not_look_into_the_schema(head: URL, application: URL) -> None:
    """Without USAGE on the schema, PostgreSQL prints other names."""
    execute(head, "REVOKE USAGE ON SCHEMA public FROM todo_app")
    with pytest.raises(CannotRunError, match="has no USAGE on schema public"):
        read_live(application)


# ── what cannot be compared ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("statement", "fragment"),
    [
        ("DROP TABLE alembic_version", "no table alembic_version .* run schema adopt"),
        ("DELETE FROM alembic_version", "Alembic's table is empty .* run schema adopt"),
    ],
)
def test_a_revision_that_says_nothing(head: URL, statement: str, fragment: str) -> None:
    """Without a recorded revision, the command is refused in one sentence."""
    execute(head, statement)
    with pytest.raises(CannotRunError, match=fragment) as refused:
        examine(head)
    assert str(refused.value).endswith(".")


def test_a_server_that_is_too_old(head: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an unsupported version, the schema is not read."""
    monkeypatch.setattr(read, "OLDEST_VERSION", 99)
    with pytest.raises(CannotRunError, match=r"is too old; 99 is the oldest that is supported\.$"):
        read_live(head)


@pytest.mark.parametrize(
    ("shown", "major", "twin"),
    [("16.14", 16, 16), ("17.6 (Debian 17.6-1)", 17, 18), ("18.4", 18, 18), ("19beta1", 19, 18)],
)
def test_the_embedded_version_that_comes_closest(shown: str, major: int, twin: int) -> None:
    """The same major version if it is embedded, otherwise the newest."""
    assert (read.major(shown), history_schemas.closest_embedded_version(shown)) == (major, twin)


# ── looking changes nothing ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE x ()", "DELETE FROM alembic_version", "SELECT lo_create(0)", "VACUUM todo"],
)
def test_nothing_can_be_written(head: URL, statement: str) -> None:
    """PostgreSQL rejects writes in the transaction that reads."""
    with pytest.raises(CannotRunError, match=r"read-only transaction|inside a transaction"):
        read.read(head, lambda connection: connection.exec_driver_sql(statement))


def test_through_a_pooler(head: URL) -> None:
    """A transaction pooler makes no difference, and the next client gets none of the settings."""
    with pooled(head) as through:
        pooled_read, direct = (read_live(url) for url in (through, head))
        assert replace(pooled_read, where=direct.where) == direct
        with connect(through) as connection:
            left = connection.exec_driver_sql(
                "SELECT current_setting('transaction_read_only'), current_setting('lock_timeout'),"
                " current_setting('row_security'), current_setting('transaction_isolation')"
            ).one()
    assert tuple(left) == ("off", "0", "on", "read committed")


# ── the command ───────────────────────────────────────────────────────────────────────────────────


def test_page(head: URL) -> None:
    """The page shows the revision, the difference and the remedy."""
    step_back(head, steps=1)
    execute(head, "CREATE INDEX extra ON todo (title)")
    page = shown(examine(head))
    assert f"at {REVISIONS[-2]}; the head, {HEAD}, is 1 revision further.\n" in page
    assert f"✗ Drift: 1 difference from the history at {REVISIONS[-2]}.\n" in page
    assert "\n  behaviour  index extra of table todo was added\n" in page
    assert "    +     index extra  CREATE INDEX extra" in page
    assert "    DROP INDEX extra;\n" in page
    execute(head, "DROP INDEX extra")
    assert "✓ No drift: " in shown(examine(head))


def shown(found: drift.Drift) -> str:
    """Print the page as in a pipe."""
    console = Console(width=200, soft_wrap=True)
    with console.capture() as captured:
        console.print(drift_page.page(found))
    return captured.get()


def test_command(run: Launcher, head: URL) -> None:
    """The command prints one document without the password, whatever the exit code."""
    execute(head, "CREATE INDEX extra ON todo (title)")
    url = head.set(password="s3cr3t")  # noqa: S106  # must not appear in any output
    result = run.run(ROOT, "drift", "--json", "--database-url", with_password(url))
    assert (result.code, result.err) == (1, ""), result.everything
    document = json.loads(result.out)
    fields = {
        name: document[name]
        for name in ("version", "drift", "error", "revision", "difference_count")
    }
    assert fields == {
        "version": 2,
        "drift": True,
        "error": None,
        "revision": HEAD,
        "difference_count": 1,
    }
    assert (document["equals"], document["nearest"], document["unverified"]) == (None, HEAD, [])
    assert "+     index extra" in document["difference"]
    refused = run.run(
        ROOT, "drift", "--json", "--database-url", with_password(url.set(database="no_such"))
    )
    assert refused.code == 2, refused.everything
    why = json.loads(refused.out)
    assert why.keys() == document.keys()
    assert 'database "no_such" does not exist' in why["error"]
    assert why["drift"] is None
    assert "s3cr3t" not in result.everything + refused.everything


def with_password(url: URL) -> str:
    """Format the URL with its password."""
    return url.render_as_string(hide_password=False)
