"""`schema adopt`: find and stamp the revision of a database that has the tables.

The theory: the revision whose schema a database has is found; after the stamp the database equals
one that was deployed to that revision. If no revision matches, or the role may not stamp it, the
database is not changed.
"""

import json
from collections.abc import Mapping

import pytest
from alembic.script import Script
from alembic.util import CommandError
from rich.console import Console
from sqlalchemy import URL

from migrations import snapshot
from migrations.deploy.advisory_lock import LOCK
from models import metadata
from schema.cli import adopt as adopt_page
from schema.cli.adopt import Adoption
from schema.errors import CannotRunError
from schema.live import adopt, history_schemas, read
from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from schema.project import ROOT, scripts
from schema.revisions import schemas
from schema.revisions.history import revisions_oldest_first
from schema.revisions.runner import run, upgrade_step
from tests.support.alembic_process import deploy, execute
from tests.support.drift import paste
from tests.support.repo_copy import Launcher

HEAD = scripts().get_current_head() or ""
REVISIONS = [revision.revision for revision in revisions_oldest_first(scripts())]


@pytest.fixture(scope="module")
def history(server: Server) -> Mapping[str, snapshot.Snapshot]:
    """The whole schema at each revision."""
    with server.database() as url:
        return schemas.build(url, scripts())


@pytest.fixture
def unknown(head: URL) -> URL:
    """A database with the tables of the head, and no revision."""
    execute(head, "DROP TABLE alembic_version")
    return head


def apply(url: URL, revision: Script) -> None:
    """Apply one more revision."""
    directory = scripts()
    with connect(url) as connection:
        run(connection, directory, lambda _context: [upgrade_step(directory, revision)])


def whole(url: URL) -> snapshot.Snapshot:
    """Read the whole schema, with Alembic's table."""
    with connect(url) as connection:
        return snapshot.read(connection, version_table=True)


def adopted(url: URL) -> Adoption:
    """Do the same as the command."""
    return adopt_page.adopt(url, lambda _step: None)


def _own(schema: snapshot.Snapshot) -> list[snapshot.Fact]:
    return [fact for fact in schema if fact.object != "table alembic_version"]


@pytest.mark.slow
def test_each_revision_is_found(
    any_server: Server, history: Mapping[str, snapshot.Snapshot]
) -> None:
    """Each revision is found, and the next deploy continues from it.

    If two revisions differ only in Alembic's table, the later one is stamped, with its changes of
    that table.
    """
    with any_server.database() as url:
        for revision in revisions_oldest_first(scripts()):
            apply(url, revision)
            following = REVISIONS[REVISIONS.index(revision.revision) + 1 :][:1]
            if following and _own(history[following[0]]) == _own(history[revision.revision]):
                continue  # the next one only grants on Alembic's table
            execute(url, "DROP TABLE alembic_version")
            found = adopted(url).found
            assert (found.revision, found.equals) == (revision.revision, True)
            assert found.behind == len(REVISIONS) - 1 - REVISIONS.index(revision.revision)
            assert found.unverified == []
            assert whole(url) == history[revision.revision]


def test_what_the_models_built(empty: URL, history: Mapping[str, snapshot.Snapshot]) -> None:
    """A database that `metadata.create_all` made is at head, and complete once it is stamped."""
    with connect(empty) as connection:
        metadata.create_all(connection)
        connection.commit()
    assert adopted(empty).found.revision == HEAD
    assert whole(empty) == history[HEAD]


def test_a_revision_that_shows_in_no_schema(unknown: URL) -> None:
    """A revision that changes only rows is named, and assumed to be applied."""
    committed = history_schemas.committed(scripts())
    further = {**committed, "0123456789ab": committed[HEAD]}
    found = adopt.match(adopt.read_database(unknown), further)
    assert (found.revision, found.unverified) == ("0123456789ab", ["0123456789ab"])
    assert "because they change no schema object: 0123456789ab." in shown(Adoption(found))


