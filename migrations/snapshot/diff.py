"""Compare two snapshots or their texts."""

from difflib import unified_diff
from itertools import chain

from migrations.snapshot.fact import Snapshot
from migrations.snapshot.layout import layout, object_key, part_key


def difference(before: Snapshot, after: Snapshot) -> str:
    """Compare two snapshots; see `text_difference`."""
    return text_difference(layout(before, None), layout(after, None))


def text_difference(before: str, after: str) -> str:
    """Compare two schema texts, except for the revision; '' if they are equal.

    Lines with '-' are only in `before`, lines with '+' only in `after`; the others are context.
    A definition of several lines is compared line by line.
    """
    old, new = _parse(before), _parse(after)
    lines: list[str] = []
    for heading in sorted(old.keys() | new.keys(), key=object_key):
        if heading not in new:
            lines += _signed("-", [heading, *chain.from_iterable(old[heading].values())])
        elif heading not in old:
            lines += _signed("+", [heading, *chain.from_iterable(new[heading].values())])
        elif old[heading] != new[heading]:
            lines += _signed(" ", [heading])
            for part in sorted(old[heading].keys() | new[heading].keys(), key=part_key):
                lines += _entry_difference(old[heading].get(part, []), new[heading].get(part, []))
    return "".join(f"{line}\n" for line in lines)


def _parse(text: str) -> dict[str, dict[str, list[str]]]:
    """Parse a text made by `layout`: the lines of each part of each object."""
    blocks: dict[str, dict[str, list[str]]] = {}
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.split("\n")[1:]:
        if line and not line.startswith(" "):
            parts = blocks[line] = {}
        elif line.startswith("    ") and not line.startswith("     "):
            # A name is cut at its first two spaces: parts with the same key are kept together.
            lines = parts.setdefault(line.strip().partition("  ")[0], [])
            lines.append(line)
        else:
            lines.append(line)
    for parts in blocks.values():
        for lines in parts.values():
            # The blank line between two blocks does not belong to a definition.
            while not lines[-1]:
                lines.pop()
    return blocks


def _entry_difference(old: list[str], new: list[str]) -> list[str]:
    if old == new:
        return []
    if old[:1] != new[:1]:
        return _signed("-", old) + _signed("+", new)
    # Both definitions have several lines below the same name.
    hunks = list(unified_diff(old[1:], new[1:], n=2, lineterm=""))[2:]
    changed = [f"{line[0]} {line[1:]}".rstrip() for line in hunks if not line.startswith("@@")]
    return _signed(" ", old[:1]) + changed


def _signed(sign: str, lines: list[str]) -> list[str]:
    return [f"{sign} {line}".rstrip() for line in lines]
