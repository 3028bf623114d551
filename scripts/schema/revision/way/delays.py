"""Delay what would hold a lock while it looks at rows: indexes, keys, NOT NULL, validation."""

import re
from collections.abc import Sequence

from schema.ddl.definition import column, schema_prefix, split_comment
from schema.ddl.steps import Step
from schema.revision.code.literals import dotted, split
from schema.revision.way.plan import (
    NOT_VALID,
    Fill,
    Key,
    Name,
    Plan,
    free_name,
    has_default,
    is_required,
    joined,
    keep,
)

_KEYS = ("PRIMARY KEY ", "UNIQUE ")
_LATER = ("CHECK ", "FOREIGN KEY ")
_INHERITED = ("  inherited", "  inherited and local")
_KEY = re.compile(
    r"(?P<kind>PRIMARY KEY|UNIQUE)(?P<nulls> NULLS NOT DISTINCT)? (?P<columns>\(.+?\))"
    r"(?P<include> INCLUDE \(.+?\))?(?P<with> WITH \(.+?\))?(?P<rest>(?: DEFERRABLE| INITIALLY).*)?"
)


def delay(key: Key, plan: Plan) -> None:
    """Set what a part is before it is as the models say: indexes, keys, NOT NULL."""
    heading, part = key
    word, _, name = part.partition(" ")
    was, now = plan.old.get(key), plan.new.get(key)
    if now is None:
        is_own = word == "index" and str(was).startswith("CREATE ")
        if was is not None and (is_own or was.startswith("UNIQUE ")):
            for facts in plan.until("contract"):
                facts[key] = was
    elif word == "index" and _is_built_anew(was, now):
        if was is None or not was.startswith("CREATE "):
            keep(plan.schemas["expand"], key, was)
        else:
            _switch(key, was, now, plan)
    elif word == "constraint" and now.startswith(_KEYS):
        _delay_key(heading, name, plan)
    elif word == "column" and _is_filled(heading, name, plan):
        if is_required(now):
            _require_later(heading, name, plan, filled=True)
    elif word == "column" and was is not None and is_required(now) and not is_required(was):
        _require_later(heading, name, plan, filled=False)


def _is_filled(heading: str, name: str, plan: Plan) -> bool:
    """Note what fills a column: what a person gave, or a default that differs from row to row."""
    key = (heading, f"column {name}")
    about = dotted(heading, name)
    given = plan.answers.fills.get(about)
    if given is not None:
        later = key not in plan.old and has_default(plan.new[key])
        again = is_required(plan.new[key]) and not later and about not in plan.answers.renames
        plan.fills.append(Fill(heading, name, given, sets_default_later=later, again=again))
        return True
    if key in plan.old or not has_default(plan.new[key]):
        return False
    if not plan.rewrites(heading, name, plan.new[key]):
        return False
    default = str(column(plan.new[key])["default"])
    plan.fills.append(Fill(heading, name, default, sets_default_later=True))
    return True


def _require_later(heading: str, name: str, plan: Plan, *, filled: bool) -> None:
    """Let a CHECK, which is validated without a lock, prove NOT NULL.

    It is not valid at first, and yet each UPDATE of an old row must meet it: so it comes after the
    rows are filled.
    """
    key = (heading, f"column {name}")
    helper = (heading, f"constraint {free_name(joined(heading, name), '_required', plan)}")
    check = f"CHECK ({name} IS NOT NULL)"
    for facts in plan.until("attach"):
        facts[key] = plan.new[key].replace("  not null", "", 1)
    plan.schemas["validate"][helper] = check
    for facts in plan.until("validate") if not filled else [plan.schemas["require"]]:
        facts[helper] = check + NOT_VALID


