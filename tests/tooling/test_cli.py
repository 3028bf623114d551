"""The errors and the output of the `schema` command.

The theory: invalid input ends the command with exit code 2 and one sentence that says what to do,
without a traceback, a password or a change.
"""

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError

from migrations.postgres import parse_url
from schema.postgres.connection import connect
from schema.postgres.dev_server import free_port
from schema.postgres.embedded import OWNER, Embedded, embedded
from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import Server
from schema.project import ROOT, scripts
from tests.support.repo_copy import COMMAND, Checkout, Launcher, Result, sql

PASSWORD = "s3cr3t%40 /:@?#%s'\\ö"  # noqa: S105  # must not appear in any output
PARTS = ("s3cr3t", "3cr3t%2540")
"""Parts of the password, in plain text and percent-encoded."""

CHECK = ("check", "--no-lint")
"""Without the lint, which takes longer than all other checks and has its own tests."""

ESCAPE = "\x1b"


@pytest.fixture
def given(server: Server) -> str:
    """The URL of the shared server."""
    return server.maintenance.render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def tcp() -> Iterator[Embedded]:
    """A server that listens on a port and requires passwords."""
    with embedded(port=free_port(0)) as started:
        with connect(started.superuser, autocommit=True) as connection:
            quoted = PASSWORD.replace("'", "''")
            for name, attributes in (
                ("tester", "CREATEDB CREATEROLE"),
                ("no_databases", "CREATEROLE"),
                ("no_roles", "CREATEDB"),
                ("nobody", ""),
            ):
                connection.exec_driver_sql(
                    f"CREATE ROLE {name} LOGIN {attributes} PASSWORD '{quoted}'".replace("%", "%%")
                )
            connection.exec_driver_sql(f"ALTER ROLE {OWNER} PASSWORD '{quoted}'".replace("%", "%%"))
        yield started


def url_of(tcp: Embedded, role: str, **changes: str | int) -> str:
    """Return the URL of that role on that server, with these changes."""
    url = tcp.owner.set(username=role, password=PASSWORD).set(**changes)  # type: ignore[arg-type]  # parts of a URL by name
    return url.render_as_string(hide_password=False)


def assert_refused(result: Result, *fragments: str) -> None:
    """Assert that the error is one sentence with these fragments and without the password."""
    assert result.code == 2, result.everything
    assert result.out == ""
    assert result.err.startswith("schema: "), result.everything
    assert result.err.endswith(".\n"), result.everything
    assert len(result.err.splitlines()) == 1, result.everything
    for fragment in fragments:
        assert fragment in result.err, result.everything
    for secret in PARTS:
        assert secret not in result.everything


URLS = {
    "no-url": ("s3cr3t", "The database URL cannot be read"),
    "mysql": ("mysql://user:s3cr3t@host/database", "only PostgreSQL"),
    "no-database": ("postgresql://user:s3cr3t@127.0.0.1", "names no database"),
    "no-server": (
        "postgresql://user:s3cr3t@127.0.0.1:1/database",
        "No connection to database on 127.0.0.1:1 as user",
    ),
    "no-host": (
        "postgresql://user:s3cr3t@host.invalid/database",
        "No connection to database on host.invalid as user",
    ),
    "no-socket": (
        "postgresql://user:s3cr3t@/database?host=/no/such/folder",
        "No connection to database on /no/such/folder as user",
    ),
    "unencoded-at-sign": ("postgresql://user:pass@s3cr3t@127.0.0.1:1/database", "percent-encoded"),
    "unknown-option": (
        "postgresql://user:s3cr3t@127.0.0.1:1/database?colour=red",
        "an unknown parameter",
    ),
    "bad-option": ("postgresql://user:s3cr3t@127.0.0.1:1/database?sslmode=maybe", "sslmode"),
    "password-as-an-option": (
        "postgresql://user@127.0.0.1:1/database?password=s3cr3t",
        "No connection to database",
    ),
}


@pytest.mark.parametrize(("url", "fragment"), URLS.values(), ids=URLS.keys())
def test_url_that_leads_nowhere(run: Launcher, url: str, fragment: str) -> None:
    """An invalid URL is refused, without any part of its password in the output."""
    assert_refused(run.run(ROOT, "check", "--database-url", url), fragment)