def test_the_nearest_is_shown(unknown: URL, history: Mapping[str, snapshot.Snapshot]) -> None:
    """For a database that equals no revision, the nearest one is shown, and nothing is changed."""
    execute(unknown, "DROP TABLE todo_tag", "CREATE INDEX extra ON todo (title)")
    before = whole(unknown)
    found = adopted(unknown)
    assert (found.found.revision, found.found.equals) == (HEAD, False)
    page = shown(found)
    assert f"✗ It equals no revision. The nearest is {HEAD}" in page
    assert "\n  data       table todo_tag was removed, and its rows with it\n" in page
    assert "\n  behaviour  index extra of table todo was added\n" in page
    assert f"When what the history owns is as it is at {HEAD}, run this again." in page
    assert "may hold rows" in page
    assert whole(unknown) == before
    assert found.sql is not None
    paste(unknown, found.sql)
    assert adopted(unknown).found.equals
    assert whole(unknown) == history[HEAD]


# ── ways out of what looks like a dead end ────────────────────────────────────────────────────────


def test_other_peoples_tables(unknown: URL) -> None:
    """Tables that no revision makes do not keep the schema beside them from being adopted."""
    execute(unknown, *(f"CREATE TABLE other_{number} (id int)" for number in range(20)))
    found = adopted(unknown)
    assert (found.found.equals, len(found.found.foreign)) == (True, 20)
    assert "No revision has: table other_0" in shown(found)


def test_a_stray_table(empty: URL, run: Launcher) -> None:
    """A database with none of the history's tables is deployed, not adopted; the deploy agrees."""
    execute(empty, "CREATE TABLE stray (id int)")
    with pytest.raises(CannotRunError, match=r"nothing to adopt; deploy it .* stays: table stray"):
        adopted(empty)
    deployed = deploy(run, ROOT, empty)
    assert deployed.code == 0, deployed.everything
    assert "No revision has table stray." in deployed.out


def test_text_ids(empty: URL) -> None:
    """Better Auth's own schema has text ids: the rows must move, and the way is said."""
    execute(
        empty,
        'CREATE TABLE "user" (id text PRIMARY KEY, name text NOT NULL, email text NOT NULL UNIQUE,'
        ' "emailVerified" boolean NOT NULL, image text, "createdAt" timestamptz NOT NULL,'
        ' "updatedAt" timestamptz NOT NULL)',
    )
    found = adopted(empty)
    assert not found.found.equals
    assert "cannot be adopted. Deploy an empty database" in shown(found)


def shown(found: Adoption) -> str:
    """Print the page as in a pipe."""
    console = Console(width=200, soft_wrap=True)
    with console.capture() as captured:
        console.print(adopt_page.page(found))
    return captured.get()


# ── the stamp is complete, or there is none ───────────────────────────────────────────────────────

LEFT = (
    "CREATE TABLE alembic_version"
    " (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY)"
)


def test_privileges_on_a_table_that_was_left(
    unknown: URL, history: Mapping[str, snapshot.Snapshot]
) -> None:
    """An existing empty table gets exactly the history's privileges."""
    execute(unknown, LEFT, "GRANT ALL ON alembic_version TO todo_app, PUBLIC")
    adopted(unknown)
    assert whole(unknown) == history[HEAD]


def test_a_table_of_another_form(unknown: URL) -> None:
    """If Alembic's table differs from the history's, nothing is stamped or changed."""
    execute(unknown, LEFT, "ALTER TABLE alembic_version ADD note text")
    before = whole(unknown)
    with pytest.raises(CannotRunError, match=r"would differ from the history .*column note text"):
        adopted(unknown)
    assert whole(unknown) == before
    with connect(unknown) as connection:
        assert read.recorded(connection) == read.Recorded(table=True)


def test_a_superuser_keeps_nothing(
    unknown: URL,
    superusers: dict[int, URL],
    server: Server,
    history: Mapping[str, snapshot.Snapshot],
) -> None:
    """After a stamp by a superuser, Alembic's table belongs to the owner of the database."""
    superuser = superusers[read.major(server.version)].set(database=unknown.database)
    adopted(superuser)
    assert whole(unknown) == history[HEAD]


