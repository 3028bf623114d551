"""Every revision goes up, down and up again, and then the whole history down to nothing and up.

The schema after a downgrade must equal the one before its upgrade, fact by fact. A revision that
says it cannot be undone is only applied, and nothing below it is undone either.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import URL, Connection

from migrations import snapshot
from schema.checks.result import CheckResult, Failure
from schema.postgres.connection import connect, describe_error, statement_of
from schema.revisions.history import is_irreversible, revisions_oldest_first
from schema.revisions.runner import downgrade_step, run, upgrade_step
from schema.text import pluralize

REMEDY = "Make its downgrade undo exactly what its upgrade does."


def check(url: URL, scripts: ScriptDirectory, tell: Callable[[str], None]) -> CheckResult:
    """Prove it on an empty database; `tell` is told of each step.

    The first failure ends the walk: what follows it would start from the wrong schema.
    """
    with connect(url) as connection, connect(url, autocommit=True) as observer:
        walk = _Walk(scripts, observer, tell)
        try:
            run(connection, scripts, walk.steps)
        except Exception as error:  # noqa: BLE001  # a revision may raise whatever it likes
            message = f"The {walk.step} fails: {describe_error(error)}."
            walk.failures.append(Failure(message, "Fix the revision.", statement_of(error)))
    covered = f"{pluralize(len(walk.revisions), 'revision')} up, down, up; {walk.reads} snapshots"
    if walk.irreversible:
        covered += f"; {len(walk.irreversible)} irreversible"
    return CheckResult(covered, walk.failures)


class _Walk:
    """The steps of the walk, what is compared between them, and what went wrong.

    Each schema is read once: what stands before a revision is what stood after its parent.
    """

    def __init__(
        self, scripts: ScriptDirectory, observer: Connection, tell: Callable[[str], None]
    ) -> None:
        self.scripts = scripts
        self.observer = observer
        self.tell = tell
        self.revisions = revisions_oldest_first(scripts)
        self.irreversible = [one for one in self.revisions if is_irreversible(one)]
        self.failures: list[Failure] = []
        self.reads = 0
        self.step = ""

    def steps(self, _context: MigrationContext) -> Iterator[MigrationStep]:
        """Yield each step; what stands after a `yield` happens after the step was committed."""
        empty = before = self._read()
        for revision in self.revisions:
            yield self._up("upgrade", revision)
            if revision not in self.irreversible:
                yield self._down("downgrade", revision)
                if self._differ("does not restore the schema from before its upgrade", before):
                    return
                yield self._up("second upgrade", revision)
            before = self._read()
        final = self.irreversible[-1:]
        undone = self.revisions[self.revisions.index(final[0]) + 1 :] if final else self.revisions
        for revision in reversed(undone):
            yield self._down("downgrade, on the way from the head to nothing,", revision)
        if not final and self._differ("leaves something behind", empty):
            return
        for revision in undone:
            yield self._up("upgrade, after everything was undone,", revision)
        self._differ("leads to another schema than at first", before)

    def _up(self, what: str, revision: Script) -> MigrationStep:
        self._say(what, revision)
        return upgrade_step(self.scripts, revision)

    def _down(self, what: str, revision: Script) -> MigrationStep:
        self._say(what, revision)
        return downgrade_step(self.scripts, revision)

    def _say(self, what: str, revision: Script) -> None:
        self.step = f"{what} of {Path(revision.path).name}"
        self.tell(f"{what} {revision.revision}")

    def _read(self) -> snapshot.Snapshot:
        self.reads += 1
        return snapshot.read(self.observer)

    def _differ(self, message: str, expected: snapshot.Snapshot) -> bool:
        found = self._read()
        if found == expected:
            return False
        detail = snapshot.difference(expected, found)
        self.failures.append(Failure(f"The {self.step} {message}.", REMEDY, detail))
        return True
