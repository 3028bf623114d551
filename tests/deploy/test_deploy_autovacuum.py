"""A deploy succeeds while autovacuum works on the table.

The theory: PostgreSQL cancels autovacuum when a session has waited for its lock for
deadlock_timeout (1 second). A deploy does not wait that long in a mode that blocks others. So it
waits in a mode that does not, and then retries.
"""

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import URL, text

from schema.postgres.connection import connect
from tests.support.alembic_process import deploy, report
from tests.support.repo_copy import Checkout, Launcher, sql
from tests.support.servers import Disposable, disposable

pytestmark = pytest.mark.slow

ROWS = 200_000

WORKING = """
    SELECT EXISTS (SELECT FROM pg_stat_activity
                   WHERE backend_type = 'autovacuum worker' AND query LIKE '%.verification%')
"""


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Disposable]:
    """A server with a frequent and slow autovacuum."""
    with disposable(request.config.option.postgres) as server:
        with connect(server.superuser, autocommit=True) as connection:
            for setting in (
                "autovacuum_naptime = '1s'",
                "autovacuum_vacuum_cost_delay = '100ms'",
                "autovacuum_vacuum_cost_limit = 1",
            ):
                connection.exec_driver_sql(f"ALTER SYSTEM SET {setting}")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        yield server


def busy(url: URL) -> None:
    """Fill a table, empty it, and wait until autovacuum works on it."""
    with connect(url, autocommit=True) as connection:
        connection.exec_driver_sql(
            'INSERT INTO verification (identifier, value, "expiresAt")'
            f" SELECT n, n, now() FROM generate_series(1, {ROWS}) AS n"
        )
        connection.exec_driver_sql("DELETE FROM verification")
        deadline = time.monotonic() + 60
        while not connection.scalar(text(WORKING)):
            assert time.monotonic() < deadline, "autovacuum did not come"
            time.sleep(0.1)


OFF = """
from migrations.deploy.lock_monitor import LockMonitor
LockMonitor.wait_for_autovacuum = lambda *_: None
"""


def test_autovacuum_leaves(run: Launcher, copy: Checkout, server: Disposable) -> None:
    """The deploy fails without wait_for_autovacuum; with it, others wait only briefly."""
    with server.database() as url:
        assert deploy(run, copy.root, url).code == 0
        copy.add(sql("ALTER TABLE verification ADD COLUMN note text"))
        busy(url)
        arguments = ("-x", "timeout-minutes=0.05", "-x", "report=json", "upgrade", "head")
        without = deploy(run, copy.root, url, *arguments, before=OFF)
        assert without.code == 1, without.everything
        assert "autovacuum worker" in without.err
        stalls = [0.0]
        done = threading.Event()

        def read() -> None:
            with connect(url, autocommit=True) as connection:
                while not done.is_set():
                    start = time.monotonic()
                    connection.exec_driver_sql("SELECT FROM verification LIMIT 1")
                    stalls.append(time.monotonic() - start)

        reader = threading.Thread(target=read)
        reader.start()
        result = deploy(run, copy.root, url, *arguments)
        done.set()
        reader.join()
        assert result.code == 0, result.everything
        assert report(result)["revisions"][0]["attempts"] > 1
        assert max(stalls) < 1