@pytest.mark.sample(4)
@pytest.mark.parametrize("command", ["check", "snapshot"])
@pytest.mark.parametrize(
    ("role", "changes", "fragment"),
    [
        ("tester", {"password": "s3cr3t"}, "password authentication failed"),
        ("stranger", {}, "password authentication failed"),
        ("tester", {"database": "no_such"}, 'database "no_such" does not exist'),
        ("no_databases", {}, "The role no_databases may not make scratch databases"),
        ("no_roles", {}, "give it CREATEDB and CREATEROLE"),
        ("nobody", {}, "The role nobody may not make"),
    ],
    ids=["wrong-password", "no-role", "no-database", "no-createdb", "no-createrole", "no-rights"],
)
def test_role_that_may_not(  # noqa: PLR0913, PLR0917  # each is a part of the case
    run: Launcher, tcp: Embedded, command: str, role: str, changes: dict[str, str], fragment: str
) -> None:
    """A role that cannot connect or create databases and roles is refused, without a change."""
    before = state(tcp.superuser)
    result = run.run(ROOT, command, "--database-url", url_of(tcp, role, **changes))
    assert_refused(result, fragment)
    assert state(tcp.superuser) == before


def state(superuser: URL) -> list[str]:
    """List the databases and roles of a server, and the tables of its maintenance database."""
    with connect(superuser) as connection:
        rows = connection.exec_driver_sql(
            "SELECT 'database ' || datname FROM pg_database"
            " UNION ALL SELECT 'role ' || rolname FROM pg_roles"
            " UNION ALL SELECT 'table ' || oid::regclass FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
        )
        return list(rows.scalars())


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme", ["postgres", pytest.param("postgresql+psycopg", marks=pytest.mark.slow)]
)
def test_password_with_special_characters(
    run: Launcher, copy: Checkout, tcp: Embedded, scheme: str
) -> None:
    """A percent-encoded password works, and the output does not contain it."""
    url = url_of(tcp, OWNER).replace("postgresql+psycopg", scheme)
    before = set(state(tcp.superuser))
    result = run.run(copy.root, *CHECK, "--database-url", url)
    assert result.code == 0, result.everything
    assert result.err == ""
    for secret in PARTS:
        assert secret not in result.everything
    assert set(state(tcp.superuser)) - before <= {"role todo_app", "role todo_auth"}


@pytest.mark.slow
def test_role_that_did_not_make_the_group_roles(run: Launcher, copy: Checkout) -> None:
    """If another role created the group roles, the error says to connect as that role."""
    with embedded(port=free_port(0)) as started:
        with connect(started.superuser, autocommit=True) as connection:
            connection.exec_driver_sql("CREATE ROLE todo_app; CREATE ROLE todo_auth")
        url = started.owner.render_as_string(hide_password=False)
        result = run.run(copy.root, *CHECK, "--database-url", url)
    assert_refused(result, "may not act as todo_app and todo_auth", "connect as the role that made")


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["check", "--postgres", "17"], "There is no embedded PostgreSQL 17, only 16 and 18;"),
        (["serve", "--postgres", "9"], "name a server with --database-url."),
        (["snapshot", "--postgres", "17"], "There is no embedded PostgreSQL 17"),
    ],
)
def test_version_that_is_not_embedded(run: Launcher, arguments: list[str], fragment: str) -> None:
    """A version that is not in the wheel is refused."""
    assert_refused(run.run(ROOT, *arguments), fragment)


@pytest.mark.parametrize(
    "arguments",
    [["check", "--colour"], ["chekc"], ["serve", "--port", "x"]],
    ids=" ".join,
)
def test_words_that_are_not_understood(run: Launcher, arguments: list[str]) -> None:
    """Invalid arguments end with exit code 2, without a traceback."""
    result = run.run(ROOT, *arguments)
    assert result.code == 2, result.everything
    assert result.out == ""
    assert "Traceback" not in result.err
    assert "Usage: schema" in result.err


# ── schema snapshot ───────────────────────────────────────────────────────────────────────────────


def test_snapshot_of_an_unchanged_schema(run: Launcher, copy: Checkout, given: str) -> None:
    """Without a change no file is written."""
    before = (copy.snapshot.stat().st_mtime_ns, copy.snapshot.read_bytes())
    result = run.run(copy.root, "snapshot", "--database-url", given)
    assert (result.code, result.err) == (0, ""), result.everything
    assert result.out == "Everything is up to date.\n"
    assert (copy.snapshot.stat().st_mtime_ns, copy.snapshot.read_bytes()) == before


