"""`schema doctor`: problems are found before a deploy.

The theory: a new database and a deployed one are ready. Every problem that makes a deploy or its
verification fail is reported with its fix. The database is only read.
"""

import json
import re
import secrets
from collections.abc import Sequence

import pytest
from rich.console import Console
from sqlalchemy import URL

from schema.cli import doctor as doctor_page
from schema.errors import CannotRunError
from schema.live import doctor, environment, read
from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from schema.project import ROOT, scripts
from schema.revisions.history import revisions_oldest_first
from schema.revisions.runner import downgrade_step
from schema.revisions.runner import run as run_steps
from tests.support.alembic_process import deploy, execute
from tests.support.repo_copy import Launcher
from tests.support.servers import pooled

HEAD = scripts().get_current_head() or ""


def examine(url: URL) -> dict[str, environment.Check]:
    """Do the same as the command; return the checks by name."""
    examined = doctor.examine(url, scripts())
    found = [*examined.checks, *doctor.compared(examined, scripts(), lambda _step: None)]
    return {check.name: check for check in found}


def fixed(checks: dict[str, environment.Check]) -> dict[str, Sequence[str]]:
    """The problems to fix, by check."""
    return {name: check.fix for name, check in checks.items() if check.fix}


def test_a_new_database_is_ready(any_server: Server) -> None:
    """On each version, a new database has no problems and no notes."""
    with any_server.database() as url:
        checks = examine(url)
    assert not fixed(checks)
    assert not [check for check in checks.values() if check.notes]
    found = {name: check.found for name, check in checks.items()}
    assert found["revision"] == "empty: the first deploy builds everything"
    assert found["other objects"] == "none"
    assert found["server and role"].startswith(f"PostgreSQL {any_server.version}, UTF8; neond")


def test_a_deployed_database_is_ready(head: URL) -> None:
    """A deployed database is ready, and its revision is shown."""
    checks = examine(head)
    assert not fixed(checks)
    assert checks["revision"].found == f"at {HEAD}; that is the head"
    assert checks["group roles"].found == "todo_app, todo_auth"


@pytest.mark.parametrize(
    ("statement", "name", "fragment"),
    [
        ("DROP SCHEMA public", "server and role", "CREATE SCHEMA public if there is none."),
        (
            "REVOKE CREATE ON SCHEMA public FROM CURRENT_USER",
            "server and role",
            "neondb_owner may not create objects in the schema public",
        ),
        (
            "ALTER DATABASE {database} SET default_transaction_read_only = on",
            "server and role",
            "read-only (default_transaction_read_only)",
        ),
    ],
)
def test_what_keeps_a_new_database_from_a_deploy(
    empty: URL, statement: str, name: str, fragment: str
) -> None:
    """Each problem is reported in one sentence, with its fix."""
    execute(empty, statement.format(database=empty.database))
    fix = fixed(examine(empty))
    sentences = [sentence for sentence in fix.get(name, ()) if fragment in sentence]
    assert len(sentences) == 1, fix
    assert sentences[0].endswith(".")


def test_what_the_platform_owns_is_left_alone(
    empty: URL, superusers: dict[int, URL], server: Server
) -> None:
    """Neon's schemas are named, and are not a problem."""
    platform = superusers[read.major(server.version)].set(database=empty.database)
    execute(platform, "CREATE SCHEMA neon_auth", "CREATE TABLE neon_auth.x ()")
    checks = examine(empty)
    assert not fixed(checks)
    assert checks["schemas"].found.endswith("the platform's, not compared: neon_auth")


FOREIGN = (
    "CREATE SCHEMA reporting",
    "CREATE TYPE mood AS ENUM ('up')",
    "CREATE TABLE stray (id int)",
    "CREATE VIEW extra AS SELECT 1 AS one",
    "ALTER DATABASE {database} SET work_mem = '8MB'",
)
"""What the history does not own, and a deploy leaves alone."""


@pytest.mark.parametrize(
    "statement",
    [FOREIGN[0], *(pytest.param(one, marks=pytest.mark.slow) for one in FOREIGN[1:])],
)
def test_what_is_not_the_historys(empty: URL, head: URL, statement: str) -> None:
    """What no revision makes is named, and keeps neither a first nor a later deploy from it."""
    for url in (empty, head):
        execute(url, statement.format(database=url.database))
        checks = examine(url)
        assert not fixed(checks), checks
        assert checks["other objects"].found != "none"


