"""Changes to a table that others use meanwhile, and how long those others have to wait.

The clients are pgbench, a process of its own: Python's threads would measure each other. It sends
its transactions at times that it draws beforehand, and a request's time counts from when it was
due, so that what queues behind a stall is part of the stall.
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
"""The clients' login: in `todo_app`, and nothing else."""

HOLDER = "10000000-0000-4000-8000-000000000000"
"""The user whose row a long transaction has changed; the key order has a sixteenth of all before.

No client acts for it, so that no client waits for that transaction.
"""

HOLD = 5
"""Seconds that what is in the way stays there."""

RATE = 200
"""Requests a second: a fraction of what two cores can do, so that only waiting makes a queue."""

# Newest first, and a backfill goes the other way: each may have locked what the other one wants.
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
    """A recipe of migrations/README.md: a careless way, and the revisions of the safe one."""

    bad: str
    good: tuple[str, ...]


def recipes() -> dict[str, Recipe]:
    """Read the recipes, by what they begin with."""
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
    """Write the recipe's code as the next revision of the copy, and name that."""
    last = max(copy.versions.glob("*.py")).name
    number = int(last[11:15]) + 1 if last.startswith("2099") else 0
    parent = copy.head if number == 0 else f"{number - 1:012x}"
    text = code if code.startswith('"""') else REVISION.format(code=code)
    text += f'\n\nrevision = "{number:012x}"\ndown_revision = "{parent}"\n'
    path = copy.versions / f"2099_01_01_{number:04}_{number:012x}_change_todo.py"
    path.write_text(text, encoding="utf-8")
    return f"{number:012x}"


def deploying(root: Path, url: URL) -> subprocess.Popen[str]:
    """Start `alembic upgrade head` in the checkout at root, as it is typed."""
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
    """How a deploy ended."""

    report: dict[str, Any]
    log: str


def deploy(root: Path, url: URL) -> Deployed:
    """Run `alembic upgrade head`, which must come through."""
    with deploying(root, url) as process:
        out, err = process.communicate()
    assert process.returncode == 0, f"{out}\n{err}"
    return Deployed(json.loads(out), err)


def carelessly(url: URL, code: str) -> None:
    """Run a recipe's code as the owner: in one transaction, waiting for locks without an end."""
    with connect(url) as connection, connection.begin():
        names: dict[str, Any] = {
            "op": Operations(MigrationContext.configure(connection)),
            "sa": sa,
        }
        exec(code, names)  # noqa: S102  # our own README's code is what is tried
        if "upgrade" in names:
            names["upgrade"]()


@contextmanager
def in_the_way(url: URL) -> Iterator[None]:
    """Hold for seconds what an application may hold: a row that it changed, and a snapshot.

    Both begin before the block does, and have ended when it is left.
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
    """When it was due; seconds since 1970, as pgbench writes them."""
    ended: float
    failed: bool


class Clients:
    """The clients that run, and what they have met so far."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        """Read their log, in that folder."""
        self._process = process
        self._folder = folder

    def longest(self, begin: float, end: float) -> float:
        """Wait until the clients are past the end; the milliseconds of the slowest request.

        Every request counts that was under way between the two moments.
        """
        while not self._past(end):
            assert self._process.poll() is None, f"no client is left: {self.errors()}"
            time.sleep(0.1)
        during = [one for one in self._requests() if one.ended >= begin and one.began <= end]
        return 1000 * max(one.ended - one.began for one in during if not one.failed)

    def failures(self) -> list[str]:
        """What was refused to a client; one that met an error which is not a deadlock is gone."""
        counted = [f"failed at {one.ended}" for one in self._requests() if one.failed]
        return counted + self.errors()

    def errors(self) -> list[str]:
        """What pgbench complained of."""
        text = (self._folder / "errors").read_text(encoding="utf-8")
        return [line for line in text.splitlines() if "ERROR" in line or "error:" in line]

    def _past(self, moment: float) -> bool:
        return any(one.began > moment for one in self._requests())

    def _requests(self) -> list[Request]:
        found = []
        for log in self._folder.glob("log.*"):
            # The last line may be half written.
            for line in log.read_text(encoding="utf-8").splitlines()[:-1]:
                _client, _number, took, _script, seconds, fraction, *_lag = line.split()
                ended = int(seconds) + int(fraction) / 1e6
                failed = not took.isdigit()
                began = ended if failed else ended - int(took) / 1e6
                found.append(Request(began, ended, failed))
        return found


@contextmanager
def clients(binaries: Path, url: URL, folder: Path, users: int) -> Iterator[Clients]:
    """Run eight clients on that database, and leave their log in that folder."""
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
                "--protocol=prepared",  # as psycopg does with what it executes often
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
    """What the clients saw of a change."""

    before: float
    """Milliseconds of the slowest request in the two seconds before anything was done."""
    during: float
    """The same, while the change was made."""
    failures: list[str]


def measure(
    server: Embedded, url: URL, folder: Path, users: int, *steps: Callable[[], None]
) -> Measured:
    """Make a change, step by step, each with something in its way, while the clients run."""
    with clients(server.binaries, url, folder, users) as crowd:
        time.sleep(2)
        quiet = time.time() - 0.1
        before = crowd.longest(quiet - 1.5, quiet)
        begin = time.time()
        for step in steps:
            with in_the_way(url):
                step()
        return Measured(before, crowd.longest(begin, time.time()), crowd.failures())


def fill(superuser: URL, users: int, todos: int) -> None:
    """Write down todos for those users, in the order in which users write: one after the other."""
    with connect(superuser, autocommit=True) as connection:
        # The foreign keys hold by construction; looking each row up would take most of the time.
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
