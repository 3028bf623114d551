"""Let what needs something wait for it: a foreign key for its key, a policy for the values."""

import re

from schema.ddl.definition import split_comment, standing_alone
from schema.revision.code.columns import reference
from schema.revision.code.literals import split
from schema.revision.way.plan import Key, Name, Plan, changed, is_computed, keep


def wait_for_key(key: Key, plan: Plan) -> None:
    """Let a FOREIGN KEY wait for the key that it needs."""
    found = reference(split_comment(plan.new[key])[0])
    if found is None:
        return
    table = ".".join(str(found[one]) for one in ("schema", "table") if found[one])
    stage = plan.keys.get((table, frozenset(split(str(found["referred"])))))
    if stage is not None:
        for facts in plan.until("attach" if stage == "attach" else "require"):
            keep(facts, key, plan.old.get(key))


def wait_for_values(plan: Plan) -> None:
    """Let what uses a new column wait until its rows are filled, and what it replaces stay.

    A policy, a CHECK or a view of a column that is NULL still would be another one. What names the
    column is found in the texts: what waits without need comes late, and does no harm.
    """
    fills = [one for one in plan.fills if (one.table, f"column {one.column}") not in plan.old]
    tables = {one.table for one in fills}
    if not fills:
        return
    named = standing_alone(one.column for one in fills)
    waiting = {
        key[0] for key in changed(plan) if _is_replaced(key, plan) and named.search(plan.new[key])
    }
    for key in changed(plan):
        heading, part = key
        word, now = part.partition(" ")[0], plan.new.get(key)
        stage: Name | None = None
        if heading in waiting:
            stage = "attach"
        elif now is None:
            stage = "attach" if heading in tables and word in {"constraint", "policy"} else None
        elif word in {"policy", "trigger"} and named.search(now):
            stage = "attach" if word == "policy" or key in plan.old else None
        elif heading in tables and key in plan.old and is_computed(now):
            stage = "attach"
        elif heading in tables and now.startswith("CHECK ") and named.search(now):
            stage = "require"
        elif heading in tables and _is_unique_in_part(now) and key not in plan.old:
            stage = "validate" if named.search(now) else None
        for facts in plan.until(stage) if stage is not None else ():
            keep(facts, key, plan.old.get(key))


def _is_unique_in_part(definition: str) -> bool:
    """Whether rows without a value in a column may have equal keys in a unique index."""
    plain = re.fullmatch(r"CREATE UNIQUE INDEX .+? USING btree \([^()]+\)", definition)
    return definition.startswith("CREATE UNIQUE INDEX ") and plain is None


def _is_replaced(key: Key, plan: Plan) -> bool:
    """Whether a part is one of a view or a function that is there before and after."""
    return (
        key in plan.new
        and (key[0], "owner") in plan.old
        and key[0].startswith(("view ", "materialized view ", "function ", "procedure "))
    )