def test_a_change_in_between(unknown: URL, history: Mapping[str, snapshot.Snapshot]) -> None:
    """A schema that has changed since it was read is not stamped."""
    execute(unknown, "CREATE INDEX extra ON todo (title)")
    before = whole(unknown)
    with pytest.raises(CannotRunError, match="changed while it was compared"):
        adopt.stamp(unknown, scripts(), HEAD, history[HEAD], lambda _what: None)
    assert whole(unknown) == before


def test_while_a_deploy_runs(
    unknown: URL,
    history: Mapping[str, snapshot.Snapshot],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for the deploy lock while a deploy runs, and then gives up."""
    monkeypatch.setattr(adopt, "DEPLOY_TIMEOUT", 0)
    before = whole(unknown)
    with connect(unknown, autocommit=True) as deploy:
        deploy.exec_driver_sql(f"SELECT pg_advisory_lock({LOCK})")
        with pytest.raises(CommandError, match="deploy"):
            adopt.stamp(unknown, scripts(), HEAD, history[HEAD], lambda _what: None)
    assert whole(unknown) == before


# ── what is refused ───────────────────────────────────────────────────────────────────────────────


def test_a_database_that_has_a_revision(head: URL) -> None:
    """A database with a revision is refused; a wrong revision is reported."""
    already = f"is already at revision {HEAD} .*schema drift"
    with pytest.raises(CannotRunError, match=already):
        adopted(head)
    execute(head, "CREATE INDEX extra ON todo (title)")
    with pytest.raises(CannotRunError, match=already):
        adopted(head)
    execute(head, "DROP INDEX extra", "UPDATE alembic_version SET version_num = 'ffff'")
    before = whole(head)
    wrong = (
        f"revision ffff, .* the schema is exactly {HEAD} .*, run .*alembic stamp --purge {HEAD}, or"
    )
    with pytest.raises(CannotRunError, match=wrong):
        adopted(head)
    assert whole(head) == before


def test_a_revision_that_cannot_be_seen(head: URL, application: URL) -> None:
    """A row that row security hides counts as a recorded revision."""
    execute(head, "ALTER TABLE alembic_version ENABLE ROW LEVEL SECURITY")
    with pytest.raises(CannotRunError, match=r"cannot be read: .*row-level security.*its owner\.$"):
        adopt.read_database(application)


def test_a_database_without_tables(empty: URL) -> None:
    """A database without tables must be deployed, not adopted."""
    with pytest.raises(CannotRunError, match=r"no table .*deploy it \(alembic upgrade head\)\.$"):
        adopted(empty)


def test_a_role_that_may_not_make_the_table(unknown: URL, application: URL) -> None:
    """The message tells an application's login to connect as the owner."""
    assert application.database == unknown.database
    with pytest.raises(CannotRunError, match=r"may not create Alembic's table .*as the owner\.$"):
        adopt.read_database(application)


def test_a_pooled_host() -> None:
    """A pooled host is refused before the first connection, because it keeps no session locks."""
    url = URL.create("postgresql+psycopg", host="ep-x-pooler.eu.neon.invalid", database="todo")
    with pytest.raises(CannotRunError, match="has no -pooler"):
        adopt.read_database(url)


# ── the command ───────────────────────────────────────────────────────────────────────────────────


def test_command(run: Launcher, unknown: URL, history: Mapping[str, snapshot.Snapshot]) -> None:
    """The second run is refused; both print one document."""
    url = unknown.render_as_string(hide_password=False)
    result = run.run(ROOT, "adopt", "--json", "--database-url", url)
    assert (result.code, result.err) == (0, ""), result.everything
    document = json.loads(result.out)
    fields = {
        name: document[name] for name in ("version", "adopted", "error", "revision", "behind")
    }
    assert fields == {"version": 2, "adopted": True, "error": None, "revision": HEAD, "behind": 0}
    assert whole(unknown) == history[HEAD]
    again = run.run(ROOT, "adopt", "--json", "--database-url", url)
    assert again.code == 2, again.everything
    why = json.loads(again.out)
    assert why.keys() == document.keys()
    assert why["adopted"] is None
    assert f"is already at revision {HEAD}" in why["error"]
