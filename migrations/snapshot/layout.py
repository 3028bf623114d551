"""The text of a snapshot: schema.txt."""

from migrations.snapshot.fact import Fact, Snapshot

# The order of objects and parts in the text. Kinds that are not listed stand at OTHERS.
OTHERS = ""

OBJECTS = (
    "table",
    "foreign table",
    "view",
    "materialized view",
    "sequence",
    "function",
    "procedure",
    "aggregate",
    "domain",
    "type",
    OTHERS,
    "role",
    "default privileges",
    "schema",
    "extension",
    "database",
)

PARTS = (
    "comment",
    "of type",
    "partition of",
    "inherits",
    "partitioned by",
    "column",
    "constraint",
    "index",
    "trigger",
    "rule",
    "row security",
    "policy",
    OTHERS,
    "owner",
    "grant",
    "definition",
)


def layout(snapshot: Snapshot, head: str | None) -> str:
    """Write a snapshot as text: the revision, then a block per object with one fact per line.

    No line depends on another, so that git shows exactly the changes. Equal texts mean equal
    snapshots.
    """
    blocks: dict[str, list[Fact]] = {}
    for fact in snapshot:
        blocks.setdefault(fact.object, []).append(fact)
    lines = [f"revision {head or 'none'}"]
    for heading in sorted(blocks, key=object_key):
        lines += ["", one_line(heading)]
        for fact in sorted(blocks[heading], key=lambda fact: part_key(fact.part)):
            lines += _entry(fact)
    return "\n".join(lines) + "\n"


def revision(text: str) -> str | None:
    """Return the revision in the first line of a schema text."""
    name = text.partition("\n")[0].removeprefix("revision ")
    return None if name == "none" else name


def _entry(fact: Fact) -> list[str]:
    part = "    " + one_line(fact.part)
    first, *rest = _visible(fact.definition).split("\n")
    if rest:
        return [part, *(f"        {line}" if line else "" for line in (first, *rest))]
    return [f"{part}  {first}" if first else part]


def one_line(name: str) -> str:
    """Write a name in one line."""
    return _visible(_escaped(name, "␊")).replace("\n", "␊")


def _visible(text: str) -> str:
    """Mark the blanks that editors and git remove or rewrite: trailing blanks and CR."""
    lines = _escaped(text, "␍").replace("\r", "␍").split("\n")
    marked = [f"{line}¶" if line.endswith("¶") or line != line.rstrip() else line for line in lines]
    if len(marked) > 1 and not marked[-1]:
        marked[-1] = "¶"
    return "\n".join(marked)


def _escaped(text: str, sign: str) -> str:
    """Escape a sign in the text, so that it differs from the same sign written by `layout`."""
    return text.replace("␛", "␛␛").replace(sign, f"␛{sign}")


def object_key(heading: str) -> tuple[int, str]:
    """Sort objects in the order of OBJECTS."""
    return _rank(heading, OBJECTS), heading


def part_key(part: str) -> tuple[int, str]:
    """Sort an object's parts in the order of PARTS."""
    return _rank(part, PARTS), part


def _rank(text: str, order: tuple[str, ...]) -> int:
    """Return the position of the kind that the text starts with, or of OTHERS."""
    matches = (place for place, words in enumerate(order) if f"{text} ".startswith(f"{words} "))
    return next(matches, order.index(OTHERS))