def _delay_key(heading: str, name: str, plan: Plan) -> None:
    """Build the index of a key first."""
    key = (heading, f"constraint {name}")
    body, _ = split_comment(plan.new[key])
    found = _KEY.fullmatch(body)
    if (
        found is None
        or "WITHOUT OVERLAPS" in body
        or (key in plan.old and split_comment(plan.old[key])[0] == body)
    ):
        return
    base = name.strip('"').removesuffix("_key").removesuffix("_pkey")
    index = free_name(base, "_new_idx", plan)
    table = heading.removeprefix("table ")
    parts = (found["columns"], found["include"], found["nulls"], found["with"])
    built = "".join(one or "" for one in parts)
    columns = split(found["columns"].strip("()"))
    filled = {fill.column for fill in plan.fills if fill.table == heading}
    stage: Name = "require" if filled & {*columns} else "switch"
    if not _are_required(heading, columns, found["kind"], plan):
        stage = "attach"
    plan.keys[table, frozenset(columns)] = stage
    for facts in plan.until(stage):
        keep(facts, key, plan.old.get(key))
        facts[heading, f"index {index}"] = (
            f"CREATE UNIQUE INDEX {index} ON {table} USING btree {built}"
        )
    del plan.schemas["expand"][heading, f"index {index}"]
    drop = [f"ALTER TABLE {table} DROP CONSTRAINT {name}"] if key in plan.old else []
    add = (
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {found['kind']} USING INDEX {index}"
        f"{found['rest'] or ''}"
    )
    plan.first.setdefault(stage, []).append(Step(heading, f"constraint {name}", (*drop, add)))


def _are_required(heading: str, columns: Sequence[str], kind: str, plan: Plan) -> bool:
    """Whether the index of a key can become the key without a look at rows."""
    if kind == "UNIQUE":
        return True
    definitions = (plan.old.get((heading, f"column {one}")) for one in columns)
    return all(one is not None and is_required(one) for one in definitions)


def delay_scan(key: Key, plan: Plan) -> None:
    """Let a constraint be added before it is validated."""
    was, now = plan.old.get(key), plan.schemas["require"][key]
    if not key[1].startswith("constraint ") or not now.startswith(_LATER):
        return
    body, _ = split_comment(now)
    before = split_comment(was)[0] if was is not None else None
    if body == before or body.endswith((NOT_VALID, *_INHERITED)):
        return
    for facts in plan.until("validate"):
        if facts.get(key) == now:
            facts[key] = body + NOT_VALID + now[len(body) :]


def _switch(key: Key, was: str, now: str, plan: Plan) -> None:
    """Build a changed index beside the one in use; then the two take each other's place.

    The old one is dropped last, so that no query and no unique key is without an index.
    """
    heading, part = key
    word, _, name = part.partition(" ")
    table = heading.removeprefix("table ")
    base = name.strip('"').removesuffix("_idx")
    built, replaced = (free_name(base, ending, plan) for ending in ("_new_idx", "_old_idx"))
    for facts in plan.until("contract"):
        facts[heading, f"{word} {replaced}"] = _named_index(was, name, replaced)
    for facts in plan.until("switch"):
        del facts[heading, f"{word} {replaced}"]
        facts[key] = was
    plan.schemas["indexes"][heading, f"{word} {built}"] = _named_index(now, name, built)
    schema = schema_prefix(table)
    renames = (
        f"ALTER INDEX {schema}{name} RENAME TO {replaced}",
        f"ALTER INDEX {schema}{built} RENAME TO {name}",
    )
    plan.first.setdefault("switch", []).append(Step(heading, part, renames))


def _named_index(definition: str, name: str, other: str) -> str:
    return definition.replace(f" INDEX {name} ON ", f" INDEX {other} ON ", 1)


def _is_built_anew(old: str | None, new: str | None) -> bool:
    """Whether an index is built or dropped: more than its comment or its statistics differs."""
    created = [one.partition("  ")[0] if one else None for one in (old, new)]
    return created[0] != created[1] and any(one and one.startswith("CREATE") for one in created)