IN_THE_WAY = (
    "CREATE TABLE todo (id int)",
    "CREATE FUNCTION app_user_id() RETURNS int LANGUAGE sql RETURN 1",
    "CREATE VIEW tag AS SELECT 1 AS one",
)


@pytest.mark.parametrize(
    "statement",
    [IN_THE_WAY[0], *(pytest.param(one, marks=pytest.mark.slow) for one in IN_THE_WAY[1:])],
)
def test_what_stands_in_the_way(run: Launcher, empty: URL, statement: str) -> None:
    """An object that the next revisions make is found by trying them on a copy."""
    execute(empty, statement)
    (fix,) = fixed(examine(empty)).values()
    assert len(fix) == 1
    deployed = deploy(run, ROOT, empty)
    assert deployed.code, deployed.everything


def test_what_everybody_may_read(head: URL) -> None:
    """A grant to PUBLIC is a difference: a deploy would end with exit code 3."""
    execute(head, "GRANT SELECT ON todo TO PUBLIC")
    (sentence,) = fixed(examine(head))["schema"]
    assert "exit code 3: table todo" in sentence
    assert "schema drift" in sentence


def test_a_wrong_stamp(head: URL) -> None:
    """A wrong stamp is fixed by a stamp, not by changes of the schema."""
    stamped = revisions_oldest_first(scripts())[0].revision
    execute(head, f"UPDATE alembic_version SET version_num = '{stamped}'")
    fix = fixed(examine(head))
    assert list(fix) == ["next deploy"]
    (sentence,) = fix["next deploy"]
    assert f"The schema is exactly {HEAD}; only alembic_version says {stamped}." in sentence
    assert f" run DATABASE_URL=… alembic stamp {HEAD}" in sentence


def test_an_unknown_revision(head: URL) -> None:
    """A revision that this checkout does not have is a problem."""
    execute(head, "UPDATE alembic_version SET version_num = 'ffff'")
    checks = examine(head)
    assert f"the schema is exactly {HEAD}. Check out the commit" in checks["schema"].fix[0]
    assert checks["revision"].found == "at ffff"
    assert "revision ffff, which is not in migrations/versions" in checks["revision"].fix[0]


def test_group_roles_that_revisions_refuse(
    empty: URL,
    superusers: dict[int, URL],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attributes, memberships and the grant option, tested on a role of its own."""
    name = f"group_{secrets.token_hex(4)}"
    monkeypatch.setattr(environment, "APPLICATION", name)
    superuser = superusers[read.major(server.version)]
    execute(superuser, f"CREATE ROLE {name} LOGIN CREATEDB IN ROLE pg_monitor")
    try:
        (sentences,) = fixed(examine(empty)).values()
    finally:
        execute(superuser, f"DROP ROLE {name}")
    assert [sentence.rpartition(" run ")[2] for sentence in sentences] == [
        f"ALTER ROLE {name} NOLOGIN NOCREATEDB.",
        f"REVOKE pg_monitor FROM {name}.",
    ]


def test_a_role_that_does_not_deploy(head: URL, application: URL) -> None:
    """The message tells an application's login to connect as the owner, and what it cannot see."""
    checks = examine(application)
    assert any("connect as neondb_owner" in one for one in checks["server and role"].fix)
    assert checks["sessions"].found.endswith("(pg_monitor shows the others)")
    execute(head, "REVOKE USAGE ON SCHEMA public FROM todo_app")
    blind = examine(application)
    assert blind["revision"].found == "not readable"
    assert "permission denied for schema public" in blind["revision"].fix[0]


def test_an_invalid_index(head: URL, superusers: dict[int, URL], server: Server) -> None:
    """An invalid index that no revision builds is drift, and left alone by a deploy."""
    execute(head, "CREATE INDEX extra ON todo (title)")
    execute(
        superusers[read.major(server.version)].set(database=head.database),
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'extra'::regclass",
    )
    assert list(fixed(examine(head))) == ["schema"]
    directory = scripts()
    with connect(head) as connection:
        last = revisions_oldest_first(directory)[-1]
        run_steps(connection, directory, lambda _context: [downgrade_step(directory, last)])
    checks = examine(head)
    assert list(fixed(checks)) == ["next deploy"]
    assert checks["indexes"].found == "invalid: extra"


def test_another_encoding(server: Server) -> None:
    """In a database with another encoding, the schema is not read."""
    name = f"ascii_{secrets.token_hex(4)}"
    execute(
        server.maintenance,
        f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0",
    )
    try:
        url = server.maintenance.set(database=name)
        assert list(fixed(examine(url))) == ["server and role"]
        with pytest.raises(CannotRunError, match="SQL_ASCII"):
            read.read(url, read.version)
    finally:
        execute(server.maintenance, f"DROP DATABASE {name} WITH (FORCE)")


# ── the way to the server ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("host", "mode", "encrypted", "fix", "notes"),
    [
        ("/tmp/socket", "prefer", False, 0, 0),  # noqa: S108  # nothing is made there
        ("127.0.0.1", "disable", False, 0, 0),
        ("ep-x.eu.neon.invalid", "disable", False, 1, 0),
        ("ep-x.eu.neon.invalid", "prefer", True, 1, 0),
        ("ep-x.eu.neon.invalid", "require", True, 0, 1),
        ("ep-x.eu.neon.invalid", "verify-ca", True, 0, 1),
        ("ep-x.eu.neon.invalid", "verify-full", True, 0, 0),
    ],
)
def test_encryption(host: str, mode: str, *, encrypted: bool, fix: int, notes: int) -> None:
    """Optional encryption is a problem; an unverified server is a note."""
    check = environment.encryption(host, mode, encrypted=encrypted)
    assert (len(check.fix), len(check.notes)) == (fix, notes)


