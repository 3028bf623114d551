"""Text for people."""


def pluralize(number: int, singular: str, plural: str | None = None) -> str:
    """Write a number and its noun: `1 table`, `2 policies`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
