"""Run ask.mjs in a Node process, and execute Better Auth's queries for it.

Node gets neither the database's address nor a password: the configuration's code could read them.
What the configuration prints is dropped, because it may hold its secrets.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import URL

from migrations.postgres import first_error_line
from schema.better_auth.needs import Needs, parse
from schema.errors import CannotRunError
from schema.postgres.connection import connect, driver_of

OLDEST_NODE = 20

TIMEOUT = 60
"""Seconds that the configuration may take from one answer to the next."""

_DRIVER = Path(__file__).with_name("ask.mjs")

_SECRET_NAME = re.compile(
    r"secret|passw|token|key|credential|private|auth|url|uri|dsn|connection", re.IGNORECASE
)
_LITERAL = re.compile(r"""([\w-]+)["'`]?\]?\s*[:=]\s*(["'`])((?:\\.|(?!\2).){4,})\2""")
_USERINFO = re.compile(r"(\w://)[^\s/@]*@")
_OPAQUE = re.compile(r"(?=[\w+=-]*\d)(?=[\w+=-]*[A-Za-z])[\w+=-]{20,}")
"""A long word of letters and digits: a key or a token, and never a sentence."""


def ask(config: Path, database: URL) -> Needs:
    """Ask Better Auth what the configuration needs, with the database as its own.

    Raises:
        CannotRunError: Node, the configuration or the package cannot be used.

    """
    with (
        connect(database, autocommit=True) as connection,
        _started(require_usable(config), config) as channel,
    ):
        connection.exec_driver_sql("SET default_transaction_read_only = on")
        with psycopg.RawCursor(driver_of(connection), row_factory=dict_row) as cursor:
            return _needs(config, _answer(config, channel, cursor))


def require_usable(config: Path) -> str:
    """Return Node's path, if it is there and the configuration is.

    Raises:
        CannotRunError: the file is missing, or Node is missing or too old.

    """
    if not config.is_file():
        raise CannotRunError(f"There is no file {config}; name Better Auth's configuration.")
    remedy = f"install Node {OLDEST_NODE} or later"
    if (path := shutil.which("node")) is None:
        raise CannotRunError(
            f"Node cannot be found, which runs Better Auth's configuration; {remedy}."
        )
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    version = done.stdout.strip().removeprefix("v")
    major = version.partition(".")[0]
    if not major.isdecimal():
        raise CannotRunError(f"Node at {path} does not run; {remedy}.")
    if int(major) < OLDEST_NODE:
        raise CannotRunError(f"Node at {path} has the version {version}, too old; {remedy}.")
    return path


@contextmanager
def _started(path: str, config: Path) -> Iterator[IO[str]]:
    """Run Node for a block, which talks to it through a socket."""
    # libpq's variables may hold the password of the server of the scratch databases.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    ours, theirs = socket.socketpair()
    ours.settimeout(TIMEOUT)
    with ours, ours.makefile("rw", encoding="utf-8") as channel:
        with theirs:
            process = subprocess.Popen(
                [path, _DRIVER, config, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment | {"BETTER_AUTH_TELEMETRY": "0"},
                start_new_session=True,
            )
        try:
            yield cast("IO[str]", channel)
        finally:
            # With Node ends what the configuration has started.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answer(
    config: Path, channel: IO[str], cursor: psycopg.RawCursor[dict[str, Any]]
) -> dict[str, Any]:
    """Execute queries until Node says the result or the failure."""
    try:
        for line in iter(channel.readline, ""):
            message: dict[str, Any] = json.loads(line)
            if "sql" not in message:
                return message
            channel.write(json.dumps(_execute(cursor, **message), default=str) + "\n")
            channel.flush()
    except TimeoutError:
        raise CannotRunError(
            f"{config} did not load within {TIMEOUT} s; let it start nothing when it is imported."
        ) from None
    except ConnectionError:
        pass  # Node has ended, as below
    raise CannotRunError(
        f"{config} ended Node before it was read; let it export Better Auth, and nothing else run."
    )


def _execute(
    cursor: psycopg.RawCursor[dict[str, Any]], sql: str, parameters: list[Any]
) -> dict[str, Any]:
    """Execute a query of Better Auth's."""
    try:
        return {"rows": cursor.execute(sql.encode(), parameters).fetchall()}
    except psycopg.Error as error:
        return {"error": first_error_line(error)}


def _needs(config: Path, message: dict[str, Any]) -> Needs:
    """Read the result, or raise what the failure says."""
    if (failure := message.get("failure")) is None:
        try:
            return parse(message["result"])
        except ValueError as error:
            raise CannotRunError(f"{config} cannot be compared: {error}.") from None
    reason = without_secrets(failure["message"], config).rstrip(".")
    match failure["stage"], failure["code"]:
        case "package", "MODULE_NOT_FOUND":
            said = f"The package better-auth is not installed next to {config}: run npm ci there"
        case "package", "ERR_PACKAGE_PATH_NOT_EXPORTED":
            said = (
                f"The better-auth next to {config} is too old: it has no better-auth/db/migration;"
                " install 1.7 or later"
            )
        case "package", _:
            said = f"The package better-auth next to {config} does not load: {reason}"
        case _, "NO_OPTIONS":
            said = f"{config} is no configuration: {reason}"
        case _, "ERR_UNKNOWN_FILE_EXTENSION":
            said = f"This Node does not load {config.suffix} files; name a JavaScript module"
        case "config", _:
            said = f"{config} throws: {reason}"
        case _:
            said = f"{config} has a schema that Better Auth refuses: {reason}"
    raise CannotRunError(f"{said}.")


def without_secrets(message: str, config: Path) -> str:
    """Return the first line of an error of the configuration, without what may be a secret.

    Masked are the values of environment variables and of literals in the configuration whose names
    suggest a secret, what stands before the host of a URL, and long words of letters and digits.
    """
    line = message.strip().partition("\n")[0]
    source = config.read_text(encoding="utf-8", errors="replace")
    named = [
        *os.environ.items(),
        *((name, literal) for name, _, literal in _LITERAL.findall(source)),
    ]
    secret = {value for name, value in named if _SECRET_NAME.search(name) and len(value) >= 4}
    for value in sorted(secret, key=len, reverse=True):
        line = line.replace(value, "***")
    return _OPAQUE.sub("***", _USERINFO.sub(r"\1***@", line))
