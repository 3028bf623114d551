"""`schema drift`: a live database against what the history builds at its revision.

The theory: a database that only deploys have touched equals the history at its revision, on every
server and through every role that can be told so; whatever else was done to it is shown; and
looking changes nothing.
"""

import json

import pytest
from rich.console import Console
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from schema import drift, reference
from schema.alembic_run import down, line, run, upgrade
from schema.database import connect
from schema.errors import CannotRunError
from schema.repository import ROOT, scripts
from schema.server import Server
from tests.checkout import Launcher
from tests.deploys import execute
from tests.disposable import pooled

HEAD = scripts().get_current_head() or ""
REVISIONS = [revision.revision for revision in line(scripts())]


def compare(url: URL, server: Server) -> drift.Drift:
    """Do what the command does, on a server that runs already."""
    return drift.compare(drift.look(url, scripts()), server, scripts())


def step_back(url: URL, *, steps: int) -> None:
    """Undo the last revisions."""
    directory = scripts()
    undone = line(directory)[::-1][:steps]
    with connect(url) as connection:
        run(connection, directory, lambda _context: [down(directory, one) for one in undone])


def test_what_was_only_deployed_has_not_drifted(any_server: Server, server: Server) -> None:
    """At its own revision it equals the history, whichever version each of the two is built on."""
    with any_server.database() as url:
        with connect(url) as connection:
            upgrade(connection, scripts())
        at_head = compare(url, server)
        assert (at_head.difference, at_head.differing, at_head.behind) == ("", 0, 0)
        step_back(url, steps=2)
        behind = compare(url, server)
        assert (behind.difference, behind.revision, behind.behind) == ("", REVISIONS[-3], 2)
        assert behind.head == HEAD


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
def test_what_was_done_by_hand_is_shown(
    head: URL, server: Server, statement: str, line: str
) -> None:
    """Nothing that was added or taken away is overlooked, on Alembic's own table neither."""
    execute(head, statement.format(database=head.database))
    found = compare(head, server)
    assert found.difference
    assert found.differing >= 1
    assert line in found.difference


def test_notes_of_a_deploy_are_no_drift(head: URL, server: Server) -> None:
    """A deploy comments on the key of Alembic's table; the history alone does not."""
    execute(head, "COMMENT ON CONSTRAINT alembic_version_pkc ON alembic_version IS 'deployed'")
    assert not compare(head, server).difference


# ── what a role can see ───────────────────────────────────────────────────────────────────────────


def test_an_application_sees_it_all(
    head: URL, application: URL, better_auth: URL, server: Server
) -> None:
    """A login of a group role reads the same schema as the owner does."""
    facts = drift.look(head, scripts()).facts
    for login in (application, better_auth):
        live = drift.look(login, scripts())
        assert (live.facts, live.revision, live.unseen) == (facts, HEAD, [])
    execute(head, "ALTER TABLE todo DISABLE ROW LEVEL SECURITY")
    assert "row security  disabled, forced" in compare(application, server).difference


def test_a_revision_that_cannot_be_read(head: URL, application: URL, server: Server) -> None:
    """Before its grant an application cannot read the revision: the nearest one is looked for."""
    step_back(head, steps=2)
    found = compare(application, server)
    assert found.live.revision is None
    assert found.live.unseen == [
        "The revision could not be read (permission denied for table alembic_version): compared"
        " with the nearest one."
    ]
    assert (found.revision, found.behind, found.difference) == (REVISIONS[-3], 2, "")
    execute(head, "CREATE INDEX extra ON todo (title)")
    assert compare(application, server).revision == REVISIONS[-3]


def test_a_revision_that_row_security_hides(head: URL, application: URL, server: Server) -> None:
    """A row that a policy hides is not taken for one that is not there."""
    execute(head, "ALTER TABLE alembic_version ENABLE ROW LEVEL SECURITY")
    found = compare(application, server)
    assert "row-level security policy" in found.live.unseen[0]
    assert found.revision == HEAD
    assert "+     row security  enabled" in found.difference


def test_a_role_that_may_not_look_into_the_schema(head: URL, application: URL) -> None:
    """Without USAGE on the schema PostgreSQL names nothing in it as others see it."""
    execute(head, "REVOKE USAGE ON SCHEMA public FROM todo_app")
    with pytest.raises(CannotRunError, match="may not look into schema public"):
        drift.look(application, scripts())


