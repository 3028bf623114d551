"""How other sessions, and SQL, are named in the deploy's log."""

import re
from collections.abc import Callable
from typing import NamedTuple

type Log = Callable[[str], None]

# Statements go into a log, the deploy's own too: the values in them are nobody's business there.
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
    """Another session, as pg_stat_activity shows it."""

    pid: int
    user: str | None
    application: str | None
    kind: str | None
    state: str | None
    seconds: float | None
    """How long its transaction has lasted, or the session itself where no transaction is meant."""
    query: str | None

    def __str__(self) -> str:
        """Say which session it is, what it is at, and its query."""
        kind = None if self.kind == "client backend" else self.kind
        parts = [self.user, self.application, kind, self.state]
        who = ", ".join(part for part in parts if part)
        age = "" if self.seconds is None else f" for {self.seconds:.0f} s"
        query = f": {describe_sql(self.query)}" if self.query else ""
        return f"session {self.pid} ({who or 'not visible'}{age}){query}"


def one_line(sql: str, width: int = 100) -> str:
    """The statement in one line, shortened."""
    line = " ".join(sql.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def without_values(sql: str) -> str:
    """The statement without the values that were written into it, and without comments.

    What follows a comment in a comment is left out: no pattern finds the end of it.
    """
    if nested := _NESTED.search(sql):
        return f"{without_values(sql[: nested.start()])}…"
    return _LITERALS.sub(lambda found: found["name"] or (" " if found["comment"] else "'…'"), sql)


def describe_sql(sql: str) -> str:
    """The statement as it may be logged: in one line, shortened, and without values."""
    return one_line(without_values(sql))
