"""The rules of ownership, and user isolation: each rule is broken once.

SQL breaks each rule in its own database; in the slow tier a revision in a copy runs the same SQL.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from sqlalchemy import URL, Table

from models import metadata
from models.access import Access, Rule
from schema.access import probe
from schema.checks import comments, isolation, ownership
from schema.checks.result import CheckResult
from schema.postgres.connection import connect
from schema.postgres.embedded import Embedded, embedded
from schema.postgres.scratch import Server, open_url
from tests.support.repo_copy import (
    CHECK,
    COMMAND,
    IRREVERSIBLE,
    Checkout,
    Launcher,
    Result,
    copy_to,
    sql,
)

# ── ownership and isolation, by SQL on a database at head ─────────────────────────────────────────

NOTE = """
CREATE TABLE note (
  user_id uuid NOT NULL REFERENCES "user" ON DELETE CASCADE,
  id uuid NOT NULL DEFAULT uuid_v7(),
  title text NOT NULL,
  PRIMARY KEY (user_id, id)
);
ALTER TABLE note ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY note_owner ON note TO todo_app USING (user_id = (SELECT app_user_id()));
GRANT SELECT, INSERT, UPDATE, DELETE ON note TO todo_app;
"""
"""A correct owned table; some cases break it."""


def note(old: str, new: str) -> str:
    """Break the correct owned table by replacing a text, which must exist."""
    assert old in NOTE
    return NOTE.replace(old, new)


class Case(NamedTuple):
    """One way to break a database, and all messages of the ownership check, in full."""

    name: str
    sql: str
    messages: tuple[str, ...]
    isolated: bool = True
    """Whether the isolation check still passes."""


OWNED = Access("owned", (Rule("note_owner", "todo_app", "user_id = {me}"),))
NOT_IDENTITY = "does not compare user_id with (SELECT app_user_id())."
NOT_REFERENCE = 'user_id is not a validated, NOT NULL reference to "user" with ON DELETE CASCADE.'
OWNERS_RIGHTS = "which runs with its owner's rights."
DEFINER = "LANGUAGE sql SECURITY DEFINER RETURN (SELECT count(*) FROM todo)"

OWNERSHIP = (
    Case(
        "table-of-nobody",
        "CREATE TABLE word (id uuid PRIMARY KEY)",
        ("No model declares who may access table word.",),
    ),
    Case(
        "table-of-nobody-in-another-schema",
        "CREATE SCHEMA other; CREATE TABLE other.todo (id uuid PRIMARY KEY)",
        ("No model declares who may access table other.todo.",),
    ),
    Case(
        "row-security-not-forced",
        "ALTER TABLE todo NO FORCE ROW LEVEL SECURITY",
        ("Row security is not enabled and forced on table todo.",),
    ),
    Case(
        "row-security-not-enabled",
        "ALTER TABLE todo DISABLE ROW LEVEL SECURITY",
        ("Row security is not enabled and forced on table todo.",),
        isolated=False,
    ),
    Case(
        "row-security-not-enabled-on-better-auths",
        "ALTER TABLE session DISABLE ROW LEVEL SECURITY",
        ("Row security is not enabled and forced on table session.",),
        isolated=False,
    ),
    Case(
        "no-policy",
        "DROP POLICY todo_owner ON todo",
        ("Table todo has no policy.",),
        isolated=False,
    ),
    Case(
        "no-policy-on-better-auths",
        "DROP POLICY session_auth ON session",
        ("Table session has no policy.",),
        isolated=False,
    ),
    Case(
        "another-policy-lets-all-rows-through",
        "CREATE POLICY todo_all ON todo FOR SELECT TO todo_app USING (true)",
        (f"Policy todo_all on table todo {NOT_IDENTITY}",),
        isolated=False,
    ),
    Case(
        "policy-checks-nothing",
        "ALTER POLICY todo_owner ON todo WITH CHECK (true)",
        (f"Policy todo_owner on table todo {NOT_IDENTITY}",),
        isolated=False,
    ),
    Case(
        "policy-calls-its-function-for-each-row",
        "ALTER POLICY todo_owner ON todo USING (user_id = app_user_id())",
        (f"Policy todo_owner on table todo {NOT_IDENTITY}",),
    ),
    Case(
        "key-does-not-lead-with-its-user",
        note("PRIMARY KEY (user_id, id)", "PRIMARY KEY (id, user_id)"),
        (
            "The primary key of table note does not lead with user_id.",
            "No index leads with the columns of foreign key note_user_id_fkey on note:"
            ' FOREIGN KEY (user_id) REFERENCES "user"(id) ON DELETE CASCADE.',
        ),
    ),
    Case(
        "no-key",
        note("PRIMARY KEY (user_id, id)", "UNIQUE (user_id, id)"),
        ("The primary key of table note does not lead with user_id.",),
    ),
    Case(
        "reference-does-not-cascade",
        note("ON DELETE CASCADE", ""),
        (f"note.{NOT_REFERENCE}",),
    ),
    Case(
        "no-reference", note('REFERENCES "user" ON DELETE CASCADE', ""), (f"note.{NOT_REFERENCE}",)
    ),
    Case(
        "reference-is-not-valid",
        note('REFERENCES "user" ON DELETE CASCADE', "")
        + "ALTER TABLE note ADD FOREIGN KEY (user_id)"
        + ' REFERENCES "user" ON DELETE CASCADE NOT VALID',
        (f"note.{NOT_REFERENCE}",),
    ),
    Case(
        "reference-without-its-owner",
        note("title text NOT NULL,", "title text NOT NULL, todo uuid,")
        + "ALTER TABLE note ADD COLUMN whose uuid;"
        + "ALTER TABLE note ADD FOREIGN KEY (whose, todo) REFERENCES todo ON DELETE CASCADE;"
        + "CREATE INDEX ON note (whose, todo)",
        (
            "Foreign key note_whose_todo_fkey on table note references an owned table without its"
            " user_id.",
        ),
    ),
    Case(
        "unindexed-foreign-key",
        note("title text NOT NULL,", "title text NOT NULL, todo uuid,")
        + "ALTER TABLE note ADD FOREIGN KEY (user_id, todo) REFERENCES todo ON DELETE CASCADE",
        (
            "No index leads with the columns of foreign key note_user_id_todo_fkey on note:"
            " FOREIGN KEY (user_id, todo) REFERENCES todo(user_id, id) ON DELETE CASCADE.",
        ),
    ),
    Case(
        "partially-indexed-foreign-key",
        'DROP INDEX "session_userId_idx";'
        "CREATE INDEX ON session (\"userId\") WHERE token > 'a';"
        'CREATE INDEX ON session (token, "userId")',
        (
            "No index leads with the columns of foreign key session_userId_fkey on session:"
            ' FOREIGN KEY ("userId") REFERENCES "user"(id) ON DELETE CASCADE.',
        ),
    ),
    Case("truncate", "GRANT TRUNCATE ON todo TO todo_app", ("todo_app has TRUNCATE on todo.",)),
    Case(
        "references-and-trigger",
        "GRANT REFERENCES, TRIGGER ON todo TO todo_app",
        ("todo_app has REFERENCES, TRIGGER on todo.",),
    ),
    Case("maintain", "GRANT MAINTAIN ON todo TO todo_app", ("todo_app has MAINTAIN on todo.",)),
    Case(
        "application-reads-sessions",
        "GRANT SELECT ON session TO todo_app",
        ("todo_app has SELECT on session.",),
    ),
    Case(
        "application-reads-one-column",
        "GRANT SELECT (token) ON session TO todo_app",
        ("todo_app has SELECT on session.",),
    ),
    Case(
        "application-changes-one-column-of-user",
        'GRANT UPDATE (email) ON "user" TO todo_app',
        ("todo_app has UPDATE on user.",),
    ),
    Case(
        "application-changes-alembics-table",
        "GRANT UPDATE ON alembic_version TO todo_app",
        ("todo_app has UPDATE on alembic_version.",),
    ),
    Case(
        "better-auth-reads-todos",
        "GRANT SELECT ON todo TO todo_auth",
        ("todo_auth has SELECT on todo.",),
    ),
    Case(
        "public-has-a-table",
        "GRANT SELECT ON todo TO PUBLIC",
        ("todo_auth has SELECT on todo.", "PUBLIC has SELECT on table todo."),
    ),
    Case(
        "public-has-a-column",
        "GRANT SELECT (title) ON todo TO PUBLIC",
        ("todo_auth has SELECT on todo.", "PUBLIC has SELECT on column todo.title."),
    ),
    Case(
        "public-has-a-function",
        "GRANT EXECUTE ON FUNCTION app_user_id() TO PUBLIC",
        ("PUBLIC has EXECUTE on function app_user_id().",),
    ),
    Case(
        "public-has-every-new-function",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1",
        ("PUBLIC has EXECUTE on function one().",),
    ),
    Case(
        "public-has-the-schema",
        "GRANT USAGE ON SCHEMA public TO PUBLIC",
        ("PUBLIC has USAGE on schema public.",),
    ),
    Case(
        "public-creates-in-the-schema",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        (
            "PUBLIC has CREATE on schema public.",
            "todo_app has CREATE on schema public.",
            "todo_auth has CREATE on schema public.",
        ),
    ),
    Case(
        "public-has-temporary-tables",
        "DO $$BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database());"
        " END$$",
        (
            "PUBLIC has TEMPORARY on the database.",
            "todo_app has TEMPORARY on the database.",
            "todo_auth has TEMPORARY on the database.",
        ),
    ),
    Case(
        "application-creates-schemas",
        "DO $$BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO todo_app', current_database());"
        " END$$",
        ("todo_app has CREATE on the database.",),
    ),
    Case(
        "view-with-its-owners-rights",
        "CREATE VIEW everything AS SELECT * FROM todo; GRANT SELECT ON everything TO todo_app",
        (f"todo_app may use view everything, {OWNERS_RIGHTS}",),
    ),
    Case(
        "materialized-view",
        "CREATE MATERIALIZED VIEW everything AS SELECT * FROM todo;"
        " GRANT SELECT ON everything TO todo_app",
        (
            "todo_app has SELECT on everything.",
            f"todo_app may use materialized view everything, {OWNERS_RIGHTS}",
        ),
    ),
    Case(
        "function-with-its-owners-rights",
        f"CREATE FUNCTION every() RETURNS bigint {DEFINER};"
        " REVOKE ALL ON FUNCTION every() FROM PUBLIC;"
        " GRANT EXECUTE ON FUNCTION every() TO todo_app",
        (f"todo_app may use SECURITY DEFINER function every(), {OWNERS_RIGHTS}",),
    ),
    Case(
        "everybodys-function-with-its-owners-rights",
        f"CREATE FUNCTION every() RETURNS bigint {DEFINER}",
        (
            "PUBLIC has EXECUTE on function every().",
            f"todo_app may use SECURITY DEFINER function every(), {OWNERS_RIGHTS}",
            f"todo_auth may use SECURITY DEFINER function every(), {OWNERS_RIGHTS}",
        ),
    ),
    Case(
        "rule",
        "CREATE RULE watch AS ON UPDATE TO todo DO ALSO SELECT 1",
        (f"todo_app may use rule watch on todo, {OWNERS_RIGHTS}",),
        isolated=False,  # MERGE and ON CONFLICT do not work with rules
    ),
)

ISOLATION = (
    Case(
        "better-auths-user-table-lets-all-rows-through",
        'CREATE POLICY user_all ON "user" FOR SELECT TO todo_app USING (true)',
        (
            "todo_app reaches rows of user that it must not reach, by SELECT, FETCH from a cursor,"
            " COPY … TO. The model declares: id = the acting user (read).",
            "A transaction without a user sees rows of user.",
        ),
    ),
    Case(
        "nobody-is-somebody",
        "CREATE OR REPLACE FUNCTION app_user_id() RETURNS uuid LANGUAGE sql STABLE RETURN coalesce("
        "nullif(current_setting('app.user_id', true), '')::uuid,"
        " gen_random_uuid())",
        ("app_user_id() is not NULL in a transaction without a user.",),
    ),
    Case(
        "garbage-is-nobody",
        "CREATE OR REPLACE FUNCTION app_user_id() RETURNS uuid LANGUAGE sql STABLE RETURN CASE WHEN"
        " current_setting('app.user_id', true) ~ '^[0-9a-f-]{36}$'"
        " THEN current_setting('app.user_id', true)::uuid END",
        ("A transaction whose app.user_id is not a uuid can read todo.",),
    ),
    Case(
        "application-may-not-delete-its-own",
        "REVOKE DELETE ON todo FROM todo_app",
        (
            "todo_app does not reach the rows of todo that it needs, by DELETE,"
            " DELETE … RETURNING, MERGE … DELETE (permission denied for table todo).",
        ),
    ),
    Case(
        "application-may-not-read-its-own",
        "REVOKE SELECT ON tag FROM todo_app",
        ("permission denied for table tag",),
    ),
    Case(
        "application-may-not-ask-whom-it-acts-for",
        "REVOKE EXECUTE ON FUNCTION app_user_id() FROM todo_app",
        ("permission denied for function app_user_id",),
    ),
    Case(
        "application-may-not-enter-the-schema",
        "REVOKE USAGE ON SCHEMA public FROM todo_app",
        ("permission denied for schema public",),
    ),
)

CHILD = (
    NOTE.replace("note", "step")
    .replace("title text NOT NULL,", "todo_id uuid NOT NULL, name varchar(5) NOT NULL UNIQUE,")
    .replace("\n);", ",\n  FOREIGN KEY (user_id, todo_id) REFERENCES todo ON DELETE CASCADE\n);")
) + "CREATE INDEX ON step (user_id, todo_id);"

COMMENTS = (
    Case("table", "COMMENT ON TABLE todo IS NULL", ("TABLE todo has no comment.",)),
    Case(
        "column",
        """COMMENT ON COLUMN "user"."emailVerified" IS ' '""",
        ('COLUMN "user"."emailVerified" has no comment.',),
    ),
    Case(
        "function",
        "COMMENT ON FUNCTION app_user_id() IS NULL",
        ("FUNCTION app_user_id() has no comment.",),
    ),
    Case(
        "new-view",
        "CREATE VIEW titles AS SELECT title FROM todo",
        ("COLUMN titles.title has no comment.", "TABLE titles has no comment."),
    ),
)

GOOD = (
    Case("unchanged", "SELECT 1", ()),
    Case("owned-table", NOTE, ()),
    Case("owned-child-of-an-owned-table", CHILD, ()),
    Case(
        "view-with-its-users-rights",
        "CREATE VIEW open_todo WITH (security_invoker = true) AS"
        " SELECT * FROM todo WHERE completed_at IS NULL; GRANT SELECT ON open_todo TO todo_app",
        (),
    ),
    Case(
        "function-with-its-users-rights",
        "CREATE FUNCTION every() RETURNS bigint LANGUAGE sql RETURN (SELECT count(*) FROM todo);"
        " REVOKE ALL ON FUNCTION every() FROM PUBLIC;"
        " GRANT EXECUTE ON FUNCTION every() TO todo_app",
        (),
    ),
    Case(
        "restrictive-policy",
        "CREATE POLICY todo_again ON todo AS RESTRICTIVE TO todo_app"
        " USING (user_id = (SELECT app_user_id()))",
        (),
    ),
)


def execute(url: URL, statements: str) -> None:
    """Run a script with psycopg: SQLAlchemy would interpret its colons and per cent signs."""
    with connect(url, autocommit=True) as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute(statements)


def major(url: URL) -> int:
    """The server's major version."""
    with connect(url) as connection:
        return int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10000


