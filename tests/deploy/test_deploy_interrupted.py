"""Ctrl-C and SIGTERM end a deploy at once, in every phase.

The theory: in any phase, and even if a revision catches the exception, the running statement is
cancelled, nothing more is retried or applied, and the deploy reports the interruption. Each deploy
is a process of its own. It gets a real signal when the server or its own log shows the phase.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import URL, text

from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from tests.support.alembic_process import ALEMBIC, LOCK_SQL, state
from tests.support.repo_copy import REVISION, copy_to

SIGNALS = [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
"""The deploy treats both alike, so the quick tier sends only one."""
TIMEOUT = 30
"""Timeout of a condition, in seconds, long enough for a busy machine."""

SENTENCE = "FAILED: Interrupted: committed revisions stay; run this again to continue."

PROGRAM = """
import os
os.environ["DATABASE_URL"] = {url!r}
from alembic import command
from alembic.config import Config
try:
    command.upgrade(Config("alembic.ini"), "head")
except KeyboardInterrupt as error:
    print("the program was told:", error)
"""

SLEEP = 'op.execute("SELECT pg_sleep(120)")'
MARK = 'op.execute("INSERT INTO runs VALUES (1)")'
IN_A_BLOCK = f"""with op.get_context().autocommit_block():
        {MARK}
        """

REVISIONS = {
    "transaction": f"{MARK}\n    {SLEEP}",
    "autocommit": IN_A_BLOCK + SLEEP,
    # Like a backfill: many short statements, with pauses.
    "backfill": IN_A_BLOCK
    + """for _ in range(10000):
            op.execute("UPDATE work SET done = true")
            op.execute("SELECT pg_sleep(0.01)")""",
    # Each batch has a block of its own, and is retried after any error.
    "stubborn backfill": f"""while True:
        try:
            with op.get_context().autocommit_block():
                {SLEEP}
        except Exception:
            time.sleep(0.01)""",
    "swallowed": f"""try:
        {SLEEP}
    except BaseException:
        pass""",
    "swallowed in Python": """op.execute("SELECT 'waiting'")
    try:
        time.sleep(120)
    except BaseException:
        pass""",
}
ASLEEP = "query LIKE '%pg_sleep(%'"
SHOWN = {"swallowed in Python": "query = 'SELECT ''waiting'''"}
"""The condition for a revision's phase, for the revisions that do not sleep."""


class Place(NamedTuple):
    """A checkout and its database."""

    root: Path
    url: URL


