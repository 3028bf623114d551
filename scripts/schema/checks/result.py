"""The result of a check."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Failure:
    """One problem that a check found."""

    message: str
    """The problem, in one sentence."""
    remedy: str
    """What to do about it: a command, if there is one."""
    detail: str = ""
    """Several lines, such as the difference."""


@dataclass(frozen=True)
class RowCoverage:
    """How many tables there are at a revision, and which of them held no rows."""

    revision: str
    tables: int
    empty: list[str]


@dataclass(frozen=True)
class CheckResult:
    """A check's result; the check passes if there is no failure."""

    covered: str
    """A summary with numbers: `3 revisions, one line`."""
    failures: list[Failure] = field(default_factory=list)
    rows: list[RowCoverage] = field(default_factory=list)
    """On how many tables with rows each revision was tried."""


@dataclass(frozen=True)
class Check:
    """A check that ran, or that an earlier failure prevented: then `result` is None."""

    name: str
    seconds: float = 0
    result: CheckResult | None = None

    @property
    def passed(self) -> bool | None:
        """Whether it passed; None if it did not run."""
        return None if self.result is None else not self.result.failures