def messages(outcome: CheckResult) -> list[str]:
    """List what failed."""
    assert all(failure.remedy for failure in outcome.failures)
    return [failure.message for failure in outcome.failures]


@pytest.fixture(autouse=True)
def _declared(request: pytest.FixtureRequest) -> Iterator[None]:
    """Declare the tables of the rule that have a user_id as owned, as their models would."""
    callspec = getattr(request.node, "callspec", None)
    rule = callspec.params.get("rule") if callspec else None
    statements = rule.sql if rule is not None else ""
    made = [
        Table(
            name,
            metadata,
            info={"access": OWNED},
        )
        for name, body in re.findall(r"CREATE TABLE (\w+) \(([^;]*)", statements)
        if "user_id" in body
    ]
    yield
    for table in made:
        metadata.remove(table)


@pytest.mark.sample(20)
@pytest.mark.parametrize("rule", OWNERSHIP, ids=lambda rule: rule.name)
def test_ownership_rule(head: URL, rule: Case) -> None:
    """Each rule of ownership reports its violation, and there is no other failure."""
    if rule.name == "maintain" and major(head) < 17:
        pytest.skip("PostgreSQL 16 has no such privilege")
    execute(head, rule.sql)
    assert sorted(messages(ownership.check(head))) == sorted(rule.messages)


