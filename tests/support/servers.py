"""A server that tests can kill and restart, a proxy that can cut connections, and a pooler."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL

from schema.errors import CannotRunError
from schema.postgres.connection import connect
from schema.postgres.dev_server import free_port
from schema.postgres.embedded import Embedded, embedded


class Disposable:
    """An embedded server on a port, behind a proxy."""

    def __init__(self, server: Embedded, stack: ExitStack) -> None:
        """Keep the data for a restart; the stack stops the processes."""
        self._process: subprocess.Popen[bytes] = server.process
        self._arguments = server.process.args
        self._user = server.folder.owner()
        self._folder = server.folder
        self._stack = stack
        self.superuser = server.superuser
        self.direct: URL = server.owner
        """The URL without the proxy."""
        self.proxy = stack.enter_context(proxy(server.owner.port or 0))

    @contextmanager
    def database(self, template: URL | None = None) -> Iterator[URL]:
        """Create a database, empty or from a template, and drop it afterwards."""
        name = f"deployed_{secrets.token_hex(4)}"
        clone = "" if template is None else f" TEMPLATE {template.database}"
        with connect(self.direct, autocommit=True) as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}{clone}")
        yield self.direct.set(database=name)
        with connect(self.direct, autocommit=True) as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")

    def kill(self) -> None:
        """Kill all processes of the server with SIGKILL, as a machine failure does."""
        pids = [self._process.pid, *_children(self._process.pid)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def start(self) -> None:
        """Restart the server and wait until it accepts connections.

        PostgreSQL refuses to start while a child of the killed server runs: then it is tried again.
        """
        deadline = time.monotonic() + 60
        self._process = self._started()
        while True:
            try:
                with connect(self.superuser):
                    return
            except CannotRunError:
                assert time.monotonic() < deadline, "the server does not start again"
                time.sleep(0.02)
                if self._process.poll() is not None:
                    self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self._arguments,
            user=self._user if os.geteuid() == 0 else None,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._stack.callback(_stop, process)
        return process


@contextmanager
def disposable(version: int) -> Iterator[Disposable]:
    """Run a server that a test can kill and restart."""
    with embedded(version, port=free_port(0)) as server, ExitStack() as stack:
        yield Disposable(server, stack)


def _children(pid: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in found.stdout.split()]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGQUIT)
    process.wait()


class Proxy:
    """Forwards bytes between its port and the server's."""

    def __init__(self, target: int | Path, pause: float) -> None:
        """Listen on a free port."""
        self._target = target
        self._pause = pause
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.cut_after: int | None = None
        """How many more pieces of data are forwarded, both ways, before a connection is cut."""
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Reset every connection; new ones are accepted."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = _dial(self._target)
            except OSError:
                client.close()
                continue
            self._pairs.append((client, server))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        """Forward data until either side ends, and close both."""
        with suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self._pause)
                if self.cut_after is not None:
                    self.cut_after -= 1
                    if self.cut_after < 0:
                        break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            source.close()


@contextmanager
def proxy(target: int | Path, pause: float = 0) -> Iterator[Proxy]:
    """Run a proxy for a local port or socket; it delays all data by `pause` seconds."""
    opened = Proxy(target, pause)
    try:
        yield opened
    finally:
        opened.close()


def _dial(target: int | Path) -> socket.socket:
    if isinstance(target, int):
        return socket.create_connection(("127.0.0.1", target))
    dialled = socket.socket(socket.AF_UNIX)
    dialled.connect(str(target))
    return dialled


@contextmanager
def pooled(url: URL, setting: str = "") -> Iterator[URL]:
    """Run Debian's PgBouncer in transaction mode for the server, with an extra setting."""
    program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    if program is None:
        pytest.skip("PgBouncer is not installed (Debian: apt install pgbouncer)")
    if "host" not in url.query:
        pytest.skip("PgBouncer is started beside an embedded server only")
    folder = Path(str(url.query["host"]))
    port = free_port(0)
    (folder / "users").write_text(f'"{url.username}" "{url.password}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"""
[databases]
* = host={folder}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 2
{setting}
"""
    )
    owner = (folder / "data").owner()
    process = subprocess.Popen(
        [program, "--quiet", str(folder / "pgbouncer.ini")],
        user=owner,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    through = url.set(host="127.0.0.1", port=port, query={})
    try:
        for _ in range(200):
            with suppress(psycopg.OperationalError):
                psycopg.connect(conninfo(through)).close()
                break
            time.sleep(0.05)
        yield through
    finally:
        process.terminate()
        process.wait()


def conninfo(url: URL) -> str:
    """Return the URL as a libpq connection string."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
