"""The objects that the revisions add, change and remove, from two snapshots."""

from collections.abc import Iterator
from typing import Literal

from migrations import snapshot
from schema.review.result import ObjectChange

_CHANGES: dict[str, Literal["added", "changed", "removed"]] = {
    "+": "added",
    "-": "removed",
    " ": "changed",
}


def changed_objects(
    before: snapshot.Snapshot, after: snapshot.Snapshot
) -> tuple[ObjectChange, ...]:
    """Return each object that differs, with its difference, in the order of schema.txt.

    Alembic's own table is no object of the schema.
    """
    return tuple(
        one
        for one in _split(snapshot.difference(before, after))
        if one.name != "table alembic_version"
    )


def _split(difference: str) -> Iterator[ObjectChange]:
    heading: list[str] = []
    for line in [*difference.splitlines(), ""]:
        # A heading stands behind its sign and one blank; what belongs to it is indented.
        is_heading = len(line) > 2 and line[2] != " "
        if (is_heading or not line) and heading:
            yield _change(heading)
            heading = []
        if line:
            heading.append(line)


def _change(lines: list[str]) -> ObjectChange:
    heading, *parts = lines
    return ObjectChange(heading[2:], _CHANGES[heading[0]], "\n".join(parts))