@pytest.mark.slow
@pytest.mark.parametrize("rule", OWNERSHIP, ids=lambda rule: rule.name)
def test_whether_rows_leak(head: URL, rule: Case) -> None:
    """The isolation check also fails if the violation shows or hides rows."""
    if rule.name == "maintain" and major(head) < 17:
        pytest.skip("PostgreSQL 16 has no such privilege")
    execute(head, rule.sql)
    assert (messages(isolation.check(probe.probe(head))) == []) is rule.isolated


@pytest.mark.sample(3)
@pytest.mark.parametrize("rule", ISOLATION, ids=lambda rule: rule.name)
def test_isolation_finds_what_no_rule_does(head: URL, rule: Case) -> None:
    """The isolation check finds wrong access even if every rule of ownership is followed."""
    execute(head, rule.sql)
    assert messages(ownership.check(head)) == []
    found = messages(isolation.check(probe.probe(head)))
    assert found
    for message in rule.messages:
        assert any(message in one for one in found), found


@pytest.mark.parametrize("rule", COMMENTS, ids=lambda rule: rule.name)
def test_everything_is_described(head: URL, rule: Case) -> None:
    """A missing comment is reported."""
    assert messages(comments.check(head)) == []
    execute(head, rule.sql)
    assert messages(comments.check(head)) == list(rule.messages)


