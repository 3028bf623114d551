"""What a platform adds: its own objects do not show, and what they do to our rows does.

The theory: Neon's own objects are recognised by who made them, so what others make among them
shows. The Data API's grants, its authentication, and objects outside the history that go around row
security are reported, with SQL that ends that.

Roles belong to a server, so these tests have one of their own.
"""

import secrets
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import URL, Connection

from migrations import snapshot
from schema.live import exposures, platform, read
from schema.live.difference import Difference, Severity
from schema.postgres.connection import connect
from schema.postgres.embedded import Embedded, embedded
from schema.project import scripts
from schema.revisions.runner import upgrade
from schema.rows.tables import read_tables
from tests.support import neon
from tests.support.alembic_process import execute
from tests.support.drift import examine, paste


@pytest.fixture(scope="module")
def own_server(request: pytest.FixtureRequest) -> Iterator[Embedded]:
    """A server with Neon's roles, and a database at head to clone."""
    with embedded(request.config.getoption("--postgres")) as started:
        execute(started.superuser, *neon.ROLES)
        execute(started.owner, "CREATE DATABASE todo")
        with connect(started.owner.set(database="todo")) as connection:
            upgrade(connection, scripts())
        execute(started.owner, "CREATE ROLE guest LOGIN IN ROLE todo_app")
        yield started


@pytest.fixture
def superuser(own_server: Embedded) -> Iterator[URL]:
    """The superuser's URL of a database at head."""
    name = f"platform_{secrets.token_hex(4)}"
    execute(
        own_server.owner,
        f"CREATE DATABASE {name} TEMPLATE todo",
        f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC",
    )
    yield own_server.superuser.set(database=name, query=system_tables(own_server.superuser))
    execute(own_server.superuser, f"DROP DATABASE {name} WITH (FORCE)")


def system_tables(url: URL) -> dict[str, str]:
    """Return the URL's parameters with the setting that lets a test make extensions."""
    return {"host": str(url.query["host"]), "options": "-c allow_system_table_mods=on"}


@pytest.fixture
def owner(superuser: URL, own_server: Embedded) -> URL:
    """The owner's URL of that database."""
    return own_server.owner.set(database=superuser.database)


def facts_of(url: URL) -> snapshot.Snapshot:
    """Read the snapshot with Alembic's table."""
    return read.read(url, lambda connection: snapshot.read(connection, version_table=True))


def headings(own_server: Embedded) -> set[str]:
    """The headings of what the history makes."""
    return {fact.object for fact in facts_of(own_server.owner.set(database="todo"))}


def judge(url: URL, own_server: Embedded) -> list[Difference]:
    """Do the same as the commands."""
    owned = headings(own_server)
    return read.read(url, lambda connection: platform.judge(connection, owned))


def test_neons_own_objects_do_not_show(own_server: Embedded, superuser: URL, owner: URL) -> None:
    """Its schemas, extensions and roles are no difference; its users are worth a note."""
    before = facts_of(owner)
    neon.settle(superuser)
    facts = facts_of(owner)
    assert snapshot.difference(before, facts) == ""
    left_out = read.read(owner, lambda one: platform.schemas_left_out(one, facts))
    assert left_out == ["neon", "neon_auth", "neon_migration"]
    (note,) = judge(owner, own_server)
    assert (note.object, note.severity) == ("schema neon_auth", Severity.BEHAVIOUR)
    assert "managed Better Auth" in note.sentence
    assert "(2 tables, owner neon_auth)" in note.sentence


def test_what_others_make_among_them_shows(superuser: URL, owner: URL) -> None:
    """The owner's view in each of Neon's schemas is a difference."""
    neon.settle(superuser, data_api=True)
    before = facts_of(owner)
    schemas = ("neon", "neon_migration", "neon_auth", "auth")
    for schema in schemas:
        execute(superuser, f"GRANT USAGE, CREATE ON SCHEMA {schema} TO neondb_owner")
        execute(owner, f"CREATE VIEW {schema}.leak AS SELECT * FROM todo")
    difference = snapshot.difference(before, facts_of(owner))
    assert [line for line in difference.splitlines() if not line.startswith("+    ")] == [
        f"+ view {schema}.leak" for schema in sorted(schemas)
    ]


def test_only_our_tables_get_rows(superuser: URL, owner: URL) -> None:
    """The generator of rows leaves the tables of Neon alone."""
    neon.settle(superuser, data_api=True)
    execute(owner, "CREATE SCHEMA authors", "CREATE TABLE authors.book (id integer)")
    with connect(owner) as connection:
        names = {table.name for table in read_tables(connection).tables}
    assert "authors.book" in names
    assert {name for name in names if "." in name} == {"authors.book"}


def test_a_schema_of_the_owners_gets_rows(owner: URL) -> None:
    """What the owner calls auth is the owner's."""
    execute(owner, "CREATE SCHEMA auth", "CREATE TABLE auth.book (id integer)")
    with connect(owner) as connection:
        assert "auth.book" in {table.name for table in read_tables(connection).tables}


