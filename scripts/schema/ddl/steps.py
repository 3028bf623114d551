"""Find what to change in a database so that one snapshot becomes another: a step for each part."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from migrations.snapshot import Snapshot
from schema.ddl import objects, privileges, tables
from schema.ddl.definition import Names, literal

_INHERITED = ("  inherited", "  inherited and local")

_ANEW = {"view", "materialized view"}
"""Kinds that are created anew when their definition changes."""


@dataclass(frozen=True)
class Step:
    """What to execute for one part of an object."""

    object: str
    part: str
    """'' for the whole object."""
    statements: tuple[str, ...]
    """Without semicolons; none if no statement is known."""


def steps(before: Snapshot, after: Snapshot, names: Names) -> list[Step]:
    """Return the steps from one schema to another, drops first; the order is not always right."""
    old, new = _objects(before), _objects(after)
    found: list[Step] = []
    for heading in sorted(old.keys() | new.keys(), key=_rank):
        kind, name = objects.split_heading(heading)
        if heading not in new:
            found += _dropped(heading, kind, name, old[heading], names)
        elif heading not in old:
            found += _created(heading, new[heading], names)
        elif old[heading] != new[heading]:
            found += _changed(heading, old[heading], new[heading], names)
    return sorted(found, key=_order)


def _objects(snapshot: Snapshot) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for fact in snapshot:
        found.setdefault(fact.object, {})[fact.part] = fact.definition
    return found


def _dropped(
    heading: str, kind: str, name: str, parts: dict[str, str], names: Names
) -> Iterator[Step]:
    if kind in {"default privileges of", "database"}:
        yield from _changed(heading, parts, {}, names)
    elif kind == "role":  # it may be another database's too: only what it has here goes
        memberships = {part: one for part, one in parts.items() if part != "attributes"}
        yield from _changed(heading, memberships, {}, names)
    else:
        yield Step(heading, "", tuple(objects.drop(kind, name, parts, names)))


def _created(heading: str, parts: dict[str, str], names: Names) -> Iterator[Step]:
    kind, name = objects.split_heading(heading)
    if kind in {"default privileges of", "database"}:
        yield from _changed(heading, {}, parts, names)
        return
    statements, made = objects.create(kind, name, parts)
    yield Step(heading, "", tuple(statements))
    left = {part: one for part, one in parts.items() if part not in made}
    own = {"owner": "<owner>"} if statements else {}
    if kind == "table":
        own["row security"] = "disabled"
    if kind in {"function", "procedure"}:
        own["grant to PUBLIC"] = "EXECUTE"
    if kind in {"type", "domain"}:
        own["grant to PUBLIC"] = "USAGE"
    yield from _changed(heading, own, left, names)


def _changed(
    heading: str, old: dict[str, str], new: dict[str, str], names: Names
) -> Iterator[Step]:
    kind, name = objects.split_heading(heading)
    if kind == "view" and not names.guarded and old.get("definition") != new.get("definition"):
        yield Step(heading, "definition", (objects.replace_view(name, new),))
        kept = {part for part in new if part.startswith("column ") or part == "options"}
        old, new = (
            {part: one for part, one in parts.items() if part not in kept | {"definition"}}
            for parts in (old, new)
        )
    elif kind in _ANEW and old.get("definition") != new.get("definition") and "definition" in old:
        drop = tuple(objects.drop(kind, name, old, names))
        yield Step(heading, "definition", drop)
        yield from _created(heading, new, names)
        return
    renamed = renamed_parts(old, new)
    for part, was in renamed.items():
        yield Step(heading, part, (tables.rename(kind, name, was, part),))
    for part in sorted((old.keys() | new.keys()) - renamed.keys() - set(renamed.values())):
        if old.get(part) != new.get(part):
            made = _part(kind, name, (part, old.get(part), new.get(part)), names)
            yield Step(heading, part, tuple(made))


def renamed_parts(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Return the old name of each constraint and index that has a new one.

    They are equal but for the name, and no other one is: nothing that holds rows is guessed. A name
    may be one that another of them gives up; the order in which they are renamed is not said.
    """
    gone = _without_names({part: one for part, one in old.items() if new.get(part) != one})
    come = _without_names({part: one for part, one in new.items() if old.get(part) != one})
    found = {
        parts[0]: gone[key][0]
        for key, parts in come.items()
        if len(parts) == len(gone.get(key, ())) == 1
    }
    return {part: was for part, was in found.items() if _is_free(part, found, old)}


def _is_free(part: str, renamed: Mapping[str, str], old: Mapping[str, str]) -> bool:
    """Whether what has a name now gives it up, and so on; in a circle there is no first one."""
    given_up = {was: now for now, was in renamed.items()}
    seen = {part}
    while part in old:
        if part not in given_up or given_up[part] in seen:
            return False
        part = given_up[part]
        seen.add(part)
    return True


def _without_names(parts: Mapping[str, str]) -> dict[str, list[str]]:
    """Group constraints and indexes by their definitions without their names."""
    found: dict[str, list[str]] = {}
    for part, definition in parts.items():
        word, _, name = part.partition(" ")
        if word in {"constraint", "index"} and not definition.endswith(_INHERITED):
            key = f"{word} {definition.replace(f' INDEX {name} ON ', ' INDEX ON ', 1)}"
            found.setdefault(key, []).append(part)
    return found


def _part(
    kind: str, name: str, change: tuple[str, str | None, str | None], names: Names
) -> Iterator[str]:
    part, old, new = change
    if part == "comment":
        target = names.database if kind == "database" else objects.sql_name(kind, name)
        text = "NULL" if new is None else literal(json.loads(new))
        yield f"COMMENT ON {objects.sql_kind(kind)} {target} IS {text}"
    elif part == "owner" and new is not None:
        yield f"ALTER {objects.sql_kind(kind)} {name} OWNER TO {names.role(new)}"
    elif part.startswith("grant "):
        yield from privileges.grant(kind, name, change, names)
    elif kind == "default privileges of":
        yield from privileges.default_privileges(name, part, new, names)
    elif kind == "role":
        yield from privileges.role(name, change, names)
    elif kind == "database":
        yield from privileges.database(part, new, names)
    elif kind == "sequence":
        yield from objects.sequence(name, part, new)
    elif part == "definition":
        if new is not None:
            yield from objects.redefine(kind, name, old, new)
    else:
        yield from tables.change((kind, name, part), old, new, names)


_PHASES = ("role", "schema", "extension", "type", "domain", "sequence", "function", "table")


def _rank(heading: str) -> tuple[int, str]:
    kind, _ = objects.split_heading(heading)
    return (_PHASES.index(kind) if kind in _PHASES else len(_PHASES), heading)


def _order(step: Step) -> int:
    """Privileges and drops of what uses others first, then what others use, then its users."""
    if step.object.startswith("event trigger "):
        return 2
    first = " ".join(step.statements).startswith("DROP")
    late = ("constraint ", "index ", "trigger ", "policy ", "grant ", "owner", "comment")
    return -1 if first else int(step.part.startswith(late))
