"""The review finds what the corpus calls a hazard, and calls safe what is.

The theory: a false alarm on a safe migration is as bad as a miss. The labels were taken from
PostgreSQL's documentation before the review existed, and are measured by a script of their own.
`python -m tests.review.figures` prints the figures.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import URL

from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import Server
from tests.review.figures import agrees, linted, reviewed, small_base
from tests.review.ground import Ground, prepared
from tests.review.labels import Migration, migrations

pytestmark = pytest.mark.slow
MIGRATIONS = migrations()


def cases() -> list[Any]:
    """Pair each migration with each version that has it."""
    return [
        pytest.param(version, migration, id=f"pg{version} {migration.name}")
        for version in VERSIONS
        for migration in MIGRATIONS
        if migration.since <= version
    ]


@pytest.fixture(scope="module")
def grounds(
    servers: dict[int, Server], superusers: dict[int, URL]
) -> Iterator[dict[int, tuple[Server, Ground, URL]]]:
    """The corpus's schema on each server, with many rows and with few."""
    with ExitStack() as stack:
        found = {}
        for version, server in servers.items():
            as_superuser = replace(server, superuser=superusers[version])
            found[version] = (
                as_superuser,
                stack.enter_context(prepared(as_superuser)),
                stack.enter_context(small_base(as_superuser)),
            )
        yield found


@pytest.mark.parametrize(("version", "migration"), cases())
def test_verdict(
    version: int, migration: Migration, grounds: dict[int, tuple[Server, Ground, URL]]
) -> None:
    """The findings of a hazard are of its kinds; a safe migration has none."""
    if version not in grounds:
        pytest.skip(f"this run has no server of version {version}")
    server, base, small = grounds[version]
    assert agrees(migration, reviewed(server, base, small, migration), version)


def test_squawk_alone() -> None:
    """The rival that the figures name does find something, and not everything."""
    hazards = [one for one in MIGRATIONS if one.hazard]
    found = [one for one in hazards if linted(one, VERSIONS[0])]
    assert 0 < len(found) < len(hazards)