@pytest.fixture(scope="module")
def first(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A checkout whose history makes two tables, and a database with them."""
    copy = copy_to(tmp_path_factory.mktemp("interrupted") / "checkout")
    for path in copy.versions.glob("*.py"):
        path.unlink()
    copy.snapshot.write_text("revision none\n", encoding="utf-8")  # there is nothing to verify
    write(copy.root, "first", None, "op.execute('CREATE TABLE runs (a int)')")
    write(copy.root, "second", "first", "op.execute('CREATE TABLE work AS SELECT false AS done')")
    with server.database() as url:
        place = Place(copy.root, url)
        process = deploying(place)
        _, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, err
        yield place


@pytest.fixture
def place(first: Place, server: Server, tmp_path: Path) -> Iterator[Place]:
    """A copy of both for one test."""
    root = tmp_path / "checkout"
    shutil.copytree(first.root, root)
    with server.database(first.url) as url:
        yield Place(root, url)


def write(root: Path, revision: str, parent: str | None, upgrade: str) -> None:
    """Write a revision file."""
    body = REVISION.format(
        summary="Change something.",
        revision=revision,
        parents=parent,
        upgrade=upgrade,
        downgrade="pass",
    )
    path = root / "migrations" / "versions" / f"{revision}.py"
    path.write_text(body.replace("\nfrom", "\nimport time\n\nfrom", 1), encoding="utf-8")


def deploying(place: Place, code: str = ALEMBIC) -> subprocess.Popen[str]:
    """Start `alembic upgrade head`, or a program, in the checkout."""
    address = place.url.render_as_string(hide_password=False)
    return subprocess.Popen(
        [sys.executable, "-c", code.format(url=address, before=""), "upgrade", "head"],
        cwd=place.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not come that far"
        time.sleep(0.02)


@contextmanager
def observing(url: URL) -> Iterator[Callable[[str], int]]:
    """Count the other sessions on the database that meet a condition."""
    with connect(url, autocommit=True) as connection:

        def count(condition: str) -> int:
            found = connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    f" AND pid <> pg_backend_pid() AND state IS NOT NULL AND ({condition})"
                )
            )
            return int(found or 0)

        yield count


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Send the signal, check that the deploy ends soon, and return its exit code and output."""
    start = time.monotonic()
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    # Cancelling is fast; a sleep, a pause or a retry would take longer.
    assert time.monotonic() - start < 8, err
    return process.returncode, out, err


def assert_interrupted(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send the signal, and assert that the deploy reports the interruption."""
    code, out, err = interrupt(process, number)
    assert code == 130, out + err
    assert err.splitlines()[-1] == SENTENCE
    assert "Traceback" not in out + err
    assert "connecting again" not in err
    return err


@pytest.mark.sample(3)
@pytest.mark.parametrize("number", SIGNALS, ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("name", REVISIONS)
def test_in_a_revision(place: Place, name: str, number: signal.Signals) -> None:
    """The statement is cancelled, the revision is not run again, and the next one is not begun."""
    before = state(place.url)
    write(place.root, "third", "second", REVISIONS[name])
    write(place.root, "fourth", "third", "op.execute('CREATE TABLE afterwards ()')")
    with observing(place.url) as count:
        process = deploying(place)
        wait_for(lambda: count(SHOWN.get(name, ASLEEP)))
        err = assert_interrupted(process, number)
        assert err.count("upgrade third") == 1
        wait_for(lambda: not count("true"))
    assert state(place.url) == before
    with connect(place.url) as connection:
        runs = connection.scalar(text("SELECT count(*) FROM runs"))
        assert runs == REVISIONS[name].startswith(IN_A_BLOCK)


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGINT", "SIGTERM"])
def test_in_a_concurrent_build(place: Place, number: signal.Signals) -> None:
    """An index build that waits for a writer is cancelled; the next deploy builds the index."""
    build = "CREATE INDEX CONCURRENTLY IF NOT EXISTS work_idx ON work (done)"
    write(
        place.root,
        "third",
        "second",
        f"with op.get_context().autocommit_block():\n        op.execute({build!r})",
    )
    with connect(place.url) as holder, observing(place.url) as count:
        holder.exec_driver_sql("LOCK TABLE work IN ROW EXCLUSIVE MODE")
        process = deploying(place)
        wait_for(lambda: count("query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'"))
        assert_interrupted(process, number)
    valid = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('work_idx')")
    with connect(place.url) as connection:
        assert connection.scalar(valid) is False
    again = deploying(place)
    _, err = again.communicate(timeout=TIMEOUT)
    assert again.returncode == 0, err
    assert "Dropping the index work_idx, which an interrupted build left invalid" in err
    with connect(place.url) as connection:
        assert connection.scalar(valid) is True


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGINT", "SIGTERM"])
def test_in_a_pause(place: Place, number: signal.Signals) -> None:
    """A signal ends the pause between two attempts."""
    write(place.root, "third", "second", "op.execute('ALTER TABLE work ADD COLUMN more int')")
    with connect(place.url) as holder:
        holder.exec_driver_sql("LOCK TABLE work")
        process = deploying(place)
        assert process.stderr is not None
        while "giving way, retrying" not in process.stderr.readline():
            assert process.poll() is None
        assert_interrupted(process, number)


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGINT", "SIGTERM"])
def test_while_another_deploy_runs(place: Place, number: signal.Signals) -> None:
    """A signal ends the wait for the deploy lock."""
    with connect(place.url) as holder:
        holder.exec_driver_sql(LOCK_SQL)
        process = deploying(place)
        assert process.stderr is not None
        while "Waiting for another deploy" not in process.stderr.readline():
            assert process.poll() is None
        assert_interrupted(process, number)


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGINT", "SIGTERM"])
def test_while_it_connects(place: Place, number: signal.Signals) -> None:
    """A signal ends the connection to a server that does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(TIMEOUT)
        port: int = silent.getsockname()[1]
        process = deploying(Place(place.root, place.url.set(host="127.0.0.1", port=port, query={})))
        line, _ = silent.accept()
        with line:
            line.recv(1)
            assert_interrupted(process, number)


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGINT", "SIGTERM"])
def test_in_a_program(place: Place, number: signal.Signals) -> None:
    """A program that calls Alembic gets the KeyboardInterrupt, for either signal."""
    write(place.root, "third", "second", REVISIONS["autocommit"])
    with observing(place.url) as count:
        process = deploying(place, PROGRAM)
        wait_for(lambda: count(ASLEEP))
        code, out, err = interrupt(process, number)
        assert (code, out) == (0, f"the program was told: {SENTENCE.removeprefix('FAILED: ')}\n")
        assert "connecting again" not in err
        wait_for(lambda: not count("true"))


@pytest.mark.slow
def test_ignored_in_the_background(place: Place) -> None:
    """A process that ignores Ctrl-C, as a shell's background process does, is not interrupted."""
    write(place.root, "third", "second", 'op.execute("SELECT pg_sleep(1)")')
    with observing(place.url) as count:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process = deploying(place)
        finally:
            signal.signal(signal.SIGINT, before)
        wait_for(lambda: count(ASLEEP))
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, err
