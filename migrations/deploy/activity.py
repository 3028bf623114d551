"""Describe other sessions and SQL statements in the deploy's log."""

import re
from collections.abc import Callable
from typing import NamedTuple

type Log = Callable[[str], None]

# The log must not hold the values in a statement.
_LITERALS = re.compile(
    r"""(?P<name> "(?:[^"]|"")*" )
      | (?P<comment> --[^\n]* | /\*.*?(?:\*/|$) )
      | (?<![\w$])\$(?P<tag>\w*)\$ .*? (?:\$(?P=tag)\$|$)
      | (?<![\w$])e'(?:[^'\\]|\\.|'')*(?:'|$)
      | '(?:[^']|'')*(?:'|$)
      | (?<![\w$])\d[\d.]*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

_NESTED = re.compile(r"/\*(?:(?!\*/).)*/\*", re.DOTALL)


class BackendActivity(NamedTuple):
    """Another session, from pg_stat_activity."""

    pid: int
    user: str | None
    application: str | None
    kind: str | None
    state: str | None
    seconds: float | None
    """Age of its transaction; in the holder of the deploy lock, age of the session."""

    def __str__(self) -> str:
        """Describe the session in one line. Its statement may hold values, so it is not named."""
        kind = None if self.kind == "client backend" else self.kind
        parts = [self.user, self.application, kind, self.state]
        who = ", ".join(part for part in parts if part)
        age = "" if self.seconds is None else f" for {self.seconds:.0f} s"
        return f"session {self.pid} ({who or 'not visible'}{age})"


def one_line(sql: str, width: int = 100) -> str:
    """Put a statement in one line of at most `width` characters."""
    line = " ".join(sql.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def without_values(sql: str) -> str:
    """Remove literals and comments from a statement.

    After the start of a nested comment all is removed: no pattern can find its end.
    """
    if nested := _NESTED.search(sql):
        return f"{without_values(sql[: nested.start()])}…"
    return _LITERALS.sub(lambda match: match["name"] or (" " if match["comment"] else "'…'"), sql)


def describe_sql(sql: str) -> str:
    """Make a statement fit for the log: one line, shortened, without values."""
    return one_line(without_values(sql))