@pytest.mark.sample(2)
@pytest.mark.parametrize("rule", GOOD, ids=lambda rule: rule.name)
def test_ownership_accepts(head: URL, rule: Case) -> None:
    """A change that keeps users isolated has no failure."""
    execute(head, rule.sql)
    assert messages(ownership.check(head)) == []
    assert messages(isolation.check(probe.probe(head))) == []


QUICK_COPIES = {
    "another-policy-lets-all-rows-through",
}
"""The cases above that the quick tier runs with the whole command too."""


@pytest.mark.parametrize(
    ("rule", "seen_by"),
    [
        pytest.param(
            rule,
            check,
            id=f"{check}-{rule.name}",
            marks=() if rule.name in QUICK_COPIES else pytest.mark.slow,
        )
        for check, rules in (
            ("ownership", OWNERSHIP),
            ("isolation", ISOLATION),
            ("comments", COMMENTS),
        )
        for rule in rules
    ],
)
def test_revision_that_breaks_a_rule(  # noqa: PLR0913, PLR0917  # each is a fixture
    run: Launcher,
    copy: Checkout,
    check: Callable[[], Result],
    server: Server,
    rule: Case,
    seen_by: str,
) -> None:
    """If a revision breaks the rule, that check fails, even with a new schema.txt."""
    copy.add(sql(rule.sql), IRREVERSIBLE)
    url = server.maintenance.render_as_string(hide_password=False)
    fresh = run.run(copy.root, "snapshot", "--database-url", url, code=COMMAND)
    assert fresh.code == 0, fresh.everything
    result = check()
    assert result.code == 1, result.everything
    failed = set(result.checks("✗ fails"))
    assert seen_by in failed, result.everything
    assert not failed & {"history", "upgrade head", "round trip", "generated files"}, (
        result.everything
    )
    for message in rule.messages:
        assert message in result.out, result.everything


