"""A deploy that is interrupted at any point is completed by the next one.

The theory: an interrupted deploy has committed whole revisions and keeps no lock. The same command,
run again, ends with the schema and revision of an undisturbed deploy. This is tested at every
statement and commit of the history and of a concurrent index, up and down: all points with `--all`,
otherwise a sample.
"""

import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from sqlalchemy import URL, text

from schema.postgres.connection import connect
from tests.support.alembic_process import Fault, deploy, kill, state, stopped_at, terminator
from tests.support.frozen import FIRST, LAST
from tests.support.repo_copy import Launcher, copy_to
from tests.support.servers import Disposable, conninfo, disposable
from tests.support.waiting import when

BEFORE_THE_INDEX = LAST

SAMPLE = 1
"""Points of each fault and direction in the quick tier."""

LAST_WORDS = 3
"""At this many points before the end, no statement is left that needs a new connection."""

CONCURRENTLY = (
    """with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS todo_title_idx ON todo (title)")""",
    """with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS todo_title_idx")""",
)

# The session whose concurrent build waits for others.
UNDER_WAY = """
    SELECT p.pid FROM pg_stat_progress_create_index AS p JOIN pg_index AS i
    ON i.indexrelid = p.index_relid
    WHERE p.phase LIKE 'waiting for %' AND NOT i.indisvalid
"""

ALIVE = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = :pid AND state IS NOT NULL)"

FAULTS: dict[str, Callable[[Disposable], Fault]] = {
    "client killed": lambda _server: kill,
    "backend terminated": lambda server: terminator(server.superuser),
    "server killed": lambda server: lambda _process, _backend: _restart(server),
    "network cut": lambda server: lambda _process, _backend: server.proxy.cut(),
}
WAYS = {"up": ("upgrade", "head"), "down": ("downgrade", "base")}


def _restart(server: Disposable) -> None:
    server.kill()
    server.start()


@dataclass
class Place:
    """A server, a checkout, and the results of undisturbed deploys."""

    server: Disposable
    root: Path
    points: dict[str, int]
    """Number of statements and commits, by direction."""
    expected: dict[str, tuple[str, list[str]]]
    start: dict[str, URL]
    """The database in which each direction begins, to be cloned."""


@pytest.fixture(scope="module")
def place(
    request: pytest.FixtureRequest,
    run: Launcher,
    frozen: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    """A server for this module, and a history that ends with a concurrent index."""
    copy = copy_to(tmp_path_factory.mktemp("faults") / "checkout", frozen)
    copy.add(*CONCURRENTLY)
    with (
        disposable(request.config.option.postgres) as server,
        server.database() as empty,
        server.database() as head,
        server.database() as url,
    ):
        place = Place(server, copy.root, {}, {}, {"up": empty, "down": head})
        assert deploy(run, copy.root, head).code == 0
        with stopped_at(10**6, copy.root, kill) as before:
            for way, arguments in WAYS.items():
                result = deploy(run, copy.root, url, *arguments, before=before)
                assert result.code == 0, result.everything
                place.points[way] = int(re.findall(r"^points: (\d+)$", result.out, re.MULTILINE)[0])
                place.expected[way] = state(url)
        yield place


def cut_and_run_again(run: Launcher, place: Place, fault: Fault, way: str, point: int) -> None:
    """Interrupt a deploy at that point, and check the result of the next one."""
    with place.server.database(place.start[way]) as url:
        through = url.set(port=place.server.proxy.port)
        with stopped_at(point, place.root, fault) as before:
            first = deploy(run, place.root, through, *WAYS[way], before=before)
        if fault is kill:
            assert first.code == -signal.SIGKILL, first.everything
        else:  # it connected again and continued
            assert first.code == 0, first.everything
            assert point > place.points[way] - LAST_WORDS or "connecting again" in first.err
        again = deploy(run, place.root, through, *WAYS[way])
        outputs = f"point {point}\n{first.everything}\n{again.everything}"
        assert again.code == 0, outputs
        assert state(url) == place.expected[way], outputs


@pytest.mark.parametrize(
    ("fault", "way"),
    [
        # The quick tier tries each fault in one direction, in turn.
        pytest.param(
            fault,
            way,
            id=f"{fault}-{way}",
            marks=() if (place + turn) % 2 == 0 else pytest.mark.slow,
        )
        for place, fault in enumerate(FAULTS)
        for turn, way in enumerate(WAYS)
    ],
)
def test_a_sample_of_points(
    run: Launcher, place: Place, fault: str, way: str, record_property: Callable[..., None]
) -> None:
    """A few points, the same in every run of these revisions."""
    points = range(1, place.points[way] + 1)
    sample = random.Random(f"{fault} {way}").sample(points, SAMPLE)  # noqa: S311  # repeatable
    record_property("points", f"{sample} of {len(points)}")
    for point in sample:
        cut_and_run_again(run, place, FAULTS[fault](place.server), way, point)


@pytest.mark.parametrize(
    "fault",
    ["network cut", *(pytest.param(one, marks=pytest.mark.slow) for one in list(FAULTS)[:-1])],
)
def test_a_build_that_is_under_way(run: Launcher, place: Place, fault: str, tmp_path: Path) -> None:
    """The next deploy drops and rebuilds the invalid index of an interrupted concurrent build."""
    process = tmp_path / "process"

    def cut(url: URL, writer: Connection[Any]) -> None:
        with connect(url, autocommit=True) as observer:
            while (backend := observer.scalar(text(UNDER_WAY))) is None:
                time.sleep(0.02)
        FAULTS[fault](place.server)(int(process.read_text()), backend)
        with connect(url, autocommit=True) as observer:
            # The server notices by itself, within seconds, that the client is gone; where it does
            # not, the build waits for the writer, and this test for both.
            deadline = time.monotonic() + 30
            while observer.scalar(text(ALIVE), {"pid": backend}) and time.monotonic() < deadline:
                time.sleep(0.02)
        writer.close()

    with place.server.database() as url:
        assert deploy(run, place.root, url, "upgrade", BEFORE_THE_INDEX).code == 0
        # The build waits for this transaction to end.
        writer = psycopg.connect(conninfo(url))
        writer.execute("LOCK TABLE todo IN ROW EXCLUSIVE MODE")
        cutting = threading.Thread(target=cut, args=(url, writer))
        cutting.start()
        through = url.set(port=place.server.proxy.port)
        note = f"open({str(process)!r}, 'w').write(str(os.getpid()))"
        first = deploy(run, place.root, through, before=note)
        cutting.join()
        again = deploy(run, place.root, through)
        outputs = f"{first.everything}\n{again.everything}"
        assert again.code == 0, outputs
        assert state(url) == place.expected["up"], outputs


def test_a_server_that_is_not_there_yet(run: Launcher, place: Place) -> None:
    """The deploy waits for a server that is starting, such as Neon's computes, and logs it."""
    with place.server.database() as url:
        place.server.kill()
        with when(lambda: run.count("No connection yet to") > 0, place.server.start):
            result = deploy(run, place.root, url, "upgrade", FIRST)
        assert result.code == 0, result.everything
        assert "retrying" in result.err


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_point(
    run: Launcher, place: Place, fault: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every statement and every commit, one after the other."""
    points = range(1, place.points[way] + 1)
    for point in points:
        cut_and_run_again(run, place, FAULTS[fault](place.server), way, point)
    with capsys.disabled():
        print(f"\n{fault}, {way}: cut at {len(points)} points, none was lost")  # noqa: T201
