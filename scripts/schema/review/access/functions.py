"""What functions with their owner's rights give callers beyond what these reach themselves."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Self

from schema.review.access import queries
from schema.review.access.attempts import Acting, Attempts, Relation, Tables, counted, more

UNDECIDED = "what it gives could not be tried"

_VALUES = 10
"""How many values of an argument are tried."""
_MIXED = 6
"""How many lists of arguments in other combinations a function is called with besides."""

_LITERALS = {
    "N": ("1", "0", "2", "3"),
    "B": ("true", "false"),
    "S": ("''", "'a'"),
    "D": ("'2026-01-01'", "'12:00'"),
    "T": ("'1 day'",),
    "A": ("'{}'",),
    "U": ("'{}'",),
}
"""What is tried for a type, by its category in pg_type: columns may have no value that fits."""


@dataclass(frozen=True)
class Function:
    """A function that runs with its owner's rights."""

    oid: int
    signature: str
    name: str
    types: tuple[str, ...]
    kind: str
    has_path: bool
    """Whether it sets its search_path."""
    void: bool


@dataclass(frozen=True)
class Functions:
    """The trial of functions."""

    attempts: Attempts
    actings: Sequence[Acting]
    tables: Tables

    @classmethod
    def of(
        cls, attempts: Attempts, actings: Sequence[Acting], relations: Sequence[Relation]
    ) -> Self:
        """Prepare the trial: the rows of these tables are compared after each call."""
        parts = [
            f"SELECT {one.oid}, pg_catalog.hashtextextended(t::text, 0) FROM {one.sql} AS t"
            for one in relations
            if one.query is None
        ]
        tables = Tables(" UNION ALL ".join(parts) or "SELECT 0, 0")
        tables.start = attempts.contents(tables)
        (tables.known,) = attempts.session.execute(tables.summary.encode()).fetchall()
        return cls(attempts, actings, tables)

    def read(self) -> list[Function]:
        """Return the functions that a statement can call."""
        found = self.attempts.session.execute(queries.DEFINERS.encode(), ())
        return [
            Function(oid, signature, name, tuple(types), *rest)
            for oid, signature, name, types, *rest in found.fetchall()
        ]

    def given(self, one: Function, role: str) -> str:
        """Say what a function gives the role; "" for nothing."""
        may = self.attempts.session.execute(
            "SELECT has_function_privilege(%s, %s::oid, 'EXECUTE')", [role, one.oid]
        ).fetchall()[0][0]
        if not may:
            return ""
        if one.kind != "f":
            return UNDECIDED
        decided = False
        for values in self._arguments(one.types):
            call = f"SELECT to_json(f)::text FROM {one.name}({', '.join(values)}) AS f"
            whole = not any(value.startswith("CAST(NULL ") for value in values)
            for acting in self.actings:
                words, tried = self._called(one, role, acting, call)
                if words:
                    return words
                decided = decided or (whole and tried)
        return "" if decided else UNDECIDED

    def _called(self, one: Function, role: str, acting: Acting, call: str) -> tuple[str, bool]:
        """Call it with both rights: say what it gives, and whether the call shows anything."""
        returned, after = self.attempts.effect(role, acting, call, tables=self.tables)
        if returned is None:
            return "", False
        written = _written(self.tables.start, after)
        shown = any(value != "None" for value in returned)
        if not (shown or written):
            return "", one.void
        own, own_after = self.attempts.effect(
            role,
            acting,
            call,
            tables=self.tables,
            prepare=f"ALTER FUNCTION {one.signature} SECURITY INVOKER",
        )
        own_written = Counter[str]() if own is None else _written(self.tables.start, own_after)
        if written - own_written:
            number = _number(written - own_written)
            return f"writes {counted(number)} that the role itself cannot write", True
        if shown and returned != own and self._repeats(role, acting, call, returned, own):
            return more(len(returned), len(own or ())), True
        return "", True

    def _repeats(
        self, role: str, acting: Acting, call: str, returned: list[str], own: list[str] | None
    ) -> bool:
        """Whether a difference is one of rights: random() and clocks differ by themselves."""
        if own is None or len(own) != len(returned):
            return True
        return self.attempts.query(role, acting, call) == returned

    def _arguments(self, types: Sequence[str]) -> Iterator[list[str]]:
        """Yield values for the arguments, as SQL: what columns hold, literals, and NULL."""
        chosen = [self._values(kind) for kind in types]
        longest = max(map(len, chosen), default=1)
        together = [[values[place % len(values)] for values in chosen] for place in range(longest)]
        mixed = list(islice(product(*chosen), 4096))[:: max(1, longest ** len(types) // _MIXED)]
        for values in dict.fromkeys((*map(tuple, together), *mixed[:_MIXED])):
            yield list(values)

    def _values(self, kind: str) -> list[str]:
        session = self.attempts.session
        ((category, labels),) = session.execute(queries.TYPE.encode(), {"kind": kind}).fetchall()
        values: list[str] = [*labels, *_LITERALS.get(category, ())]
        for table, column in session.execute(queries.OF_TYPE.encode(), {"kind": kind}).fetchall():
            found = session.execute(
                f"SELECT quote_literal({column}::text) FROM {table}"
                f" WHERE {column} IS NOT NULL ORDER BY 1 LIMIT 2".encode()
            )
            values += [value for (value,) in found]
        fitting = [value for value in dict.fromkeys(values) if self._fits(value, kind)]
        return [
            *(f"CAST({value} AS {kind})" for value in fitting[:_VALUES]),
            f"CAST(NULL AS {kind})",
        ]

    def _fits(self, value: str, kind: str) -> bool:
        return self.attempts.query(None, (), f"SELECT CAST({value} AS {kind})") is not None


def _written(start: Counter[str], after: Counter[str]) -> Counter[str]:
    """Count the rows that are gone or changed, and by table those that are new."""
    added = Counter(row.partition(":")[0] for row in (after - start).elements())
    return (start - after) + added


def _number(written: Counter[str]) -> int:
    """Count rows once: one that is changed is gone and new."""
    gone = sum(number for row, number in written.items() if ":" in row)
    return max(gone, written.total() - gone)
