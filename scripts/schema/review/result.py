"""What a review found: plain data, which the pages show and the policy judges.

Relations are named as in the snapshot: without `public`. Seconds are wall-clock time and decide
nothing; everything else is the same for the same revisions on the same rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

type Direction = Literal["upgrade", "downgrade"]
type Kind = Literal[
    "rewrite", "scan", "backfill", "held", "several", "loses", "downgrade", "irreversible",
    "access", "definer", "breaks", "fails", "invalid", "budget", "acceptance",
]  # fmt: skip
"""The kinds of findings; a revision accepts one by `kind object`."""


@dataclass(frozen=True)
class Lock:
    """A lock on a relation that existed before the revision."""

    relation: str
    mode: str
    """As in the documentation: ACCESS EXCLUSIVE."""
    blocks: str
    """What it keeps waiting: `reads and writes`, `writes`, `schema changes`; "" for nothing."""
    seconds: float
    """From the statement that takes it to the end of the transaction."""
    rows: int
    """How many rows the relation had before the revision."""


def is_blocking(lock: Lock) -> bool:
    """Whether a lock keeps those waiting who use the relation."""
    return lock.blocks not in {"", "schema changes"}


@dataclass(frozen=True)
class Statement:
    """One statement as it ran."""

    sql: str
    line: int
    """The line of the revision file that executes it; 0 if it is not known."""
    seconds: float
    locks: tuple[Lock, ...] = ()
    """The locks that it takes first in its transaction, or takes in a stronger mode."""
    rewrites: tuple[str, ...] = ()
    """Tables with rows that were written anew."""
    scans: tuple[str, ...] = ()
    """Tables that were read from end to end."""
    written: Mapping[str, int] = field(default_factory=dict)
    """How many rows were inserted, updated and deleted, by table."""
    most: Mapping[str, int] = field(default_factory=dict)
    """How many of them one transaction wrote, where this statement is several."""
    transactions: int = 1
    """In how many transactions it wrote: more than one if it commits by itself."""
    times: int = 1
    """How often it was executed in a row: a loop is one statement here."""
    invalid: tuple[str, ...] = ()
    """Indexes that are INVALID after it."""


@dataclass(frozen=True)
class Transaction:
    """The statements that are committed together."""

    statements: tuple[Statement, ...]
    alone: bool
    """Whether this is one statement outside a transaction block."""
    seconds: float
    held: tuple[Lock, ...] = ()
    """Every lock that blocks reads or writes while its slowest statement ran."""
    slowest: int = 0
    """The place of the statement that takes longest on large tables: it works on the most rows.

    Without work on rows it is the last one, which all locks outlast."""


@dataclass(frozen=True)
class Step:
    """The upgrade or the downgrade of a revision, as it ran."""

    revision: str
    direction: Direction
    transactions: tuple[Transaction, ...]
    seconds: float


@dataclass(frozen=True)
class Finding:
    """Something that a reviewer must know."""

    kind: Kind
    object: str
    """What it is about: `todo`, `todo.title`, `todo_app SELECT tag`."""
    revision: str
    message: str
    """One sentence."""
    advice: str = ""
    """The safe alternative, or what to do."""
    line: int = 0
    blocking: bool = True
    accepted: str = ""
    """The reason of the revision that accepts it."""


@dataclass(frozen=True)
class Lint:
    """What static analysis says of a statement."""

    rule: str
    revision: str
    line: int
    message: str
    status: Literal["confirmed", "contradicted", "unseen"]
    """Whether the run showed the effect, showed that there is none, or could not show it."""


@dataclass(frozen=True)
class ObjectChange:
    """An object that the revisions add, change or remove."""

    name: str
    """Its heading in schema.txt: `table todo`, `policy todo_own on todo`."""
    change: Literal["added", "changed", "removed"]
    difference: str
    """Its lines, each after `+`, `-` or a blank."""


type Mark = Literal["added", "changed", "removed", ""]
"""What happens to a part of a diagram; "" for nothing."""


@dataclass(frozen=True)
class Column:
    """A column of a diagram."""

    name: str
    type: str
    key: str = ""
    """`PK`, `FK`, `PK, FK` or ""."""
    mark: Mark = ""


@dataclass(frozen=True)
class Table:
    """A table of a diagram: one that changes, or one that such a table references."""

    name: str
    columns: tuple[Column, ...]
    mark: Mark = ""


@dataclass(frozen=True)
class Reference:
    """A foreign key between two tables of a diagram."""

    table: str
    columns: str
    target: str
    mark: Mark = ""


@dataclass(frozen=True)
class Diagram:
    """The affected tables."""

    tables: tuple[Table, ...] = ()
    references: tuple[Reference, ...] = ()
    left_out: int = 0
    """How many more tables are affected."""


@dataclass(frozen=True)
class AccessChange:
    """What a role can do that it could not before, or the reverse."""

    role: str
    object: str
    command: str
    """`SELECT`, `UPDATE`, `SELECT of a.column`, `EXECUTE`, `member of`."""
    before: str
    """In words: `no rows`, `its user's rows`, `all rows`, `yes`, `no`."""
    after: str
    widened: bool
    tried: bool
    """Whether a statement on rows showed it; otherwise the catalogs say so."""


@dataclass(frozen=True)
class Reversal:
    """What a revision's downgrade restores."""

    revision: str
    state: Literal["exact", "inexact", "irreversible", "not tried"]
    difference: str = ""
    """How the schema after the downgrade differs from the one before the upgrade."""
    reason: str = ""
    """Why it cannot be reverted, in the revision's words, or why it was not tried."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """The tables and columns whose values are gone, and in how many rows."""
    declared: Mapping[str, str] = field(default_factory=dict)
    """The reasons that the revision gives, by table or column."""
    compared: int = 0
    """How many columns were compared."""


@dataclass(frozen=True)
class Break:
    """A statement of the models that works on one schema and not on the other."""

    models: Literal["base", "new"]
    """Whose models: the base branch's on the new schema, or the new ones on the base's schema."""
    table: str
    command: str
    """`SELECT`, `INSERT`, `UPDATE`, `DELETE`, `start-up`."""
    role: str
    error: str
    """PostgreSQL's message, without values."""
    lasting: bool = False
    """Whether the new models meet it too, so that no order of deployment avoids it."""


