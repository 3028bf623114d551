"""Run a deploy, `alembic upgrade head`, in its own process."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, text

from migrations import snapshot
from migrations.deploy.advisory_lock import LOCK
from schema.postgres.connection import connect
from tests.support.repo_copy import Launcher, Result

ALEMBIC = """
import os, sys
os.environ["DATABASE_URL"] = {url!r}
from alembic.config import main
{before}
sys.exit(main(prog="alembic"))
"""

# At its nth statement or commit, the deploy writes to a socket and waits for an answer.
STOP_AT = """
import socket, threading
from sqlalchemy import Engine, event

passed = 0

def point(connection, *_rest):
    global passed
    if threading.current_thread() is not threading.main_thread():
        return
    passed += 1
    if passed == {point}:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect({path!r})
            backend = connection.connection.driver_connection.info.backend_pid
            line.sendall(f"{{os.getpid()}} {{backend}}".encode())
            line.recv(1)

event.listen(Engine, "before_cursor_execute", point)
event.listen(Engine, "commit", point)
import atexit
atexit.register(lambda: print("points:", passed))
"""

LOCK_SQL = f"SELECT pg_advisory_lock({LOCK})"
"""Takes the lock of a deploy."""

type Fault = Callable[[int, int], None]
"""Called with the process ids of a deploy and of its backend."""


def deploy(run: Launcher, root: Path, url: URL | str, *arguments: str, before: str = "") -> Result:
    """Run `alembic` in the checkout at root on that database, by default `upgrade head`."""
    address = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    code = ALEMBIC.format(url=address, before=before)
    return run.run(root, *(arguments or ("upgrade", "head")), code=code)


def report(result: Result) -> dict[str, Any]:
    """Read the report of `-x report=json`, which must be the whole output."""
    (line,) = result.out.splitlines()
    document = json.loads(line)
    assert isinstance(document, dict)
    return document


def execute(url: URL, *statements: str) -> None:
    """Execute each statement in its own transaction."""
    with connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def state(url: URL) -> tuple[str, list[str]]:
    """Return the schema and the revision of a database."""
    with connect(url) as connection:
        schema = snapshot.layout(snapshot.read(connection), None)
        if connection.scalar(text("SELECT to_regclass('public.alembic_version')")) is None:
            return schema, []
        return schema, list(connection.scalars(text("SELECT version_num FROM alembic_version")))


@contextmanager
def stopped_at(point: int, folder: Path, fault: Fault) -> Iterator[str]:
    """Yield code that stops a deploy at its nth statement or commit and calls the fault."""
    path = folder / f"stop-{os.getpid()}-{point}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            try:
                line, _ = listening.accept()
            except OSError:  # the deploy had fewer statements
                return
            with line:
                process, backend = map(int, line.recv(100).split())
                fault(process, backend)
                try:
                    line.sendall(b".")
                except OSError:  # the process was killed
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield STOP_AT.format(point=point, path=str(path))
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


def kill(process: int, _backend: int) -> None:
    """Kill the deploy with SIGKILL."""
    os.kill(process, signal.SIGKILL)


def terminator(superuser: URL) -> Fault:
    """Return a fault that terminates the deploy's session, as an administrator does."""

    def terminate(_process: int, backend: int) -> None:
        with connect(superuser, autocommit=True) as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": backend})

    return terminate