@pytest.mark.slow
def test_snapshot_shows_what_changed(run: Launcher, copy: Checkout, given: str) -> None:
    """The difference is printed, line by line; a second run changes nothing."""
    fresh = copy.snapshot.read_text(encoding="utf-8")
    copy.edit(copy.snapshot, "1 to 500 characters", "0 to 500 characters")
    result = run.run(copy.root, "snapshot", "--database-url", given)
    assert result.code == 0, result.everything
    changed = [line for line in result.out.splitlines() if line[:1] in {"-", "+"}]
    assert [line[0] for line in changed] == ["-", "+"], result.out
    assert "0 to 500 characters" in changed[0]
    assert "1 to 500 characters" in changed[1]
    assert result.out.endswith("migrations/schema.txt is rewritten.\n")
    assert copy.snapshot.read_text(encoding="utf-8") == fresh
    again = run.run(copy.root, "snapshot", "--database-url", given)
    assert again.out == "Everything is up to date.\n"


def test_snapshot_that_is_missing(run: Launcher, copy: Checkout, given: str) -> None:
    """A missing file is written, readable for every user, without a temporary file beside it."""
    fresh = copy.snapshot.read_text(encoding="utf-8")
    folder = sorted(copy.snapshot.parent.iterdir())
    copy.snapshot.unlink()
    result = run.run(copy.root, "snapshot", "--database-url", given)
    assert result.code == 0, result.everything
    assert copy.snapshot.read_text(encoding="utf-8") == fresh
    assert copy.snapshot.stat().st_mode & 0o777 == 0o644
    assert sorted(copy.snapshot.parent.iterdir()) == folder


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only; for root too, if it can mount."""
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    done = subprocess.run(
        ["mount", "--bind", folder, folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_snapshot_that_cannot_be_written(run: Launcher, copy: Checkout, given: str) -> None:
    """A file that cannot be written stays unchanged, and the error gives the reason."""
    copy.edit(copy.snapshot, "1 to 500 characters", "0 to 500 characters")
    before = copy.snapshot.read_bytes()
    with read_only(copy.snapshot.parent):
        result = run.run(copy.root, "snapshot", "--database-url", given)
    assert_refused(result, "migrations/schema.txt cannot be written")
    assert copy.snapshot.read_bytes() == before


@pytest.mark.parametrize(
    ("upgrade", "fragment"),
    [
        (sql("SELECT no_such_column"), 'column "no_such_column" does not exist'),
        ("raise ValueError('not today')", "not today"),
        ("op.execute(", "run schema check"),
    ],
    ids=["wrong-sql", "raises", "syntax-error"],
)
def test_snapshot_of_a_history_that_does_not_build(
    run: Launcher, copy: Checkout, given: str, upgrade: str, fragment: str
) -> None:
    """If the history does not build, the command fails with one sentence."""
    path = copy.add(upgrade, sql("SELECT 1"))
    before = copy.snapshot.read_bytes()
    result = run.run(copy.root, "snapshot", "--database-url", given)
    assert_refused(result, fragment)
    assert path.exists()
    assert copy.snapshot.read_bytes() == before


def test_snapshot_of_two_heads(run: Launcher, copy: Checkout, given: str) -> None:
    """A history with two heads is refused."""
    copy.add(revision="aaaaaaaaaaaa")
    copy.add(revision="bbbbbbbbbbbb")
    result = run.run(copy.root, "snapshot", "--database-url", given)
    assert_refused(result, "The history has 2 heads", "run schema check")


# ── output ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_check_in_a_pipe(run: Launcher, copy: Checkout, given: str) -> None:
    """In a pipe there is no progress and no escape code."""
    result = run.run(copy.root, *CHECK, "--database-url", given)
    assert result.code == 0, result.everything
    assert result.err == ""
    assert ESCAPE not in result.out


@pytest.mark.slow
def test_check_on_a_terminal(copy: Checkout, given: str) -> None:
    """On a terminal the progress is shown, on standard error only."""
    theirs, ours = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from schema.cli.main import main; main()",
         *CHECK, "--database-url", given],
        cwd=copy.root,
        env=os.environ
        | {"PYTHONPATH": f"{copy.root}:{copy.root}/scripts"}
        | {"TERM": "xterm-256color", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=ours,
    )  # fmt: skip  # the command on a line of its own
    os.close(ours)
    shown = b""
    while select.select([theirs], [], [], 60)[0]:
        try:
            shown += os.read(theirs, 65536)
        except OSError:  # the other end is closed
            break
    os.close(theirs)
    page = process.communicate()[0].decode()
    assert process.returncode == 0, page + shown.decode()
    assert "upgrade head" in shown.decode()
    assert "round trip" in shown.decode() or "downgrade" in shown.decode()
    assert "checks pass" not in shown.decode()
    assert ESCAPE not in page
    assert "checks pass" in page


# ── schema serve ──────────────────────────────────────────────────────────────────────────────────


@contextmanager
def serving(root: Path, *arguments: str) -> Iterator[dict[str, URL]]:
    """Run `schema serve` in the checkout at root, and read the URLs that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", COMMAND, "serve", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(root), str(root / "scripts")))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "at the head revision, until it is stopped" in process.stdout.readline()
        assert process.stdout.readline() == "\n"
        lines = [process.stdout.readline().rpartition(" ") for _ in range(3)]
        yield {name.strip(): make_url(url.strip()) for name, _, url in lines}
    finally:
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (130, "")


