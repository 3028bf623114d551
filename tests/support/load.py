"""Measure how long clients wait while a table is changed.

The clients are a pgbench process, because Python's threads would slow each other. pgbench schedules
its transactions in advance and measures from the scheduled time, so that the latency includes the
queue behind a blocked request.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import URL

from schema.postgres.connection import connect
from schema.postgres.embedded import Embedded
from schema.project import ROOT
from tests.support.repo_copy import Checkout

CLIENT = "crowd"
"""The clients' login, in `todo_app` only."""

HOLDER = "10000000-0000-4000-8000-000000000000"
"""The user whose row a long transaction has changed; a sixteenth of all keys sort before it.

No client acts for it, so that no client waits for that transaction.
"""

HOLD = 5
"""Seconds that the blocking transactions stay open."""

RATE = 200
"""Requests per second: few enough for two cores, so that only locks cause a queue."""

# Newest first. A backfill goes in the opposite order, so that the two can deadlock.
REQUEST = """
\\set n random(1, {users})
\\set older random(1, 60)
BEGIN;
SELECT set_config('app.user_id', md5(:n::text)::uuid::text, true);
INSERT INTO todo (user_id, title) VALUES (md5(:n::text)::uuid, 'Buy milk');
UPDATE todo SET completed_at = now()
WHERE id = (SELECT id FROM todo ORDER BY id DESC OFFSET 1 LIMIT 1);
UPDATE todo SET description = 'Whole'
WHERE id = (SELECT id FROM todo ORDER BY id DESC OFFSET 1 + :older LIMIT 1);
SELECT id, title, completed_at FROM todo ORDER BY id DESC LIMIT 50;
COMMIT;
"""

REVISION = '''"""Change todo.

WHY: a test follows the recipes to the letter.
"""

import sqlalchemy as sa
from alembic import op

{code}'''


@dataclass(frozen=True)
class Recipe:
    """A recipe of migrations/README.md: the unsafe code, and the revisions of the safe one."""

    bad: str
    good: tuple[str, ...]


