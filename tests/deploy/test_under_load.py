"""The recipes of migrations/README.md for a table in use, on a million todos under load.

To see the measured times, run this file in one process:
`scripts/test --all -n 0 tests/deploy/test_under_load.py`.
"""

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import IntegrityError, OperationalError

from schema.postgres.connection import connect
from schema.postgres.embedded import Embedded, embedded
from schema.postgres.scratch import Server, open_url
from schema.project import scripts
from schema.revisions.runner import upgrade
from tests.support.load import (
    CLIENT,
    Measured,
    Recipe,
    clients,
    deploy,
    deploying,
    fill,
    follow,
    measure,
    recipes,
    run_unsafely,
)
from tests.support.repo_copy import Checkout, copy_to

USERS = 10_000
TODOS = 1_000_000

SHARE_KEY = """
    ALTER TABLE todo ADD COLUMN share_key uuid;
    ALTER TABLE todo ALTER COLUMN share_key SET DEFAULT gen_random_uuid();
"""

# The result of the recipes for new columns; each todo has a parent that must be looked up.
GROWN = """
    ALTER TABLE todo ADD COLUMN parent_id uuid, ADD COLUMN priority text DEFAULT 'normal' NOT NULL,
                     ADD COLUMN share_key uuid DEFAULT gen_random_uuid();
    ALTER TABLE todo ALTER COLUMN parent_id TYPE uuid USING id;
"""

COLUMN = """
    SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'todo'::regclass AND NOT attisdropped
                   AND attname = '{0}' AND atthasdef = {1} AND attnotnull = {2})
"""
CONSTRAINT = "SELECT EXISTS (SELECT FROM pg_constraint WHERE conname = '{0}' AND convalidated)"
INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{0}')"
DONE = {
    "A column": COLUMN.format("parent_id", "false", "false"),
    "A default": COLUMN.format("share_key", "true", "false"),
    "A backfill": "SELECT NOT EXISTS (SELECT FROM todo WHERE share_key IS NULL)",
    "An index": INDEX.format("todo_user_id_parent_id_idx"),
    "A CHECK": CONSTRAINT.format("todo_priority_check"),
    "A FOREIGN KEY": CONSTRAINT.format("todo_user_id_parent_id_fkey"),
    "NOT NULL": COLUMN.format("share_key", "true", "true"),
    "UNIQUE": CONSTRAINT.format("todo_user_id_share_key_key"),
}
"""Queries that check a recipe's change on every row."""


@dataclass(frozen=True)
class Crowd:
    """A server with two databases full of todos, to be cloned."""

    embedded: Embedded
    server: Server
    head: URL
    """At the head."""
    grown: URL
    """With the columns that the recipes add."""

    @contextmanager
    def before(self, recipe: str) -> Iterator[URL]:
        """Clone a database in the state that the recipe expects."""
        new = recipe in {"A column", "A default", "A backfill"}
        with self.server.database(self.head if new else self.grown) as url:
            if recipe == "A backfill":
                with connect(url, autocommit=True) as connection:
                    connection.exec_driver_sql(SHARE_KEY)
            yield url


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    """Write a million todos."""
    with embedded() as started, open_url(started.owner) as server, server.database() as head:
        with connect(head) as connection:
            upgrade(connection, scripts())
        with connect(started.superuser, autocommit=True) as connection:
            connection.exec_driver_sql(f"CREATE ROLE {CLIENT} LOGIN IN ROLE todo_app")
        fill(started.superuser.set(database=head.database), USERS, TODOS)
        with server.database(head) as grown:
            with connect(grown, autocommit=True) as connection:
                connection.exec_driver_sql(GROWN)
                connection.exec_driver_sql("VACUUM (ANALYZE) todo")
            yield Crowd(started, server, head, grown)


def done(url: URL, recipe: str) -> bool:
    """Whether the recipe's change was made."""
    with connect(url) as connection:
        return bool(connection.exec_driver_sql(DONE[recipe]).scalar())


def changed_unsafely(crowd: Crowd, name: str, recipe: Recipe, folder: Path) -> Measured:
    """Run the bad example and measure it."""
    died = []
    with crowd.before(name) as url:
        code = recipe.bad
        if name == "A column":
            # The bad example fails. The good one, run without the deploy, blocks clients as well.
            with pytest.raises(IntegrityError):
                run_unsafely(url, code)
            (code,) = recipe.good

        def change() -> None:
            try:
                run_unsafely(url, code)
            except OperationalError as error:
                # In a deadlock with row locks, PostgreSQL ends the change or a client.
                if not isinstance(error.orig, psycopg.errors.DeadlockDetected):
                    raise
                died.append("the change itself: deadlock")

        measured = measure(crowd.embedded, url, folder / f"{name}, bad", USERS, change)
        assert died or done(url, name)
    return replace(measured, failures=[*measured.failures, *died])


