"""The report of a deploy, as text or as JSON."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from alembic.runtime.migration import MigrationInfo

from migrations.deploy.verification import named


@dataclass
class Applied:
    """A revision that was applied or reverted, and committed."""

    revision: str
    direction: str
    """`upgrade`, `downgrade` or `stamp`."""
    summary: str
    seconds: float
    """From its first statement to its commit, without failed attempts."""
    attempts: int
    """1 plus the number of retries."""


@dataclass
class DeployReport:
    """The result of a deploy; its fields are those of the JSON document."""

    version: int = 1
    """Increased when a field is removed or changes its meaning, not when one is added."""
    ok: bool = False
    error: str | None = None
    """Why the deploy or its verification failed, in one sentence."""
    database: str = ""
    server: str | None = None
    before: str | None = None
    after: str | None = None
    """The revision of the database before and after; null for none."""
    revisions: list[Applied] = field(default_factory=list)
    attempts: int = 0
    """How often revisions were begun, over all connections."""
    connections: int = 0
    longest_lock_wait_seconds: float = 0
    verified: bool | None = None
    """Whether the schema is the history's; null if it could not be compared."""
    differing: list[str] = field(default_factory=list)
    """The objects of the history that are not as they are at `after`."""
    difference: str = ""
    """At the head: lines with - are only in schema.txt, lines with + only in the database."""
    foreign: list[str] = field(default_factory=list)
    """Objects that no revision has, without those on the ignore list in alembic.ini."""
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0

    def __post_init__(self) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._attempts: dict[str, int] = {}
        self.current: str | None = None
        self.schema_equals: str | None = None
        """Another revision, whose schema the database had before the deploy."""
        """The revision that is being run, and the name of its file."""
        self.current_file = ""

    @contextmanager
    def timed(self, step: MigrationInfo) -> Iterator[Applied]:
        """Add a revision after its commit, with its duration."""
        revision = step.up_revision_id or ""
        self.attempts += 1
        self._attempts[revision] = self._attempts.get(revision, 0) + 1
        self.current = revision
        self.current_file = Path(getattr(step.up_revision, "path", "")).name
        applied = self._applied(step)
        start = time.monotonic()
        yield applied
        applied.seconds = round(time.monotonic() - start, 3)
        self.revisions.append(applied)
        self.after = next(iter(step.destination_revision_ids), None)
        self.current = None

    def add_committed(self, step: MigrationInfo) -> None:
        """Add a revision that was committed just before the connection was lost."""
        if step.up_revision_id not in {one.revision for one in self.revisions}:
            self.revisions.append(self._applied(step))

    def _applied(self, step: MigrationInfo) -> Applied:
        revision = step.up_revision_id or ""
        direction = "stamp" if step.is_stamp else "upgrade" if step.is_upgrade else "downgrade"
        summary = (getattr(step.up_revision, "doc", "") or "").rstrip(".")
        return Applied(revision, direction, summary, 0, self._attempts.get(revision, 1))

    def end(self, error: str | None = None) -> None:
        """Record the error, if any, and stop the clock."""
        self.error = error
        self.ok = error is None
        self.seconds = round(time.monotonic() - self._start, 3)

    def document(self) -> str:
        """The report as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def page(self) -> str:
        """The report for people."""
        lines = [
            f"  {one.direction:9} {one.revision}  {one.seconds:8.2f} s"
            f"  {one.attempts:3} {'try  ' if one.attempts == 1 else 'tries'}  {one.summary}"
            for one in self.revisions
        ]
        if not lines:
            moved = f"Nothing to do: {self.database} is at {self.after or 'no revision'}"
        else:
            moved = f"{self.database} went from {self.before or 'nothing'} to"
            moved += f" {self.after or 'nothing'} in {self.seconds:.1f} s"
        if self.longest_lock_wait_seconds:
            moved += f"; the longest wait for a lock took {self.longest_lock_wait_seconds:.2f} s"
        verified = {
            True: "Its schema equals the history's.",
            False: "Its schema does NOT equal the history's.",
            None: "Its schema was not compared: migrations/fingerprints.txt lacks that revision;"
            " `schema snapshot` writes it.",
        }[self.verified]
        if self.foreign:
            verified += f" No revision has {named(self.foreign)}."
        return "\n".join([*lines, f"{moved}.", verified])