def with_driver(url: URL) -> URL:
    """Parse a printed URL, with the driver that the command uses."""
    return parse_url(url.render_as_string(hide_password=False))


def count(url: URL, statement: str) -> int:
    """Run a query that counts."""
    with connect(with_driver(url)) as connection:
        number: int = connection.exec_driver_sql(statement).scalar_one()
        return number


def test_serve(copy: Checkout) -> None:
    """Each of the three URLs connects, with the privileges that its line names."""
    with serving(copy.root) as urls:
        assert list(urls) == ["owner, for migrations", "application", "Better Auth"]
        owner, application, auth = urls.values()
        assert {url.drivername for url in urls.values()} == {"postgresql"}
        assert owner.username == OWNER
        head = scripts().get_current_head()
        assert count(owner, f"SELECT count(*) FROM alembic_version WHERE version_num = '{head}'")
        with connect(with_driver(owner), autocommit=True) as connection:
            user = connection.exec_driver_sql(
                "INSERT INTO \"user\" (name, email) VALUES ('A', 'a@example.invalid') RETURNING id"
            ).scalar_one()
            connection.exec_driver_sql(
                "INSERT INTO todo (user_id, title) VALUES (%s, 'Write tests')", (user,)
            )
        todos = "SELECT count(*) FROM todo"
        assert count(owner, todos) == 1
        assert count(application, todos) == 0
        with connect(with_driver(application)) as connection:
            connection.exec_driver_sql("SELECT set_config('app.user_id', %s, true)", (str(user),))
            assert connection.exec_driver_sql(todos).scalar_one() == 1
        assert count(auth, 'SELECT count(*) FROM "user"') == 1
        for login, table in ((auth, "todo"), (application, "session")):
            with pytest.raises(DBAPIError, match=f"permission denied for table {table}"):
                count(login, f"SELECT count(*) FROM {table}")
        for login, role in ((application, "todo_app"), (auth, "todo_auth")):
            with connect(with_driver(login)) as connection:
                held = connection.exec_driver_sql(
                    "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb,"
                    " ARRAY(SELECT roleid::regrole::text FROM pg_auth_members WHERE member = r.oid)"
                    " FROM pg_roles AS r WHERE rolname = current_user"
                ).one()
            assert tuple(held) == (False, [role])


@pytest.mark.parametrize("version", [pytest.param(VERSIONS[-1], marks=pytest.mark.slow)])
def test_serve_on_a_chosen_port(copy: Checkout, version: int) -> None:
    """The server has the given port and version."""
    port = free_port(0)
    with serving(copy.root, "--port", str(port), "--postgres", str(version)) as urls:
        assert {url.port for url in urls.values()} == {port}
        number = "SELECT current_setting('server_version_num')::int / 10000"
        assert count(urls["application"], number) == version


