"""`schema doctor` says what a deploy then does.

The theory: doctor calls a database ready if and only if the deploy that follows ends with exit code
0. Each case changes a database in one way; doctor's verdict is held against a real deploy. The
cases are written from the history: every mutation of the snapshot, every object missing, every
object of the next revisions there already; and by hand, what people found.
"""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from migrations import snapshot
from migrations.snapshot.fingerprints import BASE
from schema.ddl import objects
from schema.ddl.apply import own_names
from schema.ddl.steps import steps
from schema.live import doctor, history_schemas
from schema.postgres.connection import connect, driver_of
from schema.postgres.embedded import OWNER, embedded
from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import Server, open_server
from schema.project import ROOT, scripts
from schema.revisions.history import revisions_oldest_first
from schema.revisions.runner import upgrade
from schema.roles import APPLICATION, BETTER_AUTH
from tests.schema.test_mutations import MUTATIONS
from tests.support.alembic_process import deploy
from tests.support.drift import paste
from tests.support.repo_copy import Launcher

REVISIONS = [one.revision for one in revisions_oldest_first(scripts())]
EARLIER = REVISIONS[len(REVISIONS) // 2]
"""A revision that has tables, and revisions to come."""
STARTS = (BASE, EARLIER, REVISIONS[-1])

HISTORY = history_schemas.committed(scripts())
INCOMPLETE = [one for one in REVISIONS if HISTORY[REVISIONS[-1]].keys() - HISTORY[one].keys()][-1]
"""The last revision after which objects are made."""

SAMPLE = 80
"""The quick tier tries one of so many generated cases."""

BY_HAND = {
    "nothing": "",
    "a table in the way": "CREATE TABLE tag (id int)",
    "a view in the way": "CREATE VIEW tag AS SELECT 1 AS one",
    "a type in the way": "CREATE TYPE tag AS ENUM ('a')",
    "a function in the way": "CREATE FUNCTION uuid_v7() RETURNS int LANGUAGE sql RETURN 1",
    "an index's name in the way": (
        "CREATE TABLE other (a int); CREATE INDEX todo_tag_user_id_tag_id_todo_id_idx ON other (a)"
    ),
    "an event trigger": (
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE"
        " 'refused'; END $$; CREATE EVENT TRIGGER refuse ON ddl_command_start"
        " EXECUTE FUNCTION refuse()"
    ),
    "no key": "ALTER TABLE alembic_version DROP CONSTRAINT alembic_version_pkc",
    "row security off": "ALTER TABLE todo DISABLE ROW LEVEL SECURITY",
    "a column more": "ALTER TABLE todo ADD COLUMN extra int",
    "a column less": "ALTER TABLE todo DROP COLUMN description",
    "a column of another type": "ALTER TABLE todo ALTER COLUMN title TYPE varchar(500)",
    "a view more": "CREATE VIEW extra AS SELECT id FROM todo",
    "an index more": "CREATE INDEX extra ON todo (title)",
    "a trigger more": (
        "CREATE TRIGGER extra BEFORE INSERT ON todo FOR EACH ROW EXECUTE FUNCTION set_updated_at()"
    ),
    "a table's owner": f"ALTER TABLE todo OWNER TO {BETTER_AUTH}",
    "a function's owner": f"ALTER FUNCTION set_updated_at() OWNER TO {BETTER_AUTH}",
    "the schema's owner": f"ALTER SCHEMA public OWNER TO {BETTER_AUTH}",
    "PUBLIC may read": "GRANT SELECT ON todo TO PUBLIC",
    "PUBLIC may create": "GRANT CREATE ON SCHEMA public TO PUBLIC",
    "PUBLIC may make temporary tables": "GRANT TEMPORARY ON DATABASE :database TO PUBLIC",
    "default privileges": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE :owner GRANT SELECT ON TABLES TO PUBLIC"
    ),
    "default privileges of functions": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE :owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"
    ),
    "the database's search_path": "ALTER DATABASE :database SET search_path = nowhere",
    "the database's row_security": "ALTER DATABASE :database SET row_security = off",
    "the database's work_mem": "ALTER DATABASE :database SET work_mem = '8MB'",
    "read-only": "ALTER DATABASE :database SET default_transaction_read_only = on",
    "a comment": "COMMENT ON TABLE todo IS 'Another'",
    "another team's schema": "CREATE SCHEMA billing; CREATE TABLE billing.invoice (id int)",
    "another team's table": "CREATE TABLE invoice (id int)",
    "another team's function": "CREATE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1",
    "another team's type": "CREATE TYPE mood AS ENUM ('up')",
    "a foreign key on ours": 'CREATE TABLE bill (u uuid REFERENCES "user" ON DELETE CASCADE)',
    "no ADMIN on the group roles": f"REVOKE ADMIN OPTION FOR {APPLICATION} FROM :owner",
    "stamped too early": f"UPDATE alembic_version SET version_num = '{REVISIONS[0]}'",
    "stamped too late": f"UPDATE alembic_version SET version_num = '{REVISIONS[-1]}'",
    "two revisions": f"INSERT INTO alembic_version VALUES ('{REVISIONS[0]}')",
    "an unknown revision": "UPDATE alembic_version SET version_num = 'ffff'",
    "no revision": "DELETE FROM alembic_version",
    "no Alembic table": "DROP TABLE alembic_version",
}


