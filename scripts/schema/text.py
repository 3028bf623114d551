"""Text for people."""

import re


def pluralize(number: int, singular: str, plural: str | None = None) -> str:
    """Write a number and its noun: `1 table`, `2 policies`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def fenced(text: str, language: str = "") -> str:
    """Return the text as a Markdown code block, whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def capitalized(clause: str) -> str:
    """Begin a clause with a capital letter; the rest stays as it is."""
    return clause[:1].upper() + clause[1:]
