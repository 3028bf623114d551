"""The deploy as it is typed, `alembic upgrade head`, in a process of its own."""

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

# At its nth statement or commit, the deploy says so on a socket, and goes on when it is answered.
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
"""Takes the lock that a deploy holds."""

type Fault = Callable[[int, int], None]
"""What is done to a deploy: its process and its backend are given."""


def deploy(run: Launcher, root: Path, url: URL | str, *arguments: str, before: str = "") -> Result:
    """Run `alembic` in the checkout at root, on that database; `upgrade head` unless told else."""
    address = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    code = ALEMBIC.format(url=address, before=before)
    return run.run(root, *(arguments or ("upgrade", "head")), code=code)


def report(result: Result) -> dict[str, Any]:
    """Read the report that `-x report=json` printed, which must be all there is."""
    (line,) = result.out.splitlines()
    document = json.loads(line)
    assert isinstance(document, dict)
    return document


def execute(url: URL, *statements: str) -> None:
    """Change a database past its migrations, each statement by itself."""
    with connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def state(url: URL) -> tuple[str, list[str]]:
    """Everything that a deploy changes: the schema, and the revision that the database names."""
    with connect(url) as connection:
        schema = snapshot.layout(snapshot.read(connection), None)
        if connection.scalar(text("SELECT to_regclass('public.alembic_version')")) is None:
            return schema, []
        return schema, list(connection.scalars(text("SELECT version_num FROM alembic_version")))


@contextmanager
def stopped_at(point: int, folder: Path, fault: Fault) -> Iterator[str]:
    """Do something to a deploy at its nth statement or commit: run it with what is yielded."""
    path = folder / f"stop-{os.getpid()}-{point}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            try:
                line, _ = listening.accept()
            except OSError:  # it never came that far
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
    """Kill the deploy: it has no time for anything."""
    os.kill(process, signal.SIGKILL)


def terminator(superuser: URL) -> Fault:
    """Make the fault that ends the deploy's session on the server, as an administrator does."""

    def terminate(_process: int, backend: int) -> None:
        with connect(superuser, autocommit=True) as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": backend})

    return terminate