# ── what cannot be compared ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("statement", "fragment"),
    [
        ("DROP TABLE alembic_version", "no table alembic_version .* run schema adopt"),
        ("DELETE FROM alembic_version", "Alembic's table is empty .* run schema adopt"),
        ("INSERT INTO alembic_version VALUES ('0a1b2c3d4e5f')", "records 2 revisions .0a1b2c3d"),
        (
            "UPDATE alembic_version SET version_num = 'ffff'",
            "at revision ffff, which this checkout",
        ),
    ],
)
def test_a_revision_that_says_nothing(head: URL, statement: str, fragment: str) -> None:
    """None, several or an unknown one: one sentence says what to do."""
    execute(head, statement)
    with pytest.raises(CannotRunError, match=fragment) as refused:
        drift.look(head, scripts())
    assert str(refused.value).endswith(".")


def test_a_server_that_is_too_old(head: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """The query is for the supported versions; nothing is read on another."""
    monkeypatch.setattr(reference, "OLDEST", 99)
    with pytest.raises(CannotRunError, match=r"is too old; 99 is the oldest that is supported\.$"):
        drift.look(head, scripts())


@pytest.mark.parametrize(
    ("shown", "major", "twin"),
    [("16.14", 16, 16), ("17.6 (Debian 17.6-1)", 17, 18), ("18.4", 18, 18), ("19beta1", 19, 18)],
)
def test_the_embedded_version_that_comes_closest(shown: str, major: int, twin: int) -> None:
    """The same major version where there is one, and else the newest."""
    assert (reference.major(shown), reference.twin(shown)) == (major, twin)


# ── looking changes nothing ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE x ()", "DELETE FROM alembic_version", "SELECT lo_create(0)", "VACUUM todo"],
)
def test_nothing_can_be_written(head: URL, statement: str) -> None:
    """PostgreSQL itself refuses to write in the one transaction that looks."""
    with pytest.raises(DBAPIError, match=r"read-only transaction|inside a transaction"):
        with reference.read_only(head) as connection:
            connection.exec_driver_sql(statement)


def test_through_a_pooler(head: URL) -> None:
    """In a pooler's transaction mode it reads the same, and leaves the next client no setting."""
    with pooled(head) as through:
        assert drift.look(through, scripts()) == drift.look(head, scripts())
        with connect(through) as connection:
            left = connection.exec_driver_sql(
                "SELECT current_setting('transaction_read_only'), current_setting('lock_timeout'),"
                " current_setting('row_security'), current_setting('transaction_isolation')"
            ).one()
    assert tuple(left) == ("off", "0", "on", "read committed")


# ── the command ───────────────────────────────────────────────────────────────────────────────────


def test_page(head: URL, server: Server) -> None:
    """A person reads where the database is, what differs, and what to do about it."""
    step_back(head, steps=1)
    execute(head, "CREATE INDEX extra ON todo (title)")
    page = shown(compare(head, server))
    assert f"at {REVISIONS[-2]}; the head, {HEAD}, is 1 revision further.\n" in page
    assert "✗ Drift: 1 fact only in the history (-) or only in the database (+).\n" in page
    assert "    +     index extra  CREATE INDEX extra" in page
    assert "\n  → Undo by hand" in page
    execute(head, "DROP INDEX extra")
    assert "✓ No drift: " in shown(compare(head, server))


def shown(found: drift.Drift) -> str:
    """Print the page as into a pipe."""
    console = Console(width=200, soft_wrap=True)
    with console.capture() as captured:
        console.print(drift.page(found))
    return captured.get()


def test_command(run: Launcher, head: URL) -> None:
    """One document says it all, whatever the exit code; the password is in none."""
    execute(head, "CREATE INDEX extra ON todo (title)")
    url = head.set(password="s3cr3t")  # noqa: S106  # what must not be shown
    result = run.run(ROOT, "drift", "--json", "--database-url", with_password(url))
    assert (result.code, result.err) == (1, ""), result.everything
    document = json.loads(result.out)
    said = {name: document[name] for name in ("version", "drift", "error", "revision", "differing")}
    assert said == {"version": 1, "drift": True, "error": None, "revision": HEAD, "differing": 1}
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
    """Write the URL as it is typed."""
    return url.render_as_string(hide_password=False)
