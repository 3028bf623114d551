"""The development server of this checkout: at head, with a login for each group role.

Its port and passwords stay the same, in .venv, so that a URL in a shell or in an application's
settings survives a restart. Its data does not. A lock says whether it runs, and who runs it.
"""

import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from sqlalchemy import URL

from migrations.postgres import DRIVER
from schema.errors import CannotRunError
from schema.postgres import logins
from schema.postgres.connection import connect
from schema.postgres.embedded import OWNER, START_TIMEOUT, embedded
from schema.postgres.leftovers import clear_leftovers
from schema.project import ROOT, own_environment
from schema.roles import APPLICATION, BETTER_AUTH

DATABASE = "todo"
SETTINGS = ROOT / ".venv" / "dev-server.json"
LOCK = ROOT / ".venv" / "dev-server.lock"
BUILDING = ROOT / ".venv" / "dev-server-building.lock"
LOG = ROOT / ".venv" / "dev-server.log"

_RUNS_ALREADY = (
    "The development server of this checkout runs already; use it, or stop it first: schema serve"
    " --stop."
)

READY = "export DATABASE_URL="
"""The line to paste, which is printed when the server is ready."""

type Build = Callable[[URL], None]
"""Builds the schema of an empty database, and fills it if that was asked for."""


@dataclass(frozen=True)
class Settings:
    """What stays the same across restarts."""

    port: int
    owner: str
    """The owner's password."""
    application: str
    better_auth: str

    @property
    def url(self) -> URL:
        """The development database, as its owner."""
        return URL.create(DRIVER, OWNER, self.owner, "127.0.0.1", self.port, DATABASE)


def serve(postgres: str | int, port: int, build: Build, echo: Callable[[str], None]) -> None:
    """Serve a database until interrupted; `build` makes its schema.

    Raises:
        CannotRunError: this checkout's server runs already, the port is taken, or the server could
            not be started.

    """
    with _locked():
        clear_leftovers()  # a killed one's server may still have the port
        settings = _settings(port)
        with embedded(
            postgres, port=settings.port, password=settings.owner, development=DATABASE
        ) as started:
            _keep(settings)
            rebuild(settings, build, started.owner)
            made = [
                logins.Login(f"{APPLICATION}_login", APPLICATION, settings.application),
                logins.Login(f"{BETTER_AUTH}_login", BETTER_AUTH, settings.better_auth),
            ]
            logins.make(settings.url, made)
            echo(
                f"PostgreSQL {started.version} at the head revision, until it is stopped; its data"
                " is then gone.\n"
            )
            echo(f"owner, for migrations   {logins.url_with_password(settings.url)}")
            for title, login in zip(("application", "Better Auth"), made, strict=True):
                url = settings.url.set(username=login.name, password=login.password)
                echo(f"{title:<23} {logins.url_with_password(url)}")
            echo(f"\n{READY}'{logins.url_with_password(settings.url)}'")
            threading.Event().wait()


def rebuild(settings: Settings, build: Build, maintenance: URL) -> None:
    """Drop the development database if it is there, and build it anew, one process at a time."""
    with BUILDING.open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with connect(maintenance, autocommit=True) as connection:
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
            connection.exec_driver_sql(f"CREATE DATABASE {DATABASE}")
        build(settings.url)


def reset(build: Build) -> None:
    """Build the database of this checkout's running server anew.

    Raises:
        CannotRunError: no server of this checkout runs.

    """
    _running()
    settings = _kept()
    rebuild(settings, build, settings.url.set(database="postgres"))


def detach(arguments: list[str]) -> str:
    """Start `schema serve` with these arguments as a process of its own; return what it prints.

    Raises:
        CannotRunError: it could not be started; the message is its own.

    """
    if _holder() is not None:
        raise CannotRunError(_RUNS_ALREADY)
    LOG.parent.mkdir(exist_ok=True)
    with os.fdopen(os.open(LOG, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-m", "schema.cli.main", "serve", *arguments],
            env=own_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        said = LOG.read_text(encoding="utf-8")
        if READY in said:
            return said
        if process.poll() is not None:
            last = (said.strip().splitlines() or [": The server ended at once."])[-1]
            raise CannotRunError(last.partition(": ")[2])
        time.sleep(0.05)
    process.terminate()
    raise CannotRunError(f"The server was not ready within {START_TIMEOUT} seconds.")


def stop() -> None:
    """Stop this checkout's server, and wait until it is gone.

    Raises:
        CannotRunError: none runs, or it does not end.

    """
    os.kill(_running(), signal.SIGTERM)
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if _holder() is None:
            return
        time.sleep(0.05)
    raise CannotRunError(f"The server did not end within {START_TIMEOUT} seconds.")


def _running() -> int:
    process = _holder()
    if process is None:
        raise CannotRunError(
            "No development server of this checkout runs; start it: schema serve --detach."
        )
    return process


def _holder() -> int | None:
    """Return the process that holds the lock; None if it is free."""
    try:
        with LOCK.open("r+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read() or 0) or None
    except FileNotFoundError:
        return None
    return None


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock for a block."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotRunError(_RUNS_ALREADY) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _settings(port: int) -> Settings:
    """Return the settings for a start, made anew or with that port where there is none."""
    try:
        kept = _kept()
    except (OSError, ValueError, TypeError):  # there is none, or it is damaged
        kept = Settings(0, *(secrets.token_urlsafe(18) for _ in range(3)))
    return replace(kept, port=free_port(port or kept.port))


def _keep(settings: Settings) -> None:
    """Write the settings at once, readable by this user only."""
    new = SETTINGS.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(settings), file)
    new.replace(SETTINGS)


def _kept() -> Settings:
    return Settings(**json.loads(SETTINGS.read_text(encoding="utf-8")))


def free_port(port: int) -> int:
    """Check that the port is free, or choose one if it is 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CannotRunError(
                f"Port {port} on 127.0.0.1 cannot be used ({error.strerror}); choose another with"
                " --port, or leave it out."
            ) from error
        number: int = probe.getsockname()[1]
        return number
