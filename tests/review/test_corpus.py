"""The labels of the corpus are what PostgreSQL does.

The theory: a corpus can only judge a review if its labels are right. They come from PostgreSQL's
documentation; here each is compared with what tests/review/measure.py sees on a real server. It
takes a third of a second for each migration, so the quick tier measures a sample.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import Server
from tests.review.ground import Ground, prepared
from tests.review.labels import HAZARDS, Labels, Migration, migrations
from tests.review.measure import disagreements

NEWEST = VERSIONS[0]
NEWEST_SAMPLE, OLDER_SAMPLE = 24, 48
"""The quick tier measures one of this many migrations."""
MIGRATIONS = migrations()


def cases() -> list[Any]:
    """Pair each migration with each version that has it; outside the sample, tests are slow."""
    parameters = []
    for version in VERSIONS:
        sample = NEWEST_SAMPLE if version == NEWEST else OLDER_SAMPLE
        for number, migration in enumerate(MIGRATIONS):
            if migration.since <= version:
                slow = pytest.mark.slow if number % sample else ()
                name = f"pg{version} {migration.name}"
                parameters.append(pytest.param(version, migration, id=name, marks=slow))
    return parameters


@pytest.fixture(scope="module")
def grounds(servers: dict[int, Server]) -> Iterator[dict[int, Ground]]:
    """The corpus's schema on each server."""
    with ExitStack() as stack:
        yield {
            version: stack.enter_context(prepared(server)) for version, server in servers.items()
        }


@pytest.fixture
def ground(grounds: dict[int, Ground]) -> Ground:
    """The corpus's schema on one of the servers."""
    return next(iter(grounds.values()))


@pytest.mark.parametrize(("version", "migration"), cases())
def test_measured(version: int, migration: Migration, grounds: dict[int, Ground]) -> None:
    """What is measured on that version is what the labels say."""
    if version not in grounds:
        pytest.skip(f"this run has no server of version {version}")
    assert disagreements(migration, grounds[version]) == []


WRONG: dict[str, tuple[str, Labels]] = {
    "a weaker lock": ("locks", {"locks": frozenset({"item SHARE"})}),
    "no lock": ("locks", {"locks": frozenset()}),
    "a rewrite that did not happen": ("rewrites", {"rewrites": frozenset({"item"})}),
    "no scan": ("scans", {"scans": frozenset()}),
    "no lock held": ("held", {"held": frozenset()}),
    "no rows written": ("writes", {"writes": frozenset()}),
    "an error that did not happen": ("fails", {"fails": frozenset({"yes"})}),
}
"""Wrong labels of a migration that adds a column and fills it, and the one that is noticed."""


@pytest.mark.sample(2)
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_label(wrong: str, ground: Ground) -> None:
    """A label that is wrong is noticed, and it alone."""
    migration = next(
        one for one in MIGRATIONS if one.name == "add a column and fill it in one transaction"
    )
    label, labels = WRONG[wrong]
    right = migration.labels(ground.version)
    changed = right | labels
    found = disagreements(replace(migration, _labels=changed), ground)
    assert [line.partition(":")[0] for line in found] == [label]


def hazards(labels: Labels) -> set[str]:
    """Return the kinds of hazards that the labels name."""
    return {
        kind
        for kind, (label, value) in HAZARDS.items()
        if (value is None and labels.get(label)) or value in labels.get(label, ())
    }


def test_verdicts() -> None:
    """A safe migration has no label of a hazard; a hazard's kind is one of its labels."""
    for migration, version in product(MIGRATIONS, VERSIONS):
        found = hazards(migration.labels(version))
        right = migration.hazard in found if migration.hazard else not found
        assert right, (migration.name, version, found)


def test_what_is_lost() -> None:
    """What is lost cannot be restored; each migration names the documentation."""
    for migration in MIGRATIONS:
        labels = migration.labels(NEWEST)
        assert not labels.get("loses") or "no" in labels.get("reversible", ()), migration.name
        assert migration.source, migration.name


def test_corpus() -> None:
    """The corpus is large, half of it is safe, and it has a migration of each kind of hazard."""
    kinds = Counter(migration.hazard for migration in MIGRATIONS)
    names = Counter(migration.name for migration in MIGRATIONS)
    assert len(MIGRATIONS) >= 60
    assert 0.4 <= kinds[None] / len(MIGRATIONS) <= 0.6
    assert set(HAZARDS) <= set(kinds)
    assert max(names.values()) == 1
