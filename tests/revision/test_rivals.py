"""The table of rivals measures what it claims.

The theory: a rival is credited with what it finds and nothing finds on equal schemas, with an
upgrade that leads to exactly the schema, and with rows that are what the change itself leaves.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import URL

from schema.postgres.scratch import Server
from schema.revision.author import Servers
from tests.revision import rival_table, rival_times
from tests.revision.rival_ground import Ground, Outcome, changes, execute, ground, no_changes
from tests.revision.rival_processes import Rival, best, rival
from tests.revision.rival_table import OURS, Column, Table
from tests.revision.workshop import SCHEMA, open_workshop
from tests.snapshot.test_snapshot import Change, prepare

ALEMBIC = Path(sys.executable)
"""The project's environment has Alembic, and none of the packages."""


@pytest.fixture(scope="module")
def base(
    server: Server, superusers: dict[int, URL], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:
    """The databases for the rivals."""
    superuser = superusers[int(server.version.partition(".")[0])]
    prepare(superuser)
    servers = Servers(server, server)
    folder = tmp_path_factory.mktemp("history")
    with (
        pytest.MonkeyPatch.context() as patches,
        open_workshop(servers, folder, SCHEMA, patches) as shop,
        shop.at_head() as full,
        ground(replace(server, superuser=superuser), full) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def alembic(base: Ground) -> Iterator[Rival]:
    """Alembic as it is installed."""
    with rival(ALEMBIC, [], base) as found:
        yield found


def change(name: str) -> Change:
    """Return a change of changes.sql."""
    (found,) = (one for one in changes(18) if one.name == name)
    return found


def outcome(one: Rival, name: str) -> Outcome:
    """Let a rival do a change."""
    with one.ground.case(change(name)) as case:
        return one.measure(case)


def by_hand(base: Ground, name: str, *statements: str) -> Outcome:
    """Let statements be the upgrade that a rival has written for a change."""
    found = Outcome(detected=True)
    with base.case(change(name)) as case, base.clone(base.full) as url:
        execute(url, ";".join(statements))
        base.judge(case, url, found)
    return found


@pytest.mark.slow
def test_what_alembic_sees(alembic: Rival) -> None:
    """As it is installed, Alembic finds and repairs a column's type, and sees no policy."""
    found = outcome(alembic, "column: type")
    assert (found.detected, found.repaired, found.kept, found.crash) == (True, True, True, None)
    found = outcome(alembic, "policy: created")
    assert (found.detected, found.repaired, found.crash) == (False, False, None)


@pytest.mark.slow
def test_what_alembic_loses(alembic: Rival) -> None:
    """Autogenerate drops a renamed column, and adds another one: what was in it is lost."""
    found = outcome(alembic, "column: renamed")
    assert (found.detected, found.lost, found.kept) == (True, True, False)


@pytest.mark.slow
def test_a_false_alarm_is_no_detection(base: Ground) -> None:
    """What a rival finds on equal schemas does not count as finding a change."""
    with rival(ALEMBIC, ["settings"], base) as configured:
        assert any("nextval" in one for one in configured.alarms)
        assert not outcome(configured, "policy: created").detected
        assert outcome(configured, "constraint: check added").detected
        assert not configured.is_alarmed(no_changes(18)[0])


@pytest.mark.slow
def test_a_crash_is_a_miss(alembic: Rival) -> None:
    """A rival that ends with an error has not found anything, and goes on with the next change."""
    with alembic.ground.case(change("column: type")) as case:
        nowhere = replace(case, target=case.target.set(database="nowhere"))
        found = alembic.measure(nowhere)
    assert found.crash is not None
    assert not found.detected
    assert outcome(alembic, "column: type").repaired


_MASS = "mass double precision DEFAULT '0.123456789'"
_WEIGHT = _MASS.replace("mass", "weight")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "statements", "kept"),
    [
        ("column: renamed", ["ALTER TABLE reader RENAME weight TO mass"], True),
        ("column: renamed", [f"ALTER TABLE reader DROP weight, ADD {_MASS}"], False),
        (
            "table: comment removed",
            ["COMMENT ON TABLE reader IS NULL", f"ALTER TABLE reader DROP weight, ADD {_WEIGHT}"],
            False,
        ),
        ("table: comment removed", ["COMMENT ON TABLE reader IS NULL", "DELETE FROM lamp"], False),
        ("table: comment removed", ["COMMENT ON TABLE reader IS NULL"], True),
        ("column: dropped", ["ALTER TABLE reader DROP weight"], True),
    ],
)
def test_kept_rows(base: Ground, name: str, statements: Sequence[str], kept: bool) -> None:
    """Each upgrade leads to the schema; those that drop values that the change keeps lose rows."""
    found = by_hand(base, name, *statements)
    assert found.repaired
    assert found.kept is kept


@pytest.mark.slow
def test_another_schema_is_no_repair(base: Ground) -> None:
    """An upgrade that does half of a change has not repaired it."""
    assert not by_hand(base, "column: renamed", "ALTER TABLE reader ADD mass integer").repaired


def test_the_best_outcome() -> None:
    """Of several runs of a rival, the best one counts."""
    crashed, found, done = Outcome(crash="e"), Outcome(detected=True), Outcome(True, True)
    assert best([replace(crashed, crashes=1), found, done]) == replace(done, crashes=1)
    assert best([crashed, Outcome()]).crash is None


def test_the_table(tmp_path: Path) -> None:
    """The table has a row per kind, and replaces the one between the markers."""
    outcomes = {"column: a": Outcome(True, True), "column: b": Outcome(True), "view: c": Outcome()}
    columns = {
        "Alembic": Column(outcomes, alarms=2),
        OURS: Column({one: Outcome(True, True, asked=True) for one in outcomes}),
    }
    text = Table("18.4", {"alembic": "1.20.1"}, columns, 9, []).text()
    assert "| column | 2 | 2 / 1 / 1 | 2 / 2 / 2 |\n| view | 1 | 0 / 0 / 0 | 1 / 1 / 1 |\n" in text
    assert "| **all** | 3 | 2 / 1 / 1 | 3 / 3 / 3 |" in text
    assert "unchanged schema: Alembic 2, schema revision 0" in text
    file = tmp_path / "README.md"
    file.write_text(f"a\n{rival_table._BEGIN}\nold\n{rival_table._END}\nb\n")  # noqa: SLF001  # the markers
    rival_table.write(file, text)
    assert file.read_text() == (
        f"a\n{rival_table._BEGIN}\n\n{text}\n{rival_table._END}\nb\n"  # noqa: SLF001  # as above
    )


@pytest.mark.slow
def test_both_comparisons_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    """Both checkouts pass `alembic check` on the database that is compared."""
    rival_times.report("18", runs=1, sizes=[0])
    assert "Alembic's" in capsys.readouterr().out
