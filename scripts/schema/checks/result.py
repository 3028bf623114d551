"""What a proof leaves behind: what it covered, and what is wrong."""

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
class Outcome:
    """The result of one proof; it holds when nothing failed."""

    covered: str
    """What was looked at, counted: `3 revisions, one line`."""
    failures: list[Failure] = field(default_factory=list)


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Say how many, in words that agree: `1 table`, `2 policies`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