# ── roles belong to the cluster: these tests have their own server ────────────────────────────────


@pytest.fixture(scope="module")
def own_server() -> Iterator[Embedded]:
    """A server whose group roles a test may change."""
    with embedded() as started:
        yield started


@pytest.fixture(scope="module")
def own_head(own_server: Embedded, run: Launcher, tmp_path_factory: pytest.TempPathFactory) -> URL:
    """A database at head on that server."""
    copy = copy_to(tmp_path_factory.mktemp("own") / "checkout")
    with open_url(own_server.owner) as server:
        execute(server.maintenance, "CREATE DATABASE head")
    url = own_server.owner.set(database="head")
    code = (
        "import os, alembic.config;"
        f"os.environ['DATABASE_URL'] = {url.render_as_string(hide_password=False)!r};"
        "alembic.config.main(['upgrade', 'head'])"
    )
    result = run.run(copy.root, code=code)
    assert result.code == 0, result.everything
    return url


ROLES = {
    "superuser": (
        "ALTER ROLE todo_app SUPERUSER",
        "ALTER ROLE todo_app NOSUPERUSER",
        "SUPERUSER",
    ),
    "bypassrls": ("ALTER ROLE todo_app BYPASSRLS", "ALTER ROLE todo_app NOBYPASSRLS", "BYPASSRLS"),
    "login": ("ALTER ROLE todo_app LOGIN", "ALTER ROLE todo_app NOLOGIN", "LOGIN"),
    "createrole": (
        "ALTER ROLE todo_app CREATEROLE",
        "ALTER ROLE todo_app NOCREATEROLE",
        "CREATEROLE",
    ),
    "createdb": ("ALTER ROLE todo_app CREATEDB", "ALTER ROLE todo_app NOCREATEDB", "CREATEDB"),
    "replication": (
        "ALTER ROLE todo_app REPLICATION",
        "ALTER ROLE todo_app NOREPLICATION",
        "REPLICATION",
    ),
    "member": (
        "GRANT pg_read_all_settings TO todo_app",
        "REVOKE pg_read_all_settings FROM todo_app",
        "membership in pg_read_all_settings",
    ),
}


