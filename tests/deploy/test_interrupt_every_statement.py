"""Ctrl-C and SIGTERM at every statement of the history, one after the other.

The theory: wherever in a revision the signal arrives, the deploy ends within a second of the
server's answer and reports the interruption; whole revisions are committed and nothing else, and
the deploys after it, interrupted at each later statement in turn, end with the schema of an
undisturbed one. The statements are found by running the revisions: none is listed here.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from tests.deploy.test_deploy_interrupted import SENTENCE
from tests.support.alembic_process import deploy, state
from tests.support.repo_copy import Checkout, Launcher

pytestmark = pytest.mark.slow

# The nth statement that a revision executes begins with a sleep. A statement in a revision's own
# loop counts each time. What the deploy executes by itself is not counted: its phases have tests of
# their own.
SLOW_STATEMENT = """
import os, sys, threading
from sqlalchemy import Engine, event

passed = 0

def in_a_revision():
    frame = sys._getframe()
    while frame and not frame.f_code.co_filename.startswith({versions!r}):
        frame = frame.f_back
    return frame

def slow(connection, cursor, statement, parameters, context, many):
    global passed
    if threading.current_thread() is threading.main_thread() and in_a_revision():
        passed += 1
        if passed == {number}:
            if parameters:
                cursor.execute("SELECT pg_sleep(120)")
            statement = "SELECT pg_sleep(120);" + statement
    return statement, parameters

def after(*_event):
    if threading.current_thread() is threading.main_thread() and passed >= {number}:
        if in_a_revision():
            print("a statement was executed after the signal", file=sys.stderr)

event.listen(Engine, "before_cursor_execute", slow, retval=True)
event.listen(Engine, "after_cursor_execute", after)
with open({path!r}, "w") as file:
    file.write(str(os.getpid()))
"""
ASLEEP = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep(120)%'
"""

BLOCK = """with op.get_context().autocommit_block():
        op.execute("CREATE TABLE IF NOT EXISTS log (a int)")
        op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS todo_title_idx ON todo (title)")
    for number in range(3):
        with op.get_context().autocommit_block():
            op.execute(f"DELETE FROM log WHERE a = {number}")
            op.execute(f"INSERT INTO log VALUES ({number})")"""
STUBBORN = """for number in range(4):
        try:
            with op.get_context().autocommit_block():
                op.execute(f"DELETE FROM log WHERE a = {number}")
                op.execute(f"INSERT INTO log VALUES ({number})")
        except BaseException:
            pass
    try:
        op.execute("CREATE TABLE work ()")
    except BaseException:
        pass
    op.execute("INSERT INTO log VALUES (9)")"""


class Killer:
    """Sends a signal to the deploy when its statement sleeps, and notes when it was answered."""

    def __init__(self, url: URL, path: Path, number: signal.Signals) -> None:
        """Begin without a signal."""
        self._url, self._path, self._number = url, path, number
        self.ended = threading.Event()
        self.sent: float | None = None

    def watch(self) -> None:
        """Wait for the statement, or for the end of a deploy that has fewer statements."""
        with connect(self._url, autocommit=True) as connection:
            while not self.ended.wait(0.01):
                if connection.scalar(text(ASLEEP)):
                    self.sent = time.monotonic()
                    os.kill(int(self._path.read_text()), self._number)
                    return


@contextmanager
def killing(url: URL, path: Path, number: signal.Signals) -> Iterator[Killer]:
    """Watch during the block."""
    killer = Killer(url, path, number)
    thread = threading.Thread(target=killer.watch)
    thread.start()
    try:
        yield killer
    finally:
        killer.ended.set()
        thread.join()


def revision_of(url: URL) -> str | None:
    """Return the recorded revision."""
    with connect(url) as connection:
        if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
            return None
        return str(connection.scalar(text("SELECT version_num FROM alembic_version")))


@pytest.fixture
def changed(copy: Checkout) -> Checkout:
    """The frozen history, with revisions of autocommit blocks, loops and caught exceptions."""
    copy.add(BLOCK)
    last = "b0b1c2d3e4f5"
    name = f"2099_01_01_0001_{last}_x.py"
    copy.add(STUBBORN, revision=last, parents="a0b1c2d3e4f5", name=name)
    return copy


def test_every_statement(
    run: Launcher, changed: Checkout, empty: URL, server: Server, tmp_path: Path
) -> None:
    """Each deploy is interrupted one statement later than the one before it, until one ends."""
    path = tmp_path / "process"
    at = None
    number, interrupted = 1, 0
    while True:
        kind = (signal.SIGINT, signal.SIGTERM)[interrupted % 2]
        with killing(empty, path, kind) as killer:
            before = SLOW_STATEMENT.format(
                versions=str(changed.versions), number=number, path=str(path)
            )
            result = deploy(run, changed.root, empty, before=before)
        if killer.sent is None:
            break
        took = time.monotonic() - killer.sent
        what = f"statement {number} after {at}, {kind.name}, {took:.2f} s\n{result.everything}"
        assert result.code == 130, what
        assert result.err.splitlines()[-1] == SENTENCE, what
        assert "Traceback" not in result.everything, what
        assert "after the signal" not in result.err, what
        # The cancelled sleep is answered at once; a second, and as much for a busy machine.
        assert took < 2, what
        interrupted += 1
        reached = revision_of(empty)
        # The statement after the first one of the revision that was just begun, or the next one.
        number = number + 1 if reached == at else 2
        at = reached
    assert result.code == 0, result.everything
    assert interrupted > 100
    with server.database() as url:
        undisturbed = deploy(run, changed.root, url)
        assert undisturbed.code == 0, undisturbed.everything
        assert state(empty) == state(url)
    with connect(empty) as connection:
        rows = connection.scalars(text("SELECT a FROM log ORDER BY a"))
        assert list(rows) == [0, 1, 2, 3, 9]
