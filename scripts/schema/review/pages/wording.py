"""How a review words what it measured; every time on a page comes from `duration`."""

import re
import unicodedata
from collections.abc import Sequence

from schema.review.pages.blocks import Code, Line
from schema.review.result import Break, Lint, Lock, Reversal, Statement
from schema.text import pluralize

ONE_LINE = 80
"""Characters of a statement in a table."""

LINTS: dict[str, str] = {
    "confirmed": "confirmed: the run showed it",
    "contradicted": "contradicted: the run showed that it does not happen",
    "unseen": "unseen: the run could not show it",
}
REVERSALS: dict[str, str] = {
    "exact": "exact: the downgrade restores the schema",
    "inexact": "inexact: the downgrade leaves a different schema",
    "irreversible": "irreversible: it cannot be reverted",
    "not tried": "not tried",
}
_HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs"}
"""Unicode's categories of what is not seen, or reorders what is."""
_ODD = re.compile(r"[^\x20-\x7e\n\t]")
CHANGES = {"added": "+", "changed": "~", "removed": "-"}


def duration(seconds: float) -> str:
    """Write a time: `< 1 ms`, `12 ms`, `1.2 s`, `2 min 5 s`."""
    if seconds < 0.0005:
        return "< 1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    return f"{round(seconds) // 60:,} min {round(seconds) % 60} s"


def size(number: int | None) -> str:
    """Write a size in bytes: `8 kB`, `1.5 MB`, as PostgreSQL does; `none` for None."""
    if number is None:
        return "none"
    amount, unit = float(number), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:,.0f} {unit}" if amount >= 10 or unit == "bytes" else f"{amount:,.1f} {unit}"


def count(number: int | None) -> str:
    """Write a number of rows; `none` for None."""
    return "none" if number is None else f"{number:,}"


def cut(text: str, most: int | None) -> str:
    """Cut a text to a number of characters, the sign of the cut included; None leaves it whole."""
    return text if most is None or len(text) <= most else f"{text[: most - 1]}…"


def one_line(sql: str) -> str:
    """Write a statement in one short line."""
    # Only the beginning is looked at: a statement may be a megabyte long.
    return cut(" ".join(sql[: 20 * ONE_LINE].split()), ONE_LINE)


def is_cut(sql: str) -> bool:
    """Whether `one_line` does not show all of a statement."""
    return one_line(sql) != sql.strip().removesuffix(";")


def lock(one: Lock) -> Line:
    """Write a lock: `todo: blocks reads and writes, 12 ms (ACCESS EXCLUSIVE, 5 rows)`."""
    words = (
        f": blocks {one.blocks}, {duration(one.seconds)} ({one.mode}, {pluralize(one.rows, 'row')})"
    )
    return (Code(one.relation), words)


def effects(statement: Statement) -> Line:
    """Write what a statement did to tables: what it rewrote, read and wrote."""
    found: list[Line] = [
        *((f"{verb} ", Code(name)) for verb, names in (
            ("rewrites", statement.rewrites),
            ("reads all of", statement.scans),
            ("leaves INVALID", statement.invalid),
        ) for name in names),
        *((f"writes {pluralize(rows, 'row')} of ", Code(name))
          for name, rows in sorted(statement.written.items())),
    ]  # fmt: skip
    if statement.transactions > 1:
        found.append((f"in {pluralize(statement.transactions, 'transaction')}",))
    return joined(found)


def joined(lines: Sequence[Line], between: str = "; ") -> Line:
    """Put lines one behind the other."""
    parts: list[Line] = []
    for line in lines:
        parts += [(between,), line] if parts else [line]
    return tuple(part for line in parts for part in line)


def lint_status(one: Lint) -> str:
    """Write the status of a lint."""
    return LINTS[one.status]


def reversal_state(one: Reversal) -> str:
    """Write what a downgrade restores."""
    return REVERSALS[one.state]


def deployment(breaks: Sequence[Break]) -> str:
    """Write what must be deployed first, code or migration."""
    models = {one.models for one in breaks}
    if any(one.lasting for one in breaks):
        return (
            "No order of deployment is safe: the new models break on the new schema too, as the"
            " base's do."
        )
    if models == {"base", "new"}:
        return (
            "Neither can be deployed first: a change in two steps is needed, where each schema"
            " serves the code before it and after it."
        )
    if models == {"base"}:
        return "Deploy the code first: the base's models break on the new schema."
    if models == {"new"}:
        return "Deploy the migration first: the new models break on the base's schema."
    return "Code and migration can be deployed in any order."


def shown(text: str) -> str:
    """Write the characters that are not seen, or that reorder others, as escapes."""
    return _ODD.sub(lambda match: _shown(match[0]), text.replace("\r\n", "\n"))


def _shown(one: str) -> str:
    return f"\\u{ord(one):04x}" if unicodedata.category(one) in _HIDDEN else one
