"""Upgrade, downgrade and upgrade each revision, then downgrade the history to base and upgrade it.

The schema after a downgrade must equal the schema before the upgrade, fact by fact, and so must the
values of the rows that were there. An irreversible revision is only upgraded, and the downgrade to
base stops above it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DataError, IntegrityError

from migrations import snapshot
from migrations.snapshot.fingerprints import BASE
from schema.checks.result import CheckResult, Failure, RowCoverage
from schema.checks.row_values import RowValues, malformed
from schema.postgres.connection import connect, describe_error, statement_of
from schema.revisions.history import is_irreversible, revisions_oldest_first
from schema.revisions.runner import downgrade_step, run, upgrade_step
from schema.revisions.schemas import Schemas
from schema.text import pluralize

REMEDY = "Make its downgrade undo exactly what its upgrade does."


def check(
    url: URL, scripts: ScriptDirectory, progress: Callable[[str], None]
) -> tuple[CheckResult, Schemas]:
    """Check it on an empty database; `progress` is called with the name of each step.

    Return the schema at each revision too, up to the first failure.

    The check stops at the first failure: later steps would start from the wrong schema.
    """
    with (
        connect(url) as connection,
        connect(url, autocommit=True) as observer,
        connect(url) as writer,
    ):
        rows = RowValues(writer)
        walk = _Walk(scripts, observer, rows, progress)
        walk.failures += malformed(walk.revisions)
        if walk.failures:
            return CheckResult("what the revisions declare", walk.failures), walk.schemas
        try:
            run(connection, scripts, walk.steps)
        except Exception as error:  # noqa: BLE001  # a revision may raise whatever it likes
            message = f"The {walk.step} fails: {describe_error(error)}."
            walk.failures.append(Failure(message, _remedy(error, walk.step), statement_of(error)))
    covered = (
        f"{pluralize(len(walk.revisions), 'revision')} up, down, up,"
        f" {_row_coverage(rows.coverage)}; {walk.reads} snapshots"
    )
    if rows.discarded:
        tables = sum("." not in name for name in rows.discarded)
        numbers = {"table": tables, "column": len(rows.discarded) - tables}
        what = " and ".join(pluralize(number, one) for one, number in numbers.items() if number)
        covered += f"; downgrades discard {what}"
    if walk.irreversible:
        covered += f"; {len(walk.irreversible)} irreversible"
    return CheckResult(covered, walk.failures, rows.coverage), walk.schemas


def _row_coverage(coverage: Sequence[RowCoverage]) -> str:
    """Say whether every table held rows at each revision, or which did not, and how often."""
    empty = Counter(name for one in coverage for name in one.empty)
    but = ", ".join(
        f"{name} (at {pluralize(number, 'revision')})" for name, number in sorted(empty.items())
    )
    return "with rows in every table" + (f" but {but}" if but else "")


def _remedy(error: Exception, step: str) -> str:
    """Return advice for an error of a revision: the rows may be what stands in its way."""
    if not isinstance(error, IntegrityError | DataError):
        return "Fix the revision."
    if step.startswith("downgrade"):
        return (
            "Rows that were written after the upgrade stand in its way, as they would in"
            " production: change them in the downgrade, or let it raise NotImplementedError with"
            " the reason."
        )
    if "ADD COLUMN" in statement_of(error):
        return "Add the column with a default or nullable, fill it, and require it afterwards."
    return (
        "Rows that were valid before stand in its way, as they may in production: change them"
        " first, in an earlier revision or statement, or say what the revision assumes of them:"
        ' assumes = {"table": "condition that every row meets"}.'
    )


class _Walk:
    """The steps, and the comparisons between them.

    Each schema is read once: the schema before a revision is the schema after its parent.
    """

    def __init__(
        self,
        scripts: ScriptDirectory,
        observer: Connection,
        rows: RowValues,
        progress: Callable[[str], None],
    ) -> None:
        self.scripts = scripts
        self.observer = observer
        self.rows = rows
        self.progress = progress
        self.revisions = revisions_oldest_first(scripts)
        self.irreversible = [one for one in self.revisions if is_irreversible(one)]
        self.failures: list[Failure] = []
        self.schemas: dict[str, snapshot.Snapshot] = {}
        self.reads = 0
        self.step = ""

    def steps(self, context: MigrationContext) -> Iterator[MigrationStep]:
        """Yield each step; the code after a `yield` runs when the step is committed."""
        # Alembic has made its table, perhaps without a commit: the observer may not see it.
        empty = before = self.schemas[BASE] = self._read(context.connection)
        for revision in self.revisions:
            self.failures += self.rows.assume(revision)
            self.rows.before_upgrade(revision, context)
            yield self._up("upgrade", revision)
            reversible = revision not in self.irreversible
            self.failures += self.rows.upgraded(revision, reversible=reversible)
            if reversible:
                yield self._down("downgrade", revision)
                if self._differ("does not restore the schema from before its upgrade", before):
                    return
                self.failures += self.rows.downgraded(revision)
                yield self._up("second upgrade", revision)
            self.failures += self.rows.upgraded_again(revision)
            before = self.schemas[revision.revision] = self._read()
        final = self.irreversible[-1:]
        undone = self.revisions[self.revisions.index(final[0]) + 1 :] if final else self.revisions
        for revision in reversed(undone):
            yield self._down("downgrade, on the way to base,", revision)
        if not final and self._differ("does not restore the empty database", empty):
            return
        for revision in undone:
            yield self._up("upgrade, after the downgrade to base,", revision)
        self._differ("builds a different schema than the first upgrade", before)

    def _up(self, what: str, revision: Script) -> MigrationStep:
        self._announce(what, revision)
        return upgrade_step(self.scripts, revision)

    def _down(self, what: str, revision: Script) -> MigrationStep:
        self._announce(what, revision)
        return downgrade_step(self.scripts, revision)

    def _announce(self, what: str, revision: Script) -> None:
        self.step = f"{what} of {Path(revision.path).name}"
        self.progress(f"{what} {revision.revision}")

    def _read(self, connection: Connection | None = None) -> snapshot.Snapshot:
        self.reads += 1
        return snapshot.read(connection or self.observer, version_table=True)

    def _differ(self, message: str, expected: snapshot.Snapshot) -> bool:
        found = self._read()
        if found == expected:
            return False
        detail = snapshot.difference(expected, found)
        self.failures.append(Failure(f"The {self.step} {message}.", REMEDY, detail))
        return True
