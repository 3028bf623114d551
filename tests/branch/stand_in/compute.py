"""A branch's compute: a copy of its parent's data, and a server that starts when one connects."""

import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from sqlalchemy import URL

from migrations.postgres import DRIVER
from schema.errors import CannotRunError
from schema.postgres.connection import connect
from schema.postgres.dev_server import free_port
from schema.postgres.embedded import START_TIMEOUT, SUPERUSER
from schema.postgres.unprivileged import change_owner, unprivileged_identity

_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "timezone": "UTC",
    "listen_addresses": "127.0.0.1",
}

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104


class Compute:
    """A PostgreSQL server of its own, with a port that stays the same, cold or not."""

    def __init__(self, programs: Path, folder: Path) -> None:
        """Use an empty folder; `copy` fills it."""
        self.programs = programs
        self.folder = folder
        self.refusals = 0
        """How many of the next connections to a cold server fail, as they may on Neon."""
        self.starts = 0
        self._identity = unprivileged_identity()
        self._port = free_port(0)
        self._process: subprocess.Popen[bytes] | None = None
        self._changing = threading.RLock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def superuser(self) -> URL:
        """The database `postgres`, as the superuser, for the stand-in itself."""
        query = {"host": str(self.folder), "port": str(self._port)}
        return URL.create(DRIVER, SUPERUSER, database="postgres", query=query)

    def copy(self, source: URL) -> None:
        """Replace the data by a copy of another server's, as it is now; a start waits for it."""
        host, port = source.query["host"], source.query.get("port", "5432")
        with self._changing:
            self.stop()
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            change_owner(self.folder, self._identity)
            subprocess.run(
                [
                    self.programs / "pg_basebackup",
                    f"--pgdata={self.folder / 'data'}",
                    f"--host={host!s}",
                    f"--port={port!s}",
                    f"--username={SUPERUSER}",
                    "--checkpoint=fast",
                    "--no-sync",
                ],
                **self._identity,
                cwd=self.folder,
                check=True,
                capture_output=True,
            )

    def start(self) -> None:
        """Start the server, unless it runs; another program may have taken its port meanwhile."""
        with self._changing:
            if self._process is not None and self._process.poll() is None:
                return
            self.starts += 1
            for _ in range(3):
                if self._started():
                    return
                self._port = free_port(0)
            raise TimeoutError("the compute did not start")

    def _started(self) -> bool:
        settings = _SETTINGS | {
            "port": str(self._port),
            "unix_socket_directories": str(self.folder),
        }
        self._process = subprocess.Popen(
            [
                self.programs / "postgres",
                "-D",
                self.folder / "data",
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            **self._identity,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(CannotRunError), connect(self.superuser):
                return True
            time.sleep(0.02)
        return False

    def stop(self) -> None:
        """Stop the server; the next connection starts it."""
        with self._changing:
            if self._process is not None:
                self._process.send_signal(signal.SIGINT)  # ends the clients, and loses nothing
                self._process.wait()
                self._process = None

    def close(self) -> None:
        """Stop the server for good."""
        self._listener.close()
        self.stop()

    def execute(self, database: str, *statements: str) -> None:
        """Execute statements as the superuser."""
        self.start()
        with connect(self.superuser.set(database=database), autocommit=True) as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def databases(self) -> list[tuple[str, str]]:
        """List the databases and their owners, without those of the server itself."""
        self.start()
        query = (
            "SELECT datname, pg_get_userbyid(datdba) FROM pg_database"
            " WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY datname"
        )
        with connect(self.superuser) as connection:
            return [(name, owner) for name, owner in connection.exec_driver_sql(query)]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if (self._process is None or self._process.poll() is not None) and self.refusals:
                self.refusals -= 1
                _refuse(client)
                return
            self.start()
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                one = threading.Thread(target=_pump, args=(client, server), daemon=True)
                one.start()
                _pump(server, client)
                one.join(1)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _refuse(client: socket.socket) -> None:
    """Answer a start-up message with the error that Neon's proxy gives."""
    while True:
        (length,) = struct.unpack("!I", client.recv(4))
        body = client.recv(length - 4)
        if struct.unpack("!I", body[:4])[0] not in {_SSL_REQUEST, _GSS_REQUEST}:
            break
        client.sendall(b"N")
    fields = b"SFATAL\0VFATAL\0C08006\0MCouldn't connect to compute node\0\0"
    client.sendall(b"E" + struct.pack("!I", len(fields) + 4) + fields)
