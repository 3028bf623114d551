"""The result of a check: what it looked at, and what is wrong."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Failure:
    """One thing that is wrong."""

    message: str
    """What is wrong, in one sentence."""
    remedy: str
    """What to do about it, a command where there is one."""
    detail: str = ""
    """The difference itself, in several lines."""


@dataclass(frozen=True)
class CheckResult:
    """What a check found; it passes when there is no failure."""

    covered: str
    """What was looked at, counted: `3 revisions, one line`."""
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Check:
    """A check by its name, its time, and its result; None when an earlier failure prevented it."""

    name: str
    seconds: float = 0
    result: CheckResult | None = None

    @property
    def passed(self) -> bool | None:
        """Whether it passed; None when it was not tried."""
        return None if self.result is None else not self.result.failures