def made_safely(crowd: Crowd, name: str, recipe: Recipe, folder: Path) -> tuple[Measured, int]:
    """Run the good example, measure it, and count the attempts."""
    copy = copy_to(folder / name)
    tries: list[int] = []

    with crowd.before(name) as url:

        def next_revision() -> None:
            followed = follow(copy, recipe.good[len(tries)])
            deployed = deploy(copy.root, url)
            assert deployed.report["after"] == followed, deployed.log
            tries.append(deployed.report["attempts"])

        steps = [next_revision] * len(recipe.good)
        measured = measure(crowd.embedded, url, folder / f"{name}, good", USERS, *steps)
        assert done(url, name)
    return measured, sum(tries)


@pytest.mark.slow
def test_nobody_waits_for_a_recipe(
    crowd: Crowd, tmp_path: Path, subtests: pytest.Subtests, capsys: pytest.CaptureFixture[str]
) -> None:
    """A good example does not disturb clients, even with long transactions; a bad one does.

    No request fails, and none waits as long as during the bad example.
    """
    with capsys.disabled():
        print(f"\n{'slowest request, ms':20} before   good     bad  ratio  tries  failed, bad")  # noqa: T201
    assert set(recipes()) == set(DONE)
    for name, recipe in recipes().items():
        with subtests.test(name):
            bad = changed_unsafely(crowd, name, recipe, tmp_path)
            good, tries = made_safely(crowd, name, recipe, tmp_path)
            before = max(bad.before, good.before)
            with capsys.disabled():
                print(  # noqa: T201
                    f"{name:20} {before:6.0f} {good.during:6.0f} {bad.during:7.0f}"
                    f" {bad.during / good.during:6.0f} {tries:6} {len(good.failures):7},"
                    f" {'; '.join(bad.failures) or 0}"
                )
            assert not good.failures
            # The transactions last for seconds, and the deploy waits for 200 ms: the factor allows
            # for a slow machine.
            assert good.during < bad.during / 4


@pytest.mark.slow
def test_a_backfill_that_is_killed_goes_on(crowd: Crowd, tmp_path: Path) -> None:
    """After a deploy that was killed in a backfill, the next one fills each remaining row once."""
    copy = copy_to(tmp_path / "checkout")
    follow(copy, recipes()["A backfill"].good[0])
    with (
        crowd.before("A backfill") as url,
        clients(crowd.embedded.binaries, url, tmp_path / "clients", USERS) as busy,
        connect(url, autocommit=True) as connection,
    ):
        with deploying(copy.root, url) as process:
            assert process.stderr is not None
            for line in process.stderr:
                filled = re.search(r"(\d+) todos filled", line)
                if filled and int(filled[1]) >= TODOS * 0.3:
                    process.kill()
        while connection.exec_driver_sql(
            "SELECT FROM pg_stat_activity WHERE application_name LIKE 'alembic on %%'"
        ).rowcount:
            time.sleep(0.1)
        connection.exec_driver_sql(
            "CREATE TEMPORARY TABLE filled AS SELECT * FROM todo WHERE share_key IS NOT NULL"
        )
        left = connection.scalar(text("SELECT count(*) FROM todo WHERE share_key IS NULL"))
        assert left
        second = deploy(copy.root, url)
        # A failed attempt has filled rows too, but does not log them.
        alone = second.report["attempts"] == 1
        assert not alone or f"{left} todos filled, none is left" in second.log
        assert done(url, "A backfill")
        again = """
            SELECT count(*) FROM filled JOIN todo USING (user_id, id)
            WHERE filled.share_key <> todo.share_key
        """
        assert connection.scalar(text(again)) == 0
        assert not busy.failures()


def test_a_row_that_somebody_has_locked(copy: Checkout, head: URL) -> None:
    """A backfill retries after a locked row, continues, and keeps the other session's value."""
    follow(copy, recipes()["A backfill"].good[0])
    mine = uuid.uuid4()
    with connect(head, autocommit=True) as connection:
        connection.exec_driver_sql(SHARE_KEY)
        connection.exec_driver_sql("""
            INSERT INTO "user" (id, name, email)
            SELECT gen_random_uuid(), 'User', n || '@example.org' FROM generate_series(1, 30) AS n
        """)
        connection.exec_driver_sql("""
            INSERT INTO todo (user_id, title, share_key)
            SELECT id, 'Buy milk', NULL FROM "user", generate_series(1, 100)
        """)
    with connect(head) as connection:
        connection.execute(
            text("""
                UPDATE todo SET share_key = :mine WHERE (user_id, id) IN
                (SELECT user_id, id FROM todo ORDER BY user_id, id OFFSET 1500 LIMIT 1)
            """),
            {"mine": mine},
        )
        with deploying(copy.root, head) as process:
            assert process.stderr is not None
            log = ""
            for line in process.stderr:
                log += line
                if "giving way" in line:
                    connection.commit()
        assert process.returncode == 0, log
        assert "giving way" in log
        # The first attempt filled the first batch of a thousand.
        assert "1999 todos filled, none is left" in log, log
        assert done(head, "A backfill")
        query = text("SELECT count(*) FROM todo WHERE share_key = :mine")
        assert connection.scalar(query, {"mine": mine}) == 1
