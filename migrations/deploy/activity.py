"""Describe other sessions in the deploy's log."""

from collections.abc import Callable
from typing import NamedTuple

type Log = Callable[[str], None]


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
