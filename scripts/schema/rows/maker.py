"""Make the rows of one table: a parent for each reference, a value for each column, free keys.

In each table, one row has NULL wherever it may, one is filled everywhere, and the others mix both.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from schema.rows.tables import Check, Column, Reference, TableRows

type Values = dict[str, str | None]
"""A row: the values of its columns as text."""

EACH = 3
"""The rows of each owner in a table: empty, filled and mixed."""

_TRIES = 40
"""How often a row is made anew when a key is taken."""
_FEW = 200
"""The different values of a column that is in no key."""

NAME_SAMPLES = 'Name samples on the model\'s column: sa_column_kwargs={"info": {"samples": ["…"]}}.'


@dataclass(frozen=True)
class Row:
    """A row that exists."""

    values: Values
    owner: str | None
    """The id of the user who owns it; None where no key leads to a user."""


class Maker:
    """Makes the rows of one table; inserting them is the generator's part."""

    def __init__(
        self,
        table: TableRows,
        rng: Random,
        rows: Callable[[str], list[Row]],
        pool: Callable[[TableRows, Column, Random], Iterator[str]],
    ) -> None:
        """Use the rows that exist, by table, and the values that a column accepts."""
        self.table = table
        self.rng = rng
        self.rows = rows
        self.why = ""
        """Why no row could be made."""
        self.parentless = False
        """Whether that is so because a table that it references has none."""
        self.taken: dict[tuple[str, ...], set[tuple[str | None, ...]]] = {
            key: {tuple(row.values[name] for name in key) for row in rows(table.name)}
            for key in table.keys
        }
        self.in_key = {name for key in table.keys for name in key}
        self.referencing = {name for one in table.references for name in one.columns}
        self.pools = {
            column.name: _Pool(pool(table, column, rng), distinct=column.name in self.in_key)
            for column in table.columns
            if column.written and column.name not in self.referencing
        }
        self.required = {column.name for column in table.columns if column.required}
        self.parents: dict[
            tuple[Reference, tuple[tuple[str, str], ...]],
            defaultdict[tuple[str | None, tuple[str | None, ...]], list[Row]],
        ] = {}
        """The possible parents, by their owner and the columns that a row has set already."""

    def make(
        self, owner: str | None, variant: int, fixed: Mapping[str, str | None]
    ) -> Values | None:
        """Make a row that is in no key's way; None if there is none."""
        for attempt in range(_TRIES):
            row = self._row(owner, variant, attempt, fixed)
            if row is None:
                return None
            keys = {key: tuple(row.get(name) for name in key) for key in self.table.keys}
            if all(None in value or value not in self.taken[key] for key, value in keys.items()):
                for key, value in keys.items():
                    self.taken[key].add(value)
                return row
        self.why = "every value of its key is taken."
        return None

    def _row(
        self, owner: str | None, variant: int, attempt: int, fixed: Mapping[str, str | None]
    ) -> Values | None:
        row: Values = dict(fixed)
        for number, reference in enumerate(self.table.references):
            if not self._refer(
                row, reference, owner if number == 0 else None, variant + attempt, variant
            ):
                return None
        for name, pool in self.pools.items():
            if name in row:
                continue
            optional = name not in self.required
            if optional and (
                variant % EACH == 0 or (variant % EACH == 2 and self.rng.random() < 0.5)
            ):
                row[name] = None
                continue
            value = pool.draw()
            if value is None and not optional:
                self.why = self._unknown(name)
                return None
            row[name] = value
        for reference in self.table.references:  # a row whose parent is itself
            for name, theirs in zip(reference.columns, reference.parent_columns, strict=True):
                row.setdefault(name, row.get(theirs))
        return row

    def _refer(
        self, row: Values, reference: Reference, owner: str | None, number: int, variant: int
    ) -> bool:
        """Set the columns of a reference to an existing parent's, or to NULL."""
        free = [name for name in reference.columns if name not in row]
        optional = [name for name in free if name not in self.required]
        if not free:
            return True
        parents = self._parents(row, reference, owner)
        if optional and (variant % EACH == 0 or not parents):
            row |= dict.fromkeys(optional)
            free = [name for name in free if name not in optional]
            if not free:
                return True
        if not parents:
            if reference.parent == self.table.name:
                return True  # it becomes its own parent
            self.why = f"table {reference.parent} has no row that it can reference."
            self.parentless = True
            return False
        parent = parents[(number + self.rng.randrange(2)) % len(parents)]
        for own, theirs in zip(reference.columns, reference.parent_columns, strict=True):
            if own in free:
                row[own] = parent.values[theirs]
        return True

    def _parents(self, row: Values, reference: Reference, owner: str | None) -> list[Row]:
        """Return the parents of that owner that agree with the columns that are set already."""
        pairs = zip(reference.columns, reference.parent_columns, strict=True)
        fixed = tuple((own, theirs) for own, theirs in pairs if own in row)
        index = self.parents.get((reference, fixed))
        if index is None:
            index = self.parents[reference, fixed] = defaultdict(list)
            for parent in self.rows(reference.parent):
                values = tuple(parent.values[theirs] for _, theirs in fixed)
                index[None, values].append(parent)
                if parent.owner is not None:
                    index[parent.owner, values].append(parent)
        return index[owner, tuple(row[own] for own, _ in fixed)]

    def _unknown(self, name: str) -> str:
        checks = [check for check in self.table.checks if check.columns == (name,)]
        what = describe(checks) if checks else "values of its type are not known."
        return f"column {name}: {what}"


@dataclass
class _Pool:
    """The values of a column; one that is in no key repeats the first few."""

    source: Iterator[str]
    distinct: bool
    values: list[str] = field(default_factory=list)
    drawn: int = 0

    def draw(self) -> str | None:
        """Return the next value; None if there is none."""
        self.drawn += 1
        if self.distinct or len(self.values) < _FEW:
            value = next(self.source, None)
            if value is not None:
                self.values.append(value)
                return value
        return self.values[self.drawn % len(self.values)] if self.values else None


def describe(checks: Sequence[Check]) -> str:
    """Say why no row was found: the checks, or else a key."""
    if not checks:
        return "every value of its key is taken."
    texts = "; ".join(f"{check.name} CHECK ({check.condition})" for check in checks)
    return f"no value was found for {texts}. {NAME_SAMPLES}"