def test_the_data_api(own_server: Embedded, superuser: URL, owner: URL) -> None:
    """Each of its grants is reported as the snapshot's fact; the SQL takes all of them back."""
    neon.settle(superuser)
    before = facts_of(owner)
    execute(superuser, *neon.DATA_API)
    found = [one for one in judge(owner, own_server) if one.object != "schema neon_auth"]
    assert {one.severity for one in found} == {Severity.ISOLATION}
    new = {
        fact for fact in set(facts_of(owner)) - set(before) if not fact.object.startswith("role ")
    }
    assert {(one.object, one.part, one.found) for one in found} == new
    tables = [one for one in new if one.object.startswith("table ")]
    assert len(tables) == len({one.object for one in before if one.object.startswith("table ")})
    for one in found:
        assert one.sql is not None
        execute(owner, one.sql)
    assert snapshot.difference(before, facts_of(owner)) == ""


def test_drift_on_neon(superuser: URL, owner: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Neon has is no drift; what its Data API may do is, and the SQL ends it."""
    monkeypatch.undo()  # roles change: the copy needs a server of its own
    neon.settle(superuser)
    before = examine(owner)
    assert (before.drifted, before.foreign) == (False, [])
    execute(superuser, *neon.DATA_API)
    found = examine(owner)
    said = [one.sentence for one in found.differences]
    assert "authenticated was granted DELETE, INSERT, SELECT, UPDATE on table account" in said
    assert {one.severity for one in found.differences} == {Severity.ISOLATION}
    assert all(one.sql for one in found.differences), said
    paste(owner, found.script)
    assert not examine(owner).drifted


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        (
            "CREATE POLICY jwt ON todo TO authenticated USING (user_id = (SELECT auth.uid()))",
            ("table todo", "policy jwt"),
        ),
        (
            "CREATE OR REPLACE FUNCTION app_user_id() RETURNS uuid LANGUAGE sql STABLE"
            " PARALLEL SAFE RETURN auth.uid()",
            ("function app_user_id()", ""),
        ),
        (
            "CREATE OR REPLACE FUNCTION app_user_id() RETURNS uuid LANGUAGE sql STABLE"
            " AS 'SELECT auth.user_id()::uuid'",
            ("function app_user_id()", ""),
        ),
        ("ALTER TABLE todo ALTER user_id SET DEFAULT auth.uid()", ("table todo", "column user_id")),
    ],
    ids=["policy", "function", "function-of-text", "default"],
)
def test_claims_that_any_session_can_set(
    own_server: Embedded, superuser: URL, owner: URL, statement: str, place: tuple[str, str]
) -> None:
    """Installed, pg_session_jwt is worth a note; used by us, it is a hole."""
    neon.settle(superuser)
    execute(superuser, *neon.SESSION_JWT, "GRANT USAGE ON SCHEMA auth TO neondb_owner")
    neon.make_extension(superuser, "pg_session_jwt", "auth")
    (note, _) = judge(owner, own_server)
    assert (note.object, note.severity) == ("extension pg_session_jwt", Severity.BEHAVIOUR)
    execute(owner, statement)
    (hole, _) = judge(owner, own_server)
    assert (hole.object, hole.part, hole.severity) == (*place, Severity.ISOLATION)
    assert "request.jwt.claims" in hole.sentence


def test_the_older_form_of_neon_auth(own_server: Embedded, owner: URL) -> None:
    """The owner of the database owns it, so it shows; the note says what it is."""
    execute(owner, "CREATE SCHEMA neon_auth", "CREATE TABLE neon_auth.users_sync (id text)")
    (note,) = judge(owner, own_server)
    assert "a copy of another service's users" in note.sentence
    assert any(fact.object == "table neon_auth.users_sync" for fact in facts_of(owner))


# ── what gives rows away ──────────────────────────────────────────────────────────────────────────

SECDEF = (
    "CREATE FUNCTION every() RETURNS SETOF todo LANGUAGE sql SECURITY DEFINER"
    " AS 'SELECT * FROM public.todo'"
)

EXPOSURES = {
    "view": (
        ["CREATE VIEW leak AS SELECT * FROM todo", "GRANT SELECT ON leak TO guest"],
        "view leak",
    ),
    "view-column": (
        ["CREATE VIEW leak AS SELECT * FROM todo", "GRANT SELECT (title) ON leak TO PUBLIC"],
        "view leak",
    ),
    "view-of-a-view": (
        [
            "CREATE VIEW hidden AS SELECT * FROM todo",
            "CREATE VIEW leak AS SELECT * FROM hidden",
            "GRANT SELECT ON leak TO guest",
        ],
        "view leak",
    ),
    "view-that-turned-it-off": (
        [
            "CREATE VIEW leak WITH (security_invoker = off) AS SELECT * FROM todo",
            "GRANT SELECT ON leak TO guest",
        ],
        "view leak",
    ),
    "view-in-a-schema": (
        [
            "CREATE SCHEMA other",
            "CREATE VIEW other.leak AS SELECT count(*) FROM session",
            "GRANT SELECT ON other.leak TO todo_app",
        ],
        "view other.leak",
    ),
    "materialized-view": (
        ["CREATE MATERIALIZED VIEW leak AS SELECT * FROM todo", "GRANT SELECT ON leak TO guest"],
        "materialized view leak",
    ),
    "rule": (
        [
            "CREATE TABLE other (id uuid)",
            "CREATE RULE copying AS ON INSERT TO other DO ALSO SELECT * FROM todo",
            "GRANT INSERT ON other TO guest",
        ],
        "table other",
    ),
    "function": ([SECDEF], "function every()"),
    "function-for-one": (
        [SECDEF, "REVOKE EXECUTE ON FUNCTION every() FROM PUBLIC",
         "GRANT EXECUTE ON FUNCTION every() TO guest"],
        "function every()",
    ),
    "publication": (["CREATE PUBLICATION feed FOR TABLE todo, tag"], "publication feed"),
}  # fmt: skip


@pytest.mark.sample(3)
@pytest.mark.parametrize(("statements", "heading"), EXPOSURES.values(), ids=EXPOSURES.keys())
def test_what_gives_rows_away(
    own_server: Embedded, owner: URL, statements: Sequence[str], heading: str
) -> None:
    """Each is reported once, also to a login, and not after its SQL."""
    assert judge(owner, own_server) == []
    execute(owner, *statements)
    (one,) = judge(owner, own_server)
    assert judge(owner.set(username="guest"), own_server) == [one]
    assert (one.object, one.was, one.severity) == (heading, None, Severity.ISOLATION)
    assert not one.sentence.endswith(".")
    execute(owner, one.sql or "")
    assert judge(owner, own_server) == []


@pytest.mark.parametrize(
    ("statement", "heading"),
    [
        ("CREATE PUBLICATION everything FOR ALL TABLES", "publication everything"),
        ("CREATE PUBLICATION of_public FOR TABLES IN SCHEMA public", "publication of_public"),
        (SECDEF, "function every()"),
        (
            "CREATE SCHEMA made CREATE VIEW leak AS SELECT * FROM public.todo"
            " GRANT SELECT ON leak TO guest",
            "view made.leak",
        ),
        (
            "CREATE FUNCTION neon.every() RETURNS SETOF public.todo LANGUAGE sql SECURITY DEFINER"
            " AS 'SELECT * FROM public.todo'",
            "function neon.every()",
        ),
    ],
    ids=["all-tables", "schema", "function", "view-in-its-schema", "function-in-its-schema"],
)
def test_what_a_superuser_made(
    own_server: Embedded, superuser: URL, owner: URL, statement: str, heading: str
) -> None:
    """A superuser's objects give rows away as well, even where a snapshot leaves them out."""
    execute(superuser, *neon.COMPUTE, statement)
    (one,) = judge(owner, own_server)
    assert (one.object, one.severity) == (heading, Severity.ISOLATION)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE VIEW fine WITH (security_invoker = true) AS SELECT * FROM todo",
         "GRANT SELECT ON fine TO guest"],
        ["CREATE VIEW fine WITH (security_invoker) AS SELECT * FROM todo",
         "GRANT SELECT ON fine TO guest"],
        ["CREATE VIEW fine AS SELECT * FROM todo"],
        ["CREATE VIEW fine AS SELECT 1 AS one", "GRANT SELECT ON fine TO guest"],
        ["CREATE VIEW fine AS SELECT * FROM todo", "GRANT SELECT ON fine TO neon_superuser"],
        [SECDEF, "REVOKE EXECUTE ON FUNCTION every() FROM PUBLIC"],
        [SECDEF.replace("SECURITY DEFINER", "")],
        ["CREATE TABLE other (id integer)", "CREATE PUBLICATION fine FOR TABLE other"],
    ],
    ids=[
        "invoker",
        "invoker-without-a-value",
        "not-granted",
        "no-table-of-ours",
        "granted-to-one-that-sees-all",
        "not-executable",
        "function-of-its-caller",
        "publication-of-another-table",
    ],
)  # fmt: skip
def test_what_gives_nothing_away(
    own_server: Embedded, owner: URL, statements: Sequence[str]
) -> None:
    """Objects that obey row security, or that only the owner can reach, are not reported."""
    execute(owner, *statements)
    assert judge(owner, own_server) == []


def test_what_the_history_made_is_its_own(own_server: Embedded, owner: URL) -> None:
    """An object of the history is not judged here: schema check does that."""
    execute(owner, "CREATE VIEW ours AS SELECT * FROM todo", "GRANT SELECT ON ours TO todo_app")
    owned = headings(own_server) | {"view ours"}

    def look(connection: Connection) -> list[Difference]:
        return exposures.find(connection, owned)

    assert read.read(owner, look) == []
    assert read.read(owner, lambda one: exposures.find(one, owned - {"view ours"}))
