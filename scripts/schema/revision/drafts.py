"""Drafts of revisions: the statements of each, tried on a scratch database, and what reverts them.

The statements come from the comparison of two schemas (schema.ddl). They are executed in an order
that works, and the schema is read after each draft: the downgrade is written from that schema back
to the one before, and is executed too.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import psycopg
from sqlalchemy import Connection

from migrations import snapshot
from migrations.postgres import first_error_line
from migrations.snapshot import Snapshot
from schema.ddl.apply import Sessions, execute, own_names, reach
from schema.ddl.definition import CURRENT_USER, Names, by_part, column
from schema.ddl.objects import NO_OPERATION
from schema.ddl.steps import Step
from schema.errors import CannotRunError
from schema.postgres.connection import driver_of
from schema.revision.decisions import Answers
from schema.revision.groups import groups
from schema.revision.probe import Probe
from schema.revision.way.plan import Fill, Name
from schema.revision.way.stages import Stage, Way, way

VALUE_STAYS = "PostgreSQL cannot remove a value from an enum type."


@dataclass(frozen=True)
class Draft:
    """A revision to be written."""

    stage: Name
    before: Snapshot
    after: Snapshot
    upgrade: tuple[Step, ...]
    downgrade: tuple[Step, ...] = ()
    irreversible: str | None = None
    """Why there is no downgrade."""
    fill: Fill | None = None
    """What it writes into the rows, instead of a change of the schema."""


@dataclass
class Drafts:
    """The drafts of a whole change, in their order."""

    database: str
    """The scratch database's name, quoted, as it stands in the statements."""
    drafts: list[Draft] = field(default_factory=list)
    left: str = ""
    """The difference that no statement removes; "" if there is none."""
    not_reverted: str = ""
    """The difference that the downgrades leave."""
    errors: dict[Step, str] = field(default_factory=dict)
    """PostgreSQL's message for each step that failed in the end."""


def write_drafts(
    connection: Connection, target: Snapshot, answers: Answers | None = None
) -> Drafts:
    """Bring a scratch database to the target; the caller ends the transaction, and drops it.

    The connection is the owner's. `target` includes Alembic's own table. `answers` are
    the decisions of a person.
    """
    answers = answers or Answers()
    names = Names(
        own_names(connection).database,
        CURRENT_USER,
        guarded=False,
        conversions=answers.conversions,
    )
    work = _Work(connection, names)
    before = work.read()
    planned = way(before, target, Probe(connection).rewrites, answers)
    found = Drafts(names.database)
    for stage in planned.stages:
        found.drafts += work.stage(stage, planned)
        if stage.name == "values":  # no statement can use them before
            driver_of(connection).commit()
    found.left = snapshot.difference(work.read(), target)
    found.errors = work.errors
    found.not_reverted = work.not_reverted
    return found


class _Work:
    """A scratch database on the way to the target."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self.connection = connection
        self.names = names
        self.errors: dict[Step, str] = {}
        self.not_reverted = ""

    def read(self) -> Snapshot:
        return snapshot.read(self.connection, version_table=True)

    def stage(self, stage: Stage, planned: Way) -> Iterator[Draft]:
        if stage.name in {"fill", "refill"}:
            schema = self.read()
            fills = planned.fills if stage.name == "fill" else _together(planned.fills)
            for fill in fills:
                yield Draft(stage.name, schema, schema, (), fill=fill)
            return
        before = self.read()
        with self._undone():
            taken = self._taken(stage)
        if not taken:
            return
        left = groups(stage.name, before, taken)
        while left:
            number = next((n for n, one in enumerate(left) if self._works(one)), None)
            # Those of which none works without another one are one transaction.
            group = left.pop(number) if number is not None else _joined(left, taken)
            left = left if number is not None else []
            try:
                yield self._draft(stage.name, group)
            except psycopg.Error as error:
                raise CannotRunError(
                    "Nothing is written: the statements do not work in one transaction"
                    f" ({first_error_line(error)}); change less at once."
                ) from error

    def _works(self, group: Sequence[Step]) -> bool:
        """Whether steps can be executed now."""
        try:
            with self._undone():
                for step in group:
                    execute(self.connection, *step.statements)
        except psycopg.Error:
            return False
        return True

    def _taken(self, stage: Stage) -> list[Step]:
        """Reach the targets of a stage, and return the steps in an order that works."""
        taken: list[Step] = []
        for step in stage.first:
            with suppress(psycopg.Error):  # what is missing then is looked for below
                execute(self.connection, *step.statements)
                taken.append(step)
        for target in stage.targets:
            reached = reach(Sessions(self.connection), target, self.names)
            taken += [step for step in reached.taken if _does_something(step)]
            self.errors = reached.errors
        return taken

    def _draft(self, name: Name, taken: Sequence[Step]) -> Draft:
        """Execute steps, and find out what reverts them."""
        before = self.read()
        for step in taken:
            execute(self.connection, *step.statements)
        after = self.read()
        reason = VALUE_STAYS if name == "values" else _why_irreversible(before, after)
        if reason is not None:
            return Draft(name, before, after, tuple(taken), irreversible=reason)
        with self._undone():
            back = reach(Sessions(self.connection), before, self._names_of_a_downgrade())
            self.not_reverted += snapshot.difference(self.read(), before)
        downgrade = tuple(filter(_does_something, back.taken))
        return Draft(name, before, after, tuple(taken), downgrade)

    def _names_of_a_downgrade(self) -> Names:
        """Keep a conversion between time zones, which is the same in both directions."""
        kept = {
            column: one
            for column, one in self.names.conversions.items()
            if " AT TIME ZONE " in one.upper()
        }
        return replace(self.names, conversions=kept)

    @contextmanager
    def _undone(self) -> Iterator[None]:
        with driver_of(self.connection).transaction(force_rollback=True):
            yield


def _together(fills: Sequence[Fill]) -> list[Fill]:
    """Fill the columns of a table that need a value by now in one statement, or it fails."""
    found: dict[str, Fill] = {}
    for fill in (one for one in fills if one.again):
        first = found.get(fill.table)
        found[fill.table] = fill if first is None else replace(first, others=(*first.others, fill))
    return list(found.values())


def _joined(left: Sequence[Sequence[Step]], taken: Sequence[Step]) -> list[Step]:
    """Return the steps of several groups in the order that was found."""
    return [step for step in taken if any(step in group for group in left)]


def _why_irreversible(before: Snapshot, after: Snapshot) -> str | None:
    """Say which dropped columns cannot come back: NOT NULL, and no row has a value for them."""
    left = by_part(after)
    lost = []
    for fact in before:
        heading, part = fact.object, fact.part
        is_gone = part.startswith("column ") and (heading, part) not in left
        if not is_gone or not heading.startswith("table ") or (heading, "owner") not in left:
            continue
        found = column(fact.definition)
        is_given = any(found.get(one) for one in ("default", "generated", "identity", "inherited"))
        if found.get("required") and not is_given:
            lost.append(f"{heading.removeprefix('table ')}.{part.removeprefix('column ')}")
    return (
        f"{', '.join(lost)}: no row has its value any more, and each needs one." if lost else None
    )


def _does_something(step: Step) -> bool:
    """Whether a step has statements; the sequence of an identity has none of its own."""
    return any(one != NO_OPERATION for one in step.statements)
