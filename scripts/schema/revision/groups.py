"""Which steps of a stage become one revision.

Each lock of a deploy has its own time limit, so that a revision changes one busy table only.
"""

import re
from collections.abc import Sequence

from migrations.snapshot import Snapshot
from schema.ddl.steps import Step

_LOCKS_NOTHING = re.compile(r"(?:GRANT|REVOKE|COMMENT ON) ")
_REFERENCE = re.compile(r"FOREIGN KEY .* REFERENCES ", re.DOTALL)


def groups(stage: str, before: Snapshot, taken: Sequence[Step]) -> list[list[Step]]:
    """Split the steps of a stage; the order of the groups may not be one that works."""
    there = {fact.object for fact in before if fact.object.startswith("table ")}
    found: dict[str, list[Step]] = {}
    for step in taken:
        found.setdefault(_key(stage, step, there), []).append(step)
    if stage != "expand":
        return list(found.values())
    rest = found.pop("", [])
    locks = any(_REFERENCE.search(sql) for step in rest for sql in step.statements)
    if len(found) + locks < 2:
        return [list(taken)]
    return [one for one in (rest, *found.values()) if one]


def _key(stage: str, step: Step, there: set[str]) -> str:
    is_index = step.part.startswith("index ") and stage not in {"expand", "switch"}
    if is_index or any(" USING INDEX " in one for one in step.statements):
        return f"{step.object}\0{step.part}"  # it is done or undone outside of a transaction
    if stage != "expand":
        return step.object
    if step.object in there and not all(map(_LOCKS_NOTHING.match, step.statements)):
        return step.object
    return ""