@dataclass(frozen=True)
class Stage:
    """A server of the test's own, whose roles the cases change, and another for the copies."""

    superuser: URL
    templates: dict[str, URL]
    copies: Server

    @contextmanager
    def at(self, revision: str) -> Iterator[tuple[URL, URL]]:
        """Make a database with the history up to a revision; the owner's and superuser's URLs."""
        name = f"case_{secrets.token_hex(4)}"
        template = self.templates[revision]
        paste(self.superuser, f"CREATE DATABASE {name} TEMPLATE {template.database} OWNER {OWNER}")
        # CREATE DATABASE copies no privileges.
        copied = "REVOKE TEMPORARY" if revision != BASE else "GRANT CONNECT"
        to = "FROM" if revision != BASE else "TO"
        paste(self.superuser, f"{copied} ON DATABASE {name} {to} PUBLIC")
        try:
            yield template.set(database=name), self.superuser.set(database=name)
        finally:
            paste(self.superuser, f"DROP DATABASE {name} WITH (FORCE)")
            for superuser in (self.superuser, self.copies.superuser):
                for role in (APPLICATION, BETTER_AUTH):
                    paste(superuser or self.superuser, _restored(role))


def _restored(role: str) -> str:
    return f"""
    DO $$
    DECLARE command text;
    BEGIN
      IF to_regrole('{role}') IS NULL THEN RETURN; END IF;
      ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION;
      FOR command IN
        SELECT format('REVOKE %I FROM {role} GRANTED BY %I', g.rolname, b.rolname)
        FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid
        JOIN pg_roles AS b ON b.oid = m.grantor
        WHERE m.member = '{role}'::regrole
      LOOP EXECUTE command; END LOOP;
      GRANT {role} TO {OWNER} WITH ADMIN OPTION;
    END $$
    """


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A server with a template at each start."""
    with ExitStack() as stack:
        started = stack.enter_context(embedded())
        copies = stack.enter_context(open_server(None, VERSIONS[0], lambda _step: None))
        templates = {}
        for number, revision in enumerate((*STARTS, INCOMPLETE)):
            templates[revision] = started.owner.set(database=f"start_{number}")
            paste(started.owner, f"CREATE DATABASE start_{number}")
            with connect(templates[revision]) as connection:
                done = REVISIONS[: REVISIONS.index(revision) + 1] if revision != BASE else []
                upgrade(connection, scripts(), done)
                connection.commit()
        yield Stage(started.superuser, templates, copies)


def generated() -> Iterator[tuple[str, str, str]]:
    """Yield each generated case: its name, where it starts, what it does."""
    for name, mutation in MUTATIONS.items():
        yield f"{name}", EARLIER, mutation.sql


def sampled(cases: list[tuple[str, str, str]]) -> list[Any]:
    """Mark what the quick tier leaves out."""
    return [
        pytest.param(
            *case,
            id=f"{case[0]} at {case[1]}",
            marks=() if number % SAMPLE == 0 else pytest.mark.slow,
        )
        for number, case in enumerate(cases)
    ]


HAND = [(name, start, sql) for name, sql in BY_HAND.items() for start in STARTS]


@pytest.mark.parametrize(("name", "start", "sql"), sampled([*generated(), *HAND]))
def test_doctor_agrees_with_the_deploy(  # noqa: PLR0913, PLR0917  # the case and its fixtures
    stage: Stage,
    run_: Launcher,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    start: str,
    sql: str,
) -> None:
    """Ready means exit code 0, and nothing else does."""
    with stage.at(start) as (url, superuser):
        text = sql.replace(":database", f'"{url.database}"').replace(":owner", str(url.username))
        try:
            paste(superuser, text)
        except psycopg.Error:
            pytest.skip(f"this cannot be done at {start}: {name}")
        assert_agreed(stage, run_, monkeypatch, url)


def assert_agreed(stage: Stage, run_: Launcher, monkeypatch: pytest.MonkeyPatch, url: URL) -> None:
    """Hold doctor's verdict against a deploy."""
    monkeypatch.setattr(
        history_schemas, "open_closest_server", lambda _live, _progress: nullcontext(stage.copies)
    )
    examined = doctor.examine(url, scripts())
    checks = [*examined.checks, *doctor.compared(examined, scripts(), lambda _step: None)]
    fix = [sentence for check in checks for sentence in check.fix]
    deployed = deploy(run_, ROOT, url)
    assert doctor.ready(checks) == (deployed.code == 0), f"{fix}\n{deployed.everything}"


@pytest.fixture
def run_(run: Launcher) -> Launcher:
    """The launcher, under a name that no function here has."""
    return run


def _facts(url: URL) -> snapshot.Snapshot:
    with connect(url) as connection:
        return snapshot.read(connection)


@pytest.mark.slow
def test_every_object_that_is_there_already(
    stage: Stage, run_: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each object of the next revisions, made beforehand exactly as they make it."""
    now, head = _facts(stage.templates[INCOMPLETE]), _facts(stage.templates[REVISIONS[-1]])
    known = {fact.object for fact in now}
    headings = sorted({fact.object for fact in head if fact.object not in known})
    assert headings
    for heading in headings:
        with stage.at(INCOMPLETE) as (url, _):
            wanted = (*now, *(fact for fact in head if fact.object == heading))
            with connect(url) as connection:
                names = own_names(connection)
                for step in steps(now, tuple(sorted(wanted)), names):
                    for statement in step.statements:
                        try:
                            driver_of(connection).execute(statement.encode())
                        except psycopg.Error:
                            connection.rollback()
                connection.commit()
            assert_agreed(stage, run_, monkeypatch, url)


@pytest.mark.slow
def test_every_object_that_is_missing(
    stage: Stage, run_: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each table, function and view of the revision, dropped with what depends on it."""
    for heading in sorted({fact.object for fact in _facts(stage.templates[EARLIER])}):
        kind, name = objects.split_heading(heading)
        if kind not in {"table", "function", "view", "type"}:
            continue
        with stage.at(EARLIER) as (url, superuser):
            paste(superuser, f"DROP {kind} {name} CASCADE")
            assert_agreed(stage, run_, monkeypatch, url)