@dataclass(frozen=True)
class Failure:
    """A revision that ended in an error."""

    revision: str
    direction: Direction
    line: int
    sql: str
    error: str
    """PostgreSQL's message, without values."""
    constraint: str = ""
    rows: int | None = None
    """How many rows stand in its way; None if that is not known."""
    example: str = ""
    """One of them, only of generated rows."""


@dataclass(frozen=True)
class Size:
    """A table, before and after all revisions; None where it does not exist."""

    table: str
    rows_before: int | None
    rows_after: int | None
    bytes_before: int | None
    """With indexes and TOAST."""
    bytes_after: int | None


@dataclass(frozen=True)
class Revision:
    """A new revision."""

    id: str
    title: str
    file: str
    irreversible: bool
    declared: tuple[str, ...] = ()
    """What it declares and accepts, one sentence each."""


@dataclass(frozen=True)
class Review:
    """A whole review."""

    base: str
    """The commit that it compares with, in 12 digits."""
    below: str
    """The revision below the new ones; `base` for none."""
    revisions: tuple[Revision, ...]
    verdict: Literal["blocked", "decide", "safe", "nothing"]
    """A finding blocks; something needs a person's decision; neither; there is no new revision."""
    sentences: tuple[str, ...]
    """At most five."""
    findings: tuple[Finding, ...] = ()
    objects: tuple[ObjectChange, ...] = ()
    diagram: Diagram = Diagram()
    steps: tuple[Step, ...] = ()
    lints: tuple[Lint, ...] = ()
    access: tuple[AccessChange, ...] = ()
    reversals: tuple[Reversal, ...] = ()
    breaks: tuple[Break, ...] = ()
    compared_statements: int = 0
    """How many statements of the models were executed on both schemas."""
    failure: Failure | None = None
    sizes: tuple[Size, ...] = ()
    server: str = ""
    """Its version, such as 18.4."""
    rows: int = 0
    """On how many rows it ran."""
    generated: bool = True
    """Whether the rows were generated; otherwise the database was given."""
    seconds: float = 0
    not_covered: Sequence[str] = ()
    """What the review did not look at, one sentence each."""

    @property
    def ok(self) -> bool:
        """Whether nothing blocks."""
        return self.verdict != "blocked"
