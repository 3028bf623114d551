"""What autogenerate and its rivals make of changed schemas: `python -m tests.revision.rivals`.

Each change of tests/snapshot/changes.sql that a database's owner can make is made in the models,
and each rival writes the upgrade of a database with rows. `detected / repaired / kept`: it finds
something, its upgrade leads to exactly the schema of the models, and every row is kept then.
`--write` puts the table into migrations/README.md; `--times` compares times of `alembic check`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from migrations import snapshot
from schema.errors import CannotRunError
from schema.postgres.connection import connect
from schema.postgres.embedded import embedded
from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import Server, open_url
from schema.project import ROOT
from schema.revision.author import Servers
from tests.revision import rival_ours, rival_table, rival_times
from tests.revision.rival_ground import Case, Ground, Outcome, changes, ground, no_changes
from tests.revision.rival_processes import VARIANTS, Rival, best, environment, rival
from tests.revision.rival_table import OURS, Column, Table
from tests.revision.workshop import SCHEMA, Workshop, open_workshop
from tests.snapshot.test_snapshot import Change, prepare

_README = ROOT / "migrations" / "README.md"


@contextmanager
def servers(postgres: str) -> Iterator[Servers]:
    """Start two servers with the roles of the schema: roles belong to a server."""
    with ExitStack() as stack:
        started: list[Server] = []
        for _ in range(2):
            server = stack.enter_context(embedded(postgres))
            prepare(server.superuser)
            started.append(stack.enter_context(open_url(server.owner, server.superuser)))
        yield Servers(*started)


@contextmanager
def grounds(postgres: str) -> Iterator[tuple[Workshop, Ground]]:
    """Make our history, and the databases for every rival."""
    with ExitStack() as stack:
        both = stack.enter_context(servers(postgres))
        patches = stack.enter_context(pytest.MonkeyPatch.context())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shop = stack.enter_context(open_workshop(both, folder, SCHEMA, patches))
        full = stack.enter_context(shop.at_head())
        owner, superuser = both.history.maintenance, both.history.superuser
        other = stack.enter_context(open_url(owner, superuser))  # of the rivals' own
        yield shop, stack.enter_context(ground(other, full))


@dataclass
class Measurement:
    """The rivals at work, and what they have made of the changes so far."""

    shop: Workshop
    base: Ground
    variants: dict[str, list[Rival]]
    pool: ThreadPoolExecutor
    details: Path
    """Where each outcome is noted: what is there already is not measured again."""
    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    """By change and by rival; none of a change that makes no difference."""
    stirred: dict[str, list[str]] = field(default_factory=dict)
    """The statements that change no schema, and in which a rival finds something."""

    def read(self) -> None:
        """Read what an earlier run has noted."""
        if self.details.exists():
            for line in self.details.read_text(encoding="utf-8").splitlines():
                change, found = json.loads(line)
                self.outcomes[change] = {name: Outcome(**one) for name, one in found.items()}

    def measure(self, change: Change) -> None:
        """Let every rival do a change."""
        with connect(self.base.bare) as connection:
            before = snapshot.read(connection)
        with self.base.case(change) as case:
            # A clone of a database has no comment and no settings: removing them is no change.
            found = self._outcomes(case) if case.facts != before else {}
        self.outcomes[change.name] = found
        line = {name: asdict(one) for name, one in found.items()}
        with self.details.open("a", encoding="utf-8") as file:
            file.write(json.dumps([change.name, line]) + "\n")

    def _outcomes(self, case: Case) -> dict[str, Outcome]:
        theirs = self.pool.submit(self._theirs, case)
        ours = rival_ours.ours(self.shop, self.base, case)
        return theirs.result() | {OURS: ours}

    def _theirs(self, case: Case) -> dict[str, Outcome]:
        """Let each rival do it, unless one that uses less has done it completely."""
        found: dict[str, Outcome] = {}
        for name, rivals in self.variants.items():
            done = [found["configured"]] if "configured" in found else []
            if not any(one.kept for one in done):
                done += list(self.pool.map(lambda one: one.measure(case), rivals))
            found[name] = best(done)
        return found

    def stir(self, change: Change) -> None:
        """Execute statements that change no schema, and note which rival finds something."""
        for name, rivals in self.variants.items():
            if any(list(self.pool.map(lambda one: one.is_alarmed(change), rivals))):
                self.stirred.setdefault(name, []).append(change.name)
        if rival_ours.is_alarmed(self.shop, change):
            self.stirred.setdefault(OURS, []).append(change.name)

    def table(self, every: Sequence[Change], unchanged: int) -> Table:
        """Return the table of the changes, in their order."""
        versions: dict[str, str] = {}
        columns = {name: Column() for name in (*self.variants, OURS)}
        for name, column in columns.items():
            column.stirred = self.stirred.get(name, [])
            for change in every:
                if found := self.outcomes.get(change.name):
                    column.outcomes[change.name] = found[name]
        left_out: list[str] = []
        for name, rivals in self.variants.items():
            columns[name].alarms = len({alarm for one in rivals for alarm in one.alarms})
            for one in rivals:
                versions |= one.versions
                left_out += one.left_out
        missing = sum(one.name not in self.outcomes for one in every)
        version = self.base.server.version
        return Table(version, versions, columns, unchanged, left_out, missing)


@contextmanager
def measurement(postgres: str, details: Path | None) -> Iterator[Measurement]:
    """Make the environment, the databases and the rivals.

    Raises:
        CannotRunError: that is not possible.

    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        python = environment(folder)
        shop, base = stack.enter_context(grounds(postgres))
        variants = {
            name: [stack.enter_context(rival(python, uses, base)) for uses in variants]
            for name, variants in VARIANTS.items()
        }
        pool = stack.enter_context(ThreadPoolExecutor())
        yield Measurement(shop, base, variants, pool, details or folder / "details")


def spread(changes: Sequence[Change], step: int = 8) -> list[Change]:
    """Order changes so that the first ones are of every kind."""
    return [one for start in range(step) for one in changes[start::step]]


def table(chosen: argparse.Namespace) -> str:
    """Measure, and return the table."""
    deadline = time.monotonic() + 60 * chosen.minutes
    with measurement(chosen.postgres, chosen.details) as found:
        found.read()
        version = int(found.base.server.version.partition(".")[0])
        every = [
            one for one in changes(version)
            if not chosen.name or any(part in one.name for part in chosen.name)
        ]  # fmt: skip  # one line per clause
        for change in spread(every):
            if change.name not in found.outcomes and time.monotonic() < deadline:
                found.measure(change)
        unchanged = no_changes(version)
        for change in unchanged:
            found.stir(change)
        return found.table(every, len(unchanged)).text()


def main() -> int:
    """Print the table, or the times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--postgres", default=str(VERSIONS[0]), help="major version, or a folder")
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    parser.add_argument("--times", action="store_true", help="compare times of alembic check")
    parser.add_argument("--details", type=Path, help="a file for the outcomes; it is continued")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no change after that")
    parser.add_argument("name", nargs="*", help="only changes whose name contains one of these")
    chosen = parser.parse_args()
    if chosen.times:
        rival_times.report(chosen.postgres)
        return 0
    try:
        text = table(chosen)
    except CannotRunError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(text)
    if chosen.write:
        rival_table.write(_README, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