@pytest.mark.parametrize(("broken", "fixed", "what"), ROLES.values(), ids=ROLES.keys())
def test_group_role_has_too_much(
    own_server: Embedded, own_head: URL, broken: str, fixed: str, what: str
) -> None:
    """A group role that can bypass row security is reported by the check and by every upgrade."""
    superuser = own_server.superuser.set(database="head")
    assert messages(ownership.check(own_head)) == []
    execute(superuser, broken)
    try:
        assert any(
            one.startswith("todo_app has ") and what in one
            for one in messages(ownership.check(own_head))
        )
    finally:
        execute(superuser, fixed)


def test_group_role_owns_something(own_server: Embedded, own_head: URL) -> None:
    """A group role that owns a table is reported: an owner can bypass row security."""
    superuser = own_server.superuser.set(database="head")
    execute(superuser, NOTE + "ALTER TABLE note OWNER TO todo_app")
    try:
        found = messages(ownership.check(own_head))
        assert any("todo_app has ownership of note" in message for message in found), found
    finally:
        execute(superuser, "DROP TABLE note")


def test_upgrade_refuses_a_role_that_has_too_much(
    own_server: Embedded, own_head: URL, run: Launcher, copy: Checkout
) -> None:
    """An existing role of that name with more rights is granted nothing."""
    execute(own_server.superuser.set(database=own_head.database), "ALTER ROLE todo_auth BYPASSRLS")
    try:
        url = own_server.owner.render_as_string(hide_password=False)
        result = run.run(copy.root, *CHECK, "--database-url", url)
    finally:
        execute(own_server.superuser, "ALTER ROLE todo_auth NOBYPASSRLS")
    assert result.code == 1, result.everything
    assert result.checks("✗ fails") == ["upgrade head"]
    assert "role todo_auth has attributes or memberships that it must not have" in result.out