def test_through_a_pooler(head: URL) -> None:
    """It works through a pooled host, and reports that a deploy does not."""
    with pooled(head) as through:
        named = through.set(host="ep-x-pooler.invalid").update_query_dict({"hostaddr": "127.0.0.1"})
        fix = fixed(examine(named))
    assert list(fix) == ["host", "encryption"]
    assert "remove -pooler from" in fix["host"][0]
    assert "sslmode=require" in fix["encryption"][0]


# ── the page and the command ──────────────────────────────────────────────────────────────────────


def test_page(empty: URL) -> None:
    """The page has a row per check, then the problems and notes."""
    checks = [
        *doctor.examine(empty, scripts()).checks,
        environment.Check("colour", "red", ["It is red; paint it."], ["It was blue."]),
    ]
    console = Console(width=200, soft_wrap=True)
    with console.capture() as captured:
        console.print(doctor_page.page(empty, checks))
    page = captured.get()
    assert ", UTF8; " in page
    assert re.search(r"✗ fix   colour +red", page)
    assert "\n✗ colour: It is red; paint it.\n! colour: It was blue.\n" in page
    assert page.endswith("\n1 thing to fix before a deploy.\n")


def test_command(run: Launcher, head: URL) -> None:
    """The command prints one document without the password, whatever the exit code."""
    url = head.set(password="s3cr3t")  # noqa: S106  # must not appear in any output
    ready = run.run(ROOT, "doctor", "--database-url", written(url))
    assert (ready.code, ready.err) == (0, ""), ready.everything
    assert ready.out.endswith("\nReady for a deploy.\n")
    execute(head, "DELETE FROM alembic_version")
    result = run.run(ROOT, "doctor", "--json", "--database-url", written(url))
    assert (result.code, result.err) == (1, ""), result.everything
    document = json.loads(result.out)
    assert (document["version"], document["ready"], document["error"]) == (2, False, None)
    (fault,) = [check for check in document["checks"] if not check["ready"]]
    assert fault["name"] == "revision"
    assert fault["found"] == "the history's tables without a revision"
    gone = written(url.set(database="no_such"))
    refused = run.run(ROOT, "doctor", "--json", "--database-url", gone)
    assert refused.code == 2, refused.everything
    why = json.loads(refused.out)
    assert why.keys() == document.keys()
    assert 'database "no_such" does not exist' in why["error"]
    assert "s3cr3t" not in ready.everything + result.everything + refused.everything


def written(url: URL) -> str:
    """Format the URL with its password."""
    return url.render_as_string(hide_password=False)