def test_serve_on_a_port_that_is_taken(run: Launcher, copy: Checkout) -> None:
    """A port in use is refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run.run(copy.root, "serve", "--port", str(port))
    assert_refused(result, f"Port {port} on 127.0.0.1 cannot be used", "choose another with --port")


@pytest.mark.slow
def test_a_server_in_the_background(run: Launcher, copy: Checkout) -> None:
    """It keeps its URLs across restarts; reset builds it anew, and says so on another branch."""
    first = run.run(copy.root, "serve", "--detach", "--seed")
    try:
        assert first.code == 0, first.everything
        (line,) = [one for one in first.out.splitlines() if one.startswith("export DATABASE_URL=")]
        url = make_url(line.partition("=")[2].strip("'"))
        assert count(url, "SELECT count(*) FROM todo") > 0
        twice = run.run(copy.root, "serve", "--detach")
        assert_refused(twice, "runs already", "schema serve --stop")
        with connect(with_driver(url), autocommit=True) as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'elsewhere'")
        before = f"import os; os.environ['DATABASE_URL'] = {line.partition('=')[2]!s}\n"
        code = f"{before}import sys; from alembic.config import main; sys.exit(main())"
        behind = run.run(copy.root, "upgrade", "head", code=code)
        assert behind.code == 2
        assert "revision elsewhere of another branch" in behind.err
        assert "schema reset" in behind.err
        anew = run.run(copy.root, "reset")
        assert anew.code == 0, anew.everything
        assert count(url, "SELECT count(*) FROM todo") == 0
        assert count(url, "SELECT count(*) FROM alembic_version WHERE version_num <> 'elsewhere'")
    finally:
        stopped = run.run(copy.root, "serve", "--stop")
    assert stopped.code == 0, stopped.everything
    assert_refused(run.run(copy.root, "reset"), "No development server of this checkout runs")
    again = run.run(copy.root, "serve", "--detach")
    run.run(copy.root, "serve", "--stop")
    assert line in again.out
    (copy.root / ".venv" / "dev-server.json").write_text("")  # a disk was full
    damaged = run.run(copy.root, "serve", "--detach")
    run.run(copy.root, "serve", "--stop")
    assert damaged.code == 0, damaged.everything


MISPLACED = "postgresql://owner:s3cr3t@127.0.0.1:1/db"


@pytest.mark.parametrize(
    "arguments",
    [
        ("roles", "--application", MISPLACED),
        ("roles", "--better-auth", MISPLACED),
        ("roles", "--application", MISPLACED, "--better-auth", MISPLACED),
        ("check", "--postgres", MISPLACED),
        ("serve", "--postgres", MISPLACED),
    ],
    ids=" ".join,
)
def test_a_url_in_the_wrong_place_is_not_repeated(
    run: Launcher, arguments: tuple[str, ...]
) -> None:
    """What is refused may be a password."""
    result = run.run(ROOT, *arguments)
    assert (result.code, result.out) == (2, ""), result.everything
    assert "s3cr3t" not in result.everything
    assert len(result.err.splitlines()) == 1


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("module", "not_imported"),
    [
        ("schema.cli.main", ("alembic", "sqlalchemy", "psycopg", "models", "schema.checks")),
        ("schema.cli.drift", ("models", "sqlmodel", "sqlfluff", "pglast", "schema.checks")),
        ("schema.cli.doctor", ("models", "sqlmodel", "sqlfluff", "pglast", "schema.checks")),
        ("schema.cli.check", ("models", "sqlmodel", "sqlfluff", "pglast", "schema.live")),
    ],
)
def test_a_command_imports_what_it_needs(module: str, not_imported: tuple[str, ...]) -> None:
    """`schema --help` and each command import only the libraries that they need."""
    code = f"import {module}, sys; print(*(set({not_imported!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []


@pytest.mark.slow
def test_the_time_is_what_a_person_waits(server: Server) -> None:
    """The printed time is most of the time from the start of the process to its end."""
    url = server.maintenance.render_as_string(hide_password=False)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "schema.cli.main", *CHECK, "--json", "--database-url", url],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    waited = time.monotonic() - start
    assert 0.8 * waited < json.loads(done.stdout)["seconds"] <= waited


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("17", "There is no embedded PostgreSQL 17, only 16 and 18"),
        ("{folder}", "There is no initdb and postgres in {folder}"),
        ("{folder}/old", "PostgreSQL 15 in {folder}/old is too old; 16 is the oldest"),
        ("{folder}/broken", "{folder}/broken/postgres does not run on this machine"),
    ],
    ids=["unknown-version", "empty-folder", "too-old", "does-not-run"],
)
def test_a_folder_of_programs_that_cannot_be_used(
    run: Launcher, tmp_path: Path, given: str, words: str
) -> None:
    """An invalid folder ends with exit code 2 and one sentence."""
    for name, script in (("old", "echo 'postgres (PostgreSQL) 15.8'"), ("broken", "exit 1")):
        (tmp_path / name).mkdir()
        for program in ("initdb", "postgres"):
            (tmp_path / name / program).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name / program).chmod(0o755)
    result = run.run(ROOT, "check", "--postgres", given.format(folder=tmp_path))
    assert (result.code, result.out) == (2, ""), result.everything
    assert result.err.startswith(f"schema: {words.format(folder=tmp_path)}")
    assert len(result.err.splitlines()) == 1