def recipes() -> dict[str, Recipe]:
    """Read the recipes, by their first words."""
    readme = (ROOT / "migrations" / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Changing a table that is in use\n")[2].partition("\n## ")[0]
    found = {}
    each = re.compile(r"^\*\*(.+?)\*\*(.*?)(?=^\*\*|\Z)", re.MULTILINE | re.DOTALL)
    for name, text in each.findall(section):
        bad, *good = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert bad.startswith("# bad: "), f"{name}: the first block is the bad one"
        found[name] = Recipe(bad, tuple(good))
    return found


def follow(copy: Checkout, code: str) -> str:
    """Add the recipe's code as the next revision of the copy, and return its id."""
    last = max(copy.versions.glob("*.py")).name
    number = int(last[11:15]) + 1 if last.startswith("2099") else 0
    parent = copy.head if number == 0 else f"{number - 1:012x}"
    text = code if code.startswith('"""') else REVISION.format(code=code)
    text += f'\n\nrevision = "{number:012x}"\ndown_revision = "{parent}"\n'
    path = copy.versions / f"2099_01_01_{number:04}_{number:012x}_change_todo.py"
    path.write_text(text, encoding="utf-8")
    return f"{number:012x}"


def deploying(root: Path, url: URL) -> subprocess.Popen[str]:
    """Start `alembic upgrade head` in the checkout at root."""
    return subprocess.Popen(
        [sys.executable, "-B", "-m", "alembic", "-x", "report=json", "upgrade", "head"],
        cwd=root,
        env=os.environ | {"DATABASE_URL": url.render_as_string(hide_password=False)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclass
class Deployed:
    """The result of a deploy."""

    report: dict[str, Any]
    log: str


def deploy(root: Path, url: URL) -> Deployed:
    """Run `alembic upgrade head`, which must succeed."""
    with deploying(root, url) as process:
        out, err = process.communicate()
    assert process.returncode == 0, f"{out}\n{err}"
    return Deployed(json.loads(out), err)


def run_unsafely(url: URL, code: str) -> None:
    """Run a recipe's code as the owner in one transaction, without a lock timeout."""
    with connect(url) as connection, connection.begin():
        names: dict[str, Any] = {
            "op": Operations(MigrationContext.configure(connection)),
            "sa": sa,
        }
        exec(code, names)  # noqa: S102  # the README's code is under test
        if "upgrade" in names:
            names["upgrade"]()


@contextmanager
def blocking_transactions(url: URL) -> Iterator[None]:
    """Keep two transactions open for HOLD seconds: one with a changed row, one with a snapshot.

    Both begin before the block, and end before the context manager returns.
    """
    ready = threading.Barrier(3, timeout=60)

    def hold(isolation: str, query: LiteralString) -> None:
        with psycopg.connect(
            host=str(url.query["host"]), dbname=url.database, user=CLIENT
        ) as connection:
            connection.isolation_level = psycopg.IsolationLevel[isolation]
            connection.execute("SELECT set_config('app.user_id', %s, true)", [HOLDER])
            connection.execute(query)
            ready.wait()
            connection.execute("SELECT pg_sleep(%s)", [HOLD])

    changing = ("READ_COMMITTED", "UPDATE todo SET description = 'Held' WHERE title = 'Held'")
    reading = ("REPEATABLE_READ", "SELECT title FROM todo LIMIT 50")
    threads = [threading.Thread(target=hold, args=held) for held in (changing, reading)]
    for thread in threads:
        thread.start()
    ready.wait()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


@dataclass(frozen=True)
class Request:
    """One transaction of a client."""

    began: float
    """The scheduled time, in seconds since 1970."""
    ended: float
    failed: bool


class Clients:
    """The running clients, and their log."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        """Read their log, in that folder."""
        self._process = process
        self._folder = folder

    def longest(self, begin: float, end: float) -> float:
        """Wait until `end` has passed; return the milliseconds of the slowest request.

        Requests count if they were active between the two times.
        """
        while not self._past(end):
            assert self._process.poll() is None, f"no client is left: {self.errors()}"
            time.sleep(0.1)
        during = [one for one in self._requests() if one.ended >= begin and one.began <= end]
        return 1000 * max(one.ended - one.began for one in during if not one.failed)

    def failures(self) -> list[str]:
        """Return the errors of the clients; a client ends at an error that is not a deadlock."""
        counted = [f"failed at {one.ended}" for one in self._requests() if one.failed]
        return counted + self.errors()

    def errors(self) -> list[str]:
        """Return pgbench's error messages."""
        text = (self._folder / "errors").read_text(encoding="utf-8")
        return [line for line in text.splitlines() if "ERROR" in line or "error:" in line]

    def _past(self, moment: float) -> bool:
        return any(one.began > moment for one in self._requests())

    def _requests(self) -> list[Request]:
        found = []
        for log in self._folder.glob("log.*"):
            # The last line may be incomplete.
            for line in log.read_text(encoding="utf-8").splitlines()[:-1]:
                _client, _number, took, _script, seconds, fraction, *_lag = line.split()
                ended = int(seconds) + int(fraction) / 1e6
                failed = not took.isdigit()
                began = ended if failed else ended - int(took) / 1e6
                found.append(Request(began, ended, failed))
        return found


@contextmanager
def clients(binaries: Path, url: URL, folder: Path, users: int) -> Iterator[Clients]:
    """Run eight clients on that database, with their log in that folder."""
    folder.mkdir()
    (folder / "request.sql").write_text(REQUEST.format(users=users), encoding="utf-8")
    with ExitStack() as stack:
        errors = stack.enter_context((folder / "errors").open("wb"))
        process = subprocess.Popen(
            [
                binaries / "pgbench",
                f"--host={url.query['host']}",
                f"--username={CLIENT}",
                "--no-vacuum",
                "--file=request.sql",
                "--protocol=prepared",  # as psycopg does for frequent statements
                "--client=8",
                f"--rate={RATE}",
                "--time=3600",
                "--log",
                "--log-prefix=log",
                "--failures-detailed",
                str(url.database),
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            yield Clients(process, folder)
        finally:
            process.terminate()
            process.wait()


@dataclass(frozen=True)
class Measured:
    """The latency of the clients before and during a change."""

    before: float
    """Milliseconds of the slowest request in the two seconds before the change."""
    during: float
    """Milliseconds of the slowest request during the change."""
    failures: list[str]


def measure(
    server: Embedded, url: URL, folder: Path, users: int, *steps: Callable[[], None]
) -> Measured:
    """Run each step with blocking transactions, while the clients run."""
    with clients(server.binaries, url, folder, users) as crowd:
        time.sleep(2)
        quiet = time.time() - 0.1
        before = crowd.longest(quiet - 1.5, quiet)
        begin = time.time()
        for step in steps:
            with blocking_transactions(url):
                step()
        return Measured(before, crowd.longest(begin, time.time()), crowd.failures())


def fill(superuser: URL, users: int, todos: int) -> None:
    """Insert todos of those users, with the users in turn, as in real use."""
    with connect(superuser, autocommit=True) as connection:
        # Skip the checks of the foreign keys, which would take most of the time.
        connection.exec_driver_sql("SET session_replication_role = replica")
        connection.exec_driver_sql(f"""
            INSERT INTO "user" (id, name, email)
            SELECT md5(n::text)::uuid, 'User', n || '@example.org'
            FROM generate_series(1, {users}) AS n
            UNION ALL SELECT '{HOLDER}', 'Holder', 'holder@example.org'
        """)
        connection.exec_driver_sql(f"""
            INSERT INTO todo (user_id, title, due_at, completed_at)
            SELECT md5((1 + mod(n, {users}))::text)::uuid, 'Buy milk, number ' || n,
                   CASE WHEN mod(n, 3) = 0 THEN now() END,
                   CASE WHEN mod(n, 4) > 0 THEN now() END
            FROM generate_series(1, {todos}) AS n
            UNION ALL SELECT '{HOLDER}', 'Held', NULL, NULL
        """)
        connection.exec_driver_sql("VACUUM (ANALYZE) todo")
