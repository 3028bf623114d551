"""The preconditions of a deploy: URLs, roles, states and settings.

The theory: if a precondition fails, the deploy changes nothing and prints one sentence that says
what to do, without a traceback and without a part of a password.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from schema.postgres.connection import connect
from schema.postgres.embedded import embedded
from schema.postgres.scratch import Server
from tests.deploy.test_database_url import PASSWORD, REFUSED
from tests.support.alembic_process import deploy, execute, report, state
from tests.support.frozen import FIRST, LAST
from tests.support.repo_copy import Checkout, Launcher, Result, sql
from tests.support.servers import pooled, proxy

NOW = ("-x", "timeout-minutes=0.003", "upgrade", "head")
"""Without retries of transient errors."""


def assert_refused(result: Result, *fragments: str) -> None:
    """Assert exit code 2 and one sentence on standard error, after possible warnings."""
    assert result.code == 2, result.everything
    assert result.out == ""
    last = result.err.splitlines()[-1]
    assert last.startswith("FAILED: ")
    assert last.endswith("."), last
    assert result.err.count("FAILED") == 1
    for fragment in fragments:
        assert fragment in last
    assert "Traceback" not in result.everything
    assert PASSWORD not in result.everything


QUICK = {"empty", "mysql", "unencoded-at-sign"}
"""The URLs that the quick tier also passes to the whole command."""


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(url, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, url in REFUSED.items()
    ],
)
def test_a_url_that_cannot_be_read(run: Launcher, frozen: Path, url: str) -> None:
    """Text that is not a PostgreSQL URL."""
    assert_refused(deploy(run, frozen, url, *NOW), "DATABASE_URL" if not url.strip() else "URL")


ADDRESSES = {
    "neon-pooled": (
        "ep-cool-name-123456-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require",
        "use the direct host, whose name has no -pooler",
    ),
    "nobody-listens": ("127.0.0.1:1/db", "Connection refused; check whether the server runs"),
    "no-such-host": ("host.invalid/db", "No connection to db on host.invalid as user"),
    "no-such-socket": ("/db?host=/no/such/folder", "No connection to db on /no/such/folder"),
    "unknown-option": ("127.0.0.1:1/db?colour=red", "an unknown parameter"),
    "bad-option": ("127.0.0.1:1/db?sslmode=maybe", 'invalid sslmode value: "…"'),
    "no-such-certificate": (
        "127.0.0.1:1/db?sslmode=verify-full&sslrootcert=/no/such/file",
        "No connection to db on 127.0.0.1:1",
    ),
    "forbidden": ("127.0.0.1:1/db?options=-csearch_path%3Dx", "sets options, which can change"),
    "bad-port": ("127.0.0.1:99999/db", "99999"),
    "password-as-an-option": (f"127.0.0.1:1/db?password={PASSWORD}", "Connection refused"),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize(("rest", "fragment"), ADDRESSES.values(), ids=ADDRESSES.keys())
def test_a_url_that_leads_nowhere(run: Launcher, frozen: Path, rest: str, fragment: str) -> None:
    """URLs without a server, or with one that a deploy rejects."""
    user = "user@" if PASSWORD in rest else f"user:{PASSWORD}@"
    assert_refused(deploy(run, frozen, f"postgresql://{user}{rest}", *NOW), fragment)


@pytest.mark.slow
def test_no_server_but_a_program(run: Launcher, frozen: Path) -> None:
    """A server that is not PostgreSQL and closes the connection."""
    with proxy(1) as closed:
        url = f"postgresql://user:{PASSWORD}@127.0.0.1:{closed.port}/db"
        assert_refused(deploy(run, frozen, url, *NOW), "No connection to db on 127.0.0.1")


SERVER: dict[str, tuple[Callable[[URL], URL], str]] = {
    "no-database": (lambda url: url.set(database="nope"), 'database "nope" does not exist; check'),
    "no-role": (lambda url: url.set(username="nobody", password="x"), "nobody"),  # noqa: S106
    "no-tls": (lambda url: url.update_query_dict({"sslmode": "require"}), "SSL"),
}


@pytest.mark.parametrize(("change", "fragment"), SERVER.values(), ids=SERVER.keys())
def test_a_server_that_says_no(
    run: Launcher, frozen: Path, server: Server, change: Callable[[URL], URL], fragment: str
) -> None:
    """A permanent error of the server is not retried, and its reason is printed."""
    url = change(server.maintenance)
    if url.host is None and "sslmode" in url.query:
        pytest.skip("no TLS on a socket")
    result = deploy(run, frozen, url)
    assert_refused(result, fragment)
    assert "retrying" not in result.err


@pytest.fixture
def role(server: Server) -> Iterator[str]:
    """A login without attributes."""
    name = f"deployer_{secrets.token_hex(4)}"
    with connect(server.maintenance, autocommit=True) as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        connection.exec_driver_sql(f"GRANT {name} TO current_user")
        yield name
        connection.exec_driver_sql(f"DROP ROLE {name}")


def test_a_role_that_is_not_the_owner(run: Launcher, frozen: Path, head: URL, role: str) -> None:
    """The role must own the database: otherwise new tables belong to another role."""
    before = state(head)
    execute(
        head, "GRANT USAGE ON SCHEMA public TO PUBLIC", "GRANT SELECT ON alembic_version TO PUBLIC"
    )
    changed = state(head)
    result = deploy(run, frozen, head.set(username=role, password=PASSWORD))
    assert_refused(
        result, f"The role {role} does not own the database", f"connect as {head.username}"
    )
    assert state(head) == changed != before


def test_an_owner_of_the_database_but_not_of_a_table(
    run: Launcher, frozen: Path, head: URL, role: str
) -> None:
    """The role must own every table."""
    execute(head, f"GRANT CREATE ON SCHEMA public TO {role}")
    execute(head, f"ALTER TABLE tag OWNER TO {role}", f"REVOKE {role} FROM {head.username}")
    before = state(head)
    try:
        result = deploy(run, frozen, head)
        assert_refused(result, f"cannot alter tag, which belongs to {role}")
        assert state(head) == before
    finally:
        execute(head, f"GRANT {role} TO {head.username}", f"DROP OWNED BY {role} CASCADE")


def test_roles_that_are_missing(run: Launcher, copy: Checkout, empty: URL, role: str) -> None:
    """An owner that may not create missing group roles is refused before the first revision."""
    copy.edit(
        "migrations/schema.txt", "role todo_app", "role todo_other\n    attributes\n\nrole todo_app"
    )
    execute(empty, f"GRANT CREATE ON SCHEMA public TO {role}")
    execute(empty, f'ALTER DATABASE "{empty.database}" OWNER TO {role}')
    try:
        result = deploy(run, copy.root, empty.set(username=role, password=PASSWORD))
        assert_refused(
            result, f"The role {role} may not create the missing group roles", "todo_other"
        )
        assert "table" not in state(empty)[0]
    finally:
        execute(empty, f'ALTER DATABASE "{empty.database}" OWNER TO {empty.username}')
        execute(empty, f"DROP OWNED BY {role}")


def test_an_owner_without_rights_in_public(
    run: Launcher, frozen: Path, empty: URL, role: str
) -> None:
    """An owner of the database that may create nothing in public is refused beforehand."""
    execute(
        empty,
        "ALTER SCHEMA public OWNER TO CURRENT_USER",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
    )
    execute(empty, f'ALTER DATABASE "{empty.database}" OWNER TO {role}')
    try:
        result = deploy(run, frozen, empty.set(username=role, password=PASSWORD))
        assert_refused(result, f"The role {role} may not create objects in the schema public")
        execute(empty, "DROP SCHEMA public")
        result = deploy(run, frozen, empty.set(username=role, password=PASSWORD))
        assert_refused(result, f"The role {role} may not create objects in the schema public")
    finally:
        execute(empty, f'ALTER DATABASE "{empty.database}" OWNER TO {empty.username}')


@pytest.fixture
def blind(head: URL, role: str) -> Iterator[URL]:
    """The database at LAST, with a user and a todo, and an owner that obeys row security."""
    execute(
        head,
        "INSERT INTO \"user\" (id, name, email) VALUES (gen_random_uuid(), 'A', 'a@example.org')",
        "INSERT INTO todo (user_id, title) SELECT id, 'old' FROM \"user\"",
        f'ALTER DATABASE "{head.database}" OWNER TO {role}',
        f"ALTER SCHEMA public OWNER TO {role}",
        "DO $$ DECLARE name regclass; BEGIN FOR name IN SELECT oid FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        f" LOOP EXECUTE format('ALTER TABLE %%s OWNER TO {role}', name); END LOOP; END $$",
    )
    yield head.set(username=role, password=PASSWORD)
    execute(
        head,
        f"REASSIGN OWNED BY {role} TO CURRENT_USER",
        f'ALTER DATABASE "{head.database}" OWNER TO {head.username}',
        f"DROP OWNED BY {role}",
    )


BACKFILL = "UPDATE todo SET title = 'new'"
ORPHANS = 'SELECT FROM todo WHERE user_id NOT IN (SELECT id FROM "user")'


def test_what_an_owner_that_obeys_row_security_does(head: URL, blind: URL) -> None:
    """PostgreSQL lets it change no row, and lets it validate a foreign key that rows violate."""
    with connect(blind, autocommit=True) as owner:
        assert owner.exec_driver_sql(BACKFILL).rowcount == 0
        owner.exec_driver_sql("ALTER TABLE todo DROP CONSTRAINT todo_user_id_fkey")
        with connect(head, autocommit=True) as other:
            other.exec_driver_sql("UPDATE todo SET user_id = gen_random_uuid()")
        owner.exec_driver_sql(
            'ALTER TABLE todo ADD CONSTRAINT f FOREIGN KEY (user_id) REFERENCES "user" NOT VALID'
        )
        owner.exec_driver_sql("ALTER TABLE todo VALIDATE CONSTRAINT f")
        owner.exec_driver_sql(
            'ALTER TABLE todo ADD CONSTRAINT g FOREIGN KEY (user_id) REFERENCES "user"'
        )
    with connect(head) as other:
        assert other.exec_driver_sql(ORPHANS).rowcount == 1
        valid = "SELECT conname FROM pg_constraint WHERE conname IN ('f', 'g') AND convalidated"
        assert other.exec_driver_sql(valid).rowcount == 2


def test_an_owner_that_obeys_row_security(
    run: Launcher, copy: Checkout, head: URL, blind: URL
) -> None:
    """It is refused if there is a revision to run or to revert, and not if there is none."""
    nothing = deploy(run, copy.root, blind)
    assert "cannot see the rows" not in nothing.everything
    assert nothing.code == 3, nothing.everything  # the owner is not the one of schema.txt
    copy.add(sql(BACKFILL))
    _, before = state(head)  # another test may change a role, which the schema shows
    for arguments in (("upgrade", "head"), ("downgrade", "-1")):
        result = deploy(run, copy.root, blind, *arguments)
        assert_refused(
            result,
            f"The role {blind.username} cannot see the rows of",
            'the rows of "user", todo,',  # the other tables are empty
            f"ALTER ROLE {blind.username} BYPASSRLS, or deploy as a role that has it",
        )
        assert state(head)[1] == before
    execute(head, f"ALTER ROLE {blind.username} BYPASSRLS")
    assert deploy(run, copy.root, blind).code == 0
    with connect(head) as other:
        assert other.exec_driver_sql("SELECT FROM todo WHERE title = 'new'").rowcount == 1


def test_the_first_deploy_of_an_owner_that_obeys_row_security(
    run: Launcher, frozen: Path, empty: URL, role: str
) -> None:
    """An empty database has no rows to be blind to, also when more is applied or reverted."""
    execute(
        empty,
        f'ALTER DATABASE "{empty.database}" OWNER TO {role}',
        f"ALTER SCHEMA public OWNER TO {role}",
    )
    try:
        result = deploy(run, frozen, empty.set(username=role, password=PASSWORD))
        assert result.code == 0, result.everything
        for arguments in (("downgrade", "-2"), ("upgrade", "head")):
            again = deploy(run, frozen, empty.set(username=role, password=PASSWORD), *arguments)
            assert again.code == 0, again.everything
    finally:
        execute(
            empty,
            f"REASSIGN OWNED BY {role} TO CURRENT_USER",
            f'ALTER DATABASE "{empty.database}" OWNER TO {empty.username}',
            f"DROP OWNED BY {role} CASCADE",
        )


STATES = {
    "unknown-revision": (
        "UPDATE alembic_version SET version_num = 'ffffffffffff'",
        "The database is at revision ffffffffffff, which is not in migrations/versions",
    ),
    "two-revisions": (
        f"INSERT INTO alembic_version VALUES ('{FIRST}')",
        f"The database records 2 revisions ({FIRST}, {LAST})",
    ),
    "tables-without-a-revision": (
        "DELETE FROM alembic_version",
        "The database has the history's tables (account, session, tag, todo, todo_tag and 2 more)",
    ),
    "tables-without-a-version-table": (
        "DROP TABLE alembic_version",
        "but no revision; `schema adopt` finds the matching revision and stamps it",
    ),
    "read-only": (
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET default_transaction_read_only = on',"
        " current_database()); END $$",
        "are read-only (default_transaction_read_only)",
    ),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize(("statement", "fragment"), STATES.values(), ids=STATES.keys())
def test_a_state_that_is_not_known(
    run: Launcher, frozen: Path, head: URL, statement: str, fragment: str
) -> None:
    """A database in a state that the history cannot continue from is not changed."""
    execute(head, statement)
    before = state(head)
    assert_refused(deploy(run, frozen, head), fragment)
    assert_refused(deploy(run, frozen, head, "downgrade", "-1"), fragment)
    assert state(head) == before


def test_another_encoding(run: Launcher, frozen: Path, server: Server) -> None:
    """Another encoding changes lengths, letter cases and sort orders."""
    name = f"ascii_{secrets.token_hex(4)}"
    made = f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
    execute(server.maintenance, made)
    try:
        result = deploy(run, frozen, server.maintenance.set(database=name))
        assert_refused(result, f"The encoding of the database {name} is SQL_ASCII")
    finally:
        execute(server.maintenance, f"DROP DATABASE {name} WITH (FORCE)")


def test_what_no_revision_makes(run: Launcher, frozen: Path, empty: URL) -> None:
    """A view of another application does not stand in the way."""
    execute(empty, "CREATE VIEW something AS SELECT 1 AS a")
    result = deploy(run, frozen, empty)
    assert result.code == 0, result.everything
    assert "No revision has view something." in result.out


ARGUMENTS = {
    "unknown-x": (
        ("-x", "patiance=1", "upgrade", "head"),
        "The only -x options are -x timeout-minutes",
    ),
    "bad-timeout": (
        ("-x", "timeout-minutes=long", "upgrade", "head"),
        "-x timeout-minutes takes a number",
    ),
    "negative-timeout": (
        ("-x", "timeout-minutes=-1", "upgrade", "head"),
        "-x timeout-minutes takes a number",
    ),
    "endless-timeout": (
        ("-x", "timeout-minutes=inf", "upgrade", "head"),
        "-x timeout-minutes takes a number",
    ),
    "bad-report": (("-x", "report=xml", "upgrade", "head"), "-x report=json"),
    "no-such-revision": (("upgrade", "nope"), f"There is no path to nope from {LAST}"),
    "too-far-up": (("upgrade", "+99"), "+99"),
    "too-far-down": (("downgrade", "-99"), "-99"),
    "up-to-what-is-below": (("downgrade", "nope"), f"There is no path to nope from {LAST}"),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize(("arguments", "fragment"), ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_arguments(
    run: Launcher, frozen: Path, head: URL, arguments: tuple[str, ...], fragment: str
) -> None:
    """Wrong arguments are rejected, on any database."""
    before = state(head)
    assert_refused(deploy(run, frozen, head, *arguments), fragment)
    assert state(head) == before


def two_heads(copy: Checkout) -> None:
    """Two pull requests were merged at once."""
    copy.add(sql("SELECT 1"))
    copy.add(sql("SELECT 2"), revision="b0b1c2d3e4f5", name="2099_01_01_0001_b0b1c2d3e4f5_x.py")


def a_merge(copy: Checkout) -> None:
    """The two were merged by `alembic merge`."""
    two_heads(copy)
    copy.add(
        revision="c0b1c2d3e4f5",
        parents=("a0b1c2d3e4f5", "b0b1c2d3e4f5"),
        name="2099_01_01_0002_c0b1c2d3e4f5_x.py",
    )


def a_gap(copy: Checkout) -> None:
    """A file is missing."""
    copy.revision("create_todo").unlink()


def no_python(copy: Checkout) -> None:
    """A merge conflict was committed."""
    copy.revision("create_todo").write_text("<<<<<<< HEAD\n", encoding="utf-8")


def no_revision(copy: Checkout) -> None:
    """The history was not shipped."""
    shutil.rmtree(copy.versions)
    copy.versions.mkdir()


HISTORIES = {
    two_heads: "The history has 2 heads (a0b1c2d3e4f5, b0b1c2d3e4f5)",
    a_merge: "The revision c0b1c2d3e4f5 merges branches",
    a_gap: "The revision files cannot be read",
    no_python: "The revision files cannot be read (SyntaxError",
    no_revision: "There is no revision in migrations/versions",
}


@pytest.mark.sample(3)
@pytest.mark.parametrize(("spoil", "fragment"), HISTORIES.items())
def test_a_history_that_is_not_one(
    run: Launcher, copy: Checkout, head: URL, spoil: Callable[[Checkout], None], fragment: str
) -> None:
    """An unreadable or branched history is rejected before the first query."""
    spoil(copy)
    before = state(head)
    assert_refused(deploy(run, copy.root, head), fragment)
    assert state(head) == before


def test_a_refusal_as_json(run: Launcher, frozen: Path, head: URL) -> None:
    """With `-x report=json`, a failed precondition gives a document too."""
    result = deploy(run, frozen, head.set(database="nope"), "-x", "report=json", "upgrade", "head")
    document = report(result)
    assert result.code == 2
    assert document["ok"] is False
    assert document["error"] in result.err
    assert document["revisions"] == []


@contextmanager
def standby(superuser: URL, binaries: Path) -> Iterator[Path]:
    """Run a standby of the embedded server; yield the folder of its socket."""
    if not (binaries / "pg_basebackup").exists():
        pytest.skip(f"{binaries} has no pg_basebackup, which makes the standby")
    primary = Path(str(superuser.query["host"]))
    owner = primary.owner()
    user = owner if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp())  # the server's user cannot enter pytest's private folder
    shutil.chown(folder, owner)
    data = folder / "data"
    try:
        subprocess.run(
            [binaries / "pg_basebackup", f"--host={primary}", f"--username={superuser.username}",
             f"--pgdata={data}", "--checkpoint=fast", "--wal-method=stream", "--no-sync"],
            user=user, cwd=folder, check=True, capture_output=True,
        )  # fmt: skip  # one call, a line for each kind of argument
        (data / "standby.signal").touch()
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, f"--unix_socket_directories={folder}",
             "--listen_addresses=", "--fsync=off", "--max_connections=100"],
            user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip  # one call, a line for each kind of argument
        try:
            yield folder
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_standby(run: Launcher, frozen: Path, request: pytest.FixtureRequest) -> None:
    """A standby is read-only; the message says to use the primary."""
    with (
        embedded(request.config.option.postgres) as primary,
        standby(primary.superuser, primary.binaries) as folder,
    ):
        result = deploy(run, frozen, primary.owner.set(query={"host": str(folder)}))
        assert_refused(result, "The server is a read-only standby (in recovery); name its primary")


POOLERS = {
    "refuses-settings": ("", "unsupported startup parameter"),
    "drops-settings": (
        "ignore_startup_parameters = options",
        "A pooler dropped the deploy's settings, lock_timeout among them",
    ),
}


@pytest.mark.parametrize(("setting", "fragment"), POOLERS.values(), ids=POOLERS.keys())
def test_a_pooler_that_is_not_neons(
    run: Launcher, frozen: Path, head: URL, setting: str, fragment: str
) -> None:
    """PgBouncer rejects the session's settings, or drops them without an error."""
    before = state(head)
    with pooled(head, setting) as through:
        assert_refused(deploy(run, frozen, through), fragment)
    assert state(head) == before


DAMAGED: dict[str, tuple[str, Callable[[str], str]]] = {
    "empty fingerprints": ("fingerprints.txt", lambda _text: ""),
    "fingerprints twice": ("fingerprints.txt", lambda text: text + text),
    "conflict in fingerprints": (
        "fingerprints.txt",
        lambda text: f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n",
    ),
    "empty schema": ("schema.txt", lambda _text: ""),
    "conflict in schema": (
        "schema.txt",
        lambda text: text.replace("\n", "\n<<<<<<< HEAD\n", 1),
    ),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file(run: Launcher, copy: Checkout, head: URL, name: str) -> None:
    """What a deploy is verified with must be whole: otherwise it is refused."""
    file, damage = DAMAGED[name]
    path = copy.root / "migrations" / file
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert_refused(deploy(run, copy.root, head), f"migrations/{file} cannot be read")
