"""Names and texts as Python writes them."""

import re

NAME = r'(?:"(?:[^"]|"")+"|[A-Za-z_][\w$]*)'
"""A regular expression for an SQL name without a schema."""

_LONGEST = 72
"""Characters of a text that is written in one piece."""


def string(text: str) -> str:
    """Write a text as a literal, in several pieces if it is long."""
    if len(text) <= _LONGEST:
        return repr(text)
    pieces = re.findall(rf".{{1,{_LONGEST}}}(?:\s|$)|.{{1,{_LONGEST}}}", text, re.DOTALL)
    return f"({' '.join(repr(piece) for piece in pieces)})"


def names(texts: list[str]) -> str:
    """Write SQL names as a list of texts without quotes."""
    return f"[{', '.join(string(unquoted(text)) for text in texts)}]"


def unquoted(name: str) -> str:
    """Return the text of an SQL name."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def plain(heading: str) -> str:
    """Return an object's name as people write it."""
    return unquoted(heading.partition(" ")[2])


def dotted(heading: str, column: str) -> str:
    """Return the name of a column as people write it: `todo.description`."""
    return f"{plain(heading)}.{unquoted(column)}"


def table(name: str) -> tuple[str, str]:
    """Return a table's name as a literal, and its schema as a keyword argument, if it has one."""
    found = re.fullmatch(rf"(?:({NAME})\.)?({NAME})", name)
    if found is None:
        raise ValueError(name)
    schema = f", schema={string(unquoted(found[1]))}" if found[1] else ""
    return string(unquoted(found[2])), schema


def split(text: str) -> list[str]:
    """Split at the commas that stand outside of brackets and quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for place, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in "([":
            depth += 1
        elif sign in ")]":
            depth -= 1
        elif sign == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()]


def has_newline_in_literal(sql: str) -> bool:
    """Whether a line break is a part of a value: such a text must not be indented."""
    return any("\n" in one for one in re.findall(r"'(?:[^']|'')*'", sql))
