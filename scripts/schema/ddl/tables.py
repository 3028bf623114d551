"""SQL for the parts of a table or view: columns, constraints, indexes, triggers, policies."""

import re
from collections.abc import Callable, Iterator

from schema.ddl.definition import (
    Names,
    column,
    literal,
    options,
    policy,
    schema_prefix,
    split_comment,
)

_INDEX = re.compile(
    r"(?P<create>CREATE .*?)?(?:(?:^|  )with (?P<with>.+?))?(?P<invalid>(?:^|  )INVALID)?"
    r"(?:  not live)?(?P<clustered>(?:^|  )clustered)?"
    r"(?:  tablespace (?P<tablespace>.+?))?(?:  partition of (?P<parent>.+?))?"
    r"(?:(?:^|  )statistics (?P<statistics>[\d, to]+))?",
    re.DOTALL,
)
"""A key's index has no CREATE: its constraint makes it."""

_TRIGGER = re.compile(
    r"(?P<create>CREATE .*?)(?:  (?P<state>disabled|enabled replica|enabled always))?", re.DOTALL
)
_STATES = {
    None: "ENABLE",
    "disabled": "DISABLE",
    "enabled replica": "ENABLE REPLICA",
    "enabled always": "ENABLE ALWAYS",
}
_ALTER = {
    "view": "VIEW",
    "materialized view": "MATERIALIZED VIEW",
    "foreign table": "FOREIGN TABLE",
}

type Part = tuple[str, str, str]
"""Kind of the object, its name, name of the part."""


def change(part: Part, old: str | None, new: str | None, names: Names) -> Iterator[str]:
    """Change a part of a table from one definition to another; None for none."""
    kind, name, full = part
    word, _, rest = full.partition(" ")
    if full in _PROPERTIES:
        yield from _PROPERTIES[full](kind, name, old, new)
        return
    if word in {"partition", "inherits"}:
        yield from _parent(name, full, old, new)
        return
    if word == "constraint" and " of " in rest:
        state = "ENABLE" if new is None else "DISABLE"
        yield f"ALTER TABLE {name} {state} TRIGGER ALL"
        return
    if word not in _PARTS or not rest:
        return
    old_body, old_comment = split_comment(old) if old is not None else (None, None)
    body, comment = split_comment(new) if new is not None else (None, None)
    is_keys_own = word == "index" and not str(old_body).startswith("CREATE")
    if is_keys_own and new is None and old_comment is not None:
        yield f"COMMENT ON INDEX {schema_prefix(name)}{rest} IS NULL"  # the index stays
    if old_body != body:
        yield from _PARTS[word]((kind, name, rest), old_body, body, names)
        if word != "column" or old_body is None:  # it was made anew
            old_comment = None
    if body is not None and comment != old_comment:
        text = "NULL" if comment is None else literal(comment)
        yield f"COMMENT ON {_comment_target(kind, name, word, rest)} IS {text}"


def rename(kind: str, name: str, old: str, new: str) -> str:
    """Rename a constraint or an index of a table."""
    word, _, was = old.partition(" ")
    now = new.removeprefix(f"{word} ")
    if word == "index":
        return f"ALTER INDEX {schema_prefix(name)}{was} RENAME TO {now}"
    return f"ALTER {_ALTER.get(kind, kind.upper())} {name} RENAME CONSTRAINT {was} TO {now}"


def column_definition(definition: str) -> str | None:
    """Write a column's definition for CREATE TABLE or ADD COLUMN; None if it is not clear."""
    found = column(definition)
    if not found or found["inherited"] or found["foreign_options"]:
        return None
    words = [str(found["type"])]
    if found["collation"]:
        words.append(f"COLLATE {found['collation']}")
    if found["generated"]:
        words.append(f"GENERATED ALWAYS AS ({found['generated']}) {found['kept']}")
    elif found["default"]:
        words.append(f"DEFAULT {found['default']}")
    if found["identity"]:
        words.append(f"GENERATED {found['identity'].upper()} AS IDENTITY")
    if found["required"]:
        words.append("NOT NULL")
    return " ".join(words)


def column_properties(name: str, rest: str, definition: str) -> Iterator[str]:
    """Set what CREATE TABLE cannot say: storage, compression, statistics, options, comment."""
    body, comment = split_comment(definition)
    plain: dict[str, str | None] = {
        "storage": None,
        "compression": None,
        "statistics": None,
        "options": None,
    }
    yield from _column_properties(name, rest, plain, dict(column(body)))
    if comment is not None:
        yield f"COMMENT ON COLUMN {name}.{rest} IS {literal(comment)}"


def guarded(target: str, condition: str, what: str, names: Names) -> Iterator[str]:
    """Fail if something holds rows or values. With `row_security = off` no row is hidden."""
    if not names.guarded:
        return
    message = literal(f"{what}: save what it holds first, then drop it by hand")
    yield (
        f"DO $guard$ BEGIN LOCK TABLE {target}; IF EXISTS (SELECT FROM {target}{condition}) THEN"
        f" RAISE EXCEPTION USING MESSAGE = {message}; END IF; END $guard$"
    )


def _column(part: Part, old: str | None, new: str | None, names: Names) -> Iterator[str]:
    kind, name, rest = part
    head = f"ALTER {_ALTER.get(kind, 'TABLE')} {name}"
    if kind not in {"table", "foreign table"}:
        yield from _view_default(head, rest, old, new)
    elif new is None:
        condition = f" WHERE {rest} IS DISTINCT FROM NULL"  # a row of NULLs is a value too
        yield from guarded(name, condition, f"column {name}.{rest} holds values", names)
        yield f"{head} DROP COLUMN {rest}"
    elif old is None:
        definition = column_definition(new)
        if definition is not None:
            yield f"{head} ADD COLUMN {rest} {definition}"
            yield from column_properties(name, rest, new)
    else:
        both = dict(column(old)), dict(column(new))
        yield from _altered_column((head, name, rest), both, names)


def _altered_column(
    place: tuple[str, str, str],
    both: tuple[dict[str, str | None], dict[str, str | None]],
    names: Names,
) -> Iterator[str]:
    head, name, rest = place
    was, now = both
    alter = f"{head} ALTER COLUMN {rest}"
    if not was or not now or any(was[one] != now[one] for one in ("kept", "generated")):
        if was.get("kept") == "stored" and not now.get("kept", "?"):
            yield f"{alter} DROP EXPRESSION"
        elif now.get("generated") and not names.guarded:  # the database computes its values
            yield f"{head} DROP COLUMN {rest}"
        return
    if (was["type"], was["collation"]) != (now["type"], now["collation"]):
        statements = list(_converted(place, (was, now), names))
        if not statements:
            return
        yield from statements
        was = {**was, "default": None}
    if was["identity"] != now["identity"]:
        yield from _identity(
            alter, was["identity"], now["identity"], required=bool(was["required"])
        )
    if was["default"] != now["default"]:
        default = now["default"]
        yield f"{alter} SET DEFAULT {default}" if default else f"{alter} DROP DEFAULT"
    if was["required"] != now["required"]:
        yield f"{alter} {'SET' if now['required'] else 'DROP'} NOT NULL"
    yield from _column_properties(name, rest, was, now)


def _converted(
    place: tuple[str, str, str],
    both: tuple[dict[str, str | None], dict[str, str | None]],
    names: Names,
) -> Iterator[str]:
    """Change a column's type; nothing if only a person knows what its values become."""
    head, name, rest = place
    was, now = both
    alter = f"{head} ALTER COLUMN {rest}"
    given = names.conversions.get(f"{name}.{rest}")
    if _depends_on_the_time_zone(str(was["type"]), str(now["type"])) and given is None:
        return  # only who changed the type knows which zone was meant
    if was["default"]:
        yield f"{alter} DROP DEFAULT"
    collate = f" COLLATE {now['collation']}" if now["collation"] else ""
    if was["type"] == now["type"]:
        yield f"{alter} TYPE {now['type']}{collate}"
        return
    back = f"{rest}::{now['type']}::{was['type']}"
    condition = f" WHERE {back}::text IS DISTINCT FROM {rest}::text"
    what = f"column {name}.{rest} holds values that {now['type']} cannot keep"
    yield from guarded(name, condition, what, names)
    is_text = all(str(one["type"]).startswith(("text", "character")) for one in both)
    if is_text and given is None and not names.guarded:  # a cast would cut values in silence
        yield f"{alter} TYPE {now['type']}{collate}"
        return
    yield f"{alter} TYPE {now['type']}{collate} USING {given or f'{rest}::{now["type"]}'}"


def _depends_on_the_time_zone(one: str, other: str) -> bool:
    zoned = [" with time zone" in kind for kind in (one, other)]
    return zoned[0] != zoned[1] and all(kind.startswith(("date", "time")) for kind in (one, other))


def _identity(alter: str, was: str | None, now: str | None, *, required: bool) -> Iterator[str]:
    if now is None:
        yield f"{alter} DROP IDENTITY"
    elif was is None:
        if not required:
            yield f"{alter} SET NOT NULL"
        yield f"{alter} ADD GENERATED {now.upper()} AS IDENTITY"
    else:
        yield f"{alter} SET GENERATED {now.upper()}"


def _column_properties(
    name: str, rest: str, was: dict[str, str | None], now: dict[str, str | None]
) -> Iterator[str]:
    alter = f"ALTER TABLE {name} ALTER COLUMN {rest}"
    for field, default in (("storage", "DEFAULT"), ("compression", "default")):
        if was.get(field) != now.get(field):
            yield f"{alter} SET {field.upper()} {now[field] or default}"
    if was.get("statistics") != now.get("statistics"):
        yield f"{alter} SET STATISTICS {now['statistics'] or -1}"
    yield from _set_options(alter, was.get("options"), now.get("options"))


def _view_default(head: str, rest: str, old: str | None, new: str | None) -> Iterator[str]:
    if old is None or new is None:
        return
    was, now = column(old), column(new)
    if was and now and was["type"] == now["type"] and was["default"] != now["default"]:
        default = now["default"]
        alter = f"{head} ALTER COLUMN {rest}"
        yield f"{alter} SET DEFAULT {default}" if default else f"{alter} DROP DEFAULT"


def _constraint(part: Part, old: str | None, new: str | None, _names: Names) -> Iterator[str]:
    kind, name, rest = part
    if any(one and one.endswith(("  inherited", "  inherited and local")) for one in (old, new)):
        return
    head = f"ALTER {'DOMAIN' if kind == 'domain' else 'TABLE'} {name}"
    if old is not None and old == f"{new} NOT VALID":
        yield f"{head} VALIDATE CONSTRAINT {rest}"
        return
    actions = [f"DROP CONSTRAINT {rest}"] if old is not None else []
    actions += [f"ADD CONSTRAINT {rest} {new}"] if new is not None else []
    if kind == "domain":
        yield from (f"{head} {action}" for action in actions)
    elif actions:
        yield f"{head} {', '.join(actions)}"


def _index(part: Part, old: str | None, new: str | None, _names: Names) -> Iterator[str]:
    _, name, rest = part
    was, now = _read_index(old), _read_index(new)
    index = schema_prefix(name) + rest
    if (old and not was) or (new and not now) or was.get("parent") != now.get("parent"):
        return
    if was.get("create") != now.get("create"):
        if was.get("create"):
            yield f"DROP INDEX {index}"
        if now.get("create"):
            yield str(now["create"])
        was = {}
    if old and not now and old.startswith("CREATE"):
        return
    yield from _set_options(f"ALTER INDEX {index}", was.get("with"), now.get("with"))
    if was.get("invalid") and not now.get("invalid"):
        yield f"REINDEX INDEX {index}"
    if was.get("clustered") and not now.get("clustered"):
        yield f"ALTER TABLE {name} SET WITHOUT CLUSTER"
    elif now.get("clustered") and not was.get("clustered"):
        yield f"ALTER TABLE {name} CLUSTER ON {rest}"
    yield from _index_statistics(index, was.get("statistics"), now.get("statistics"))


def _read_index(definition: str | None) -> dict[str, str | None]:
    found = _INDEX.fullmatch(definition or "")
    return found.groupdict() if found else {}


def _index_statistics(index: str, old: str | None, new: str | None) -> Iterator[str]:
    was, now = (
        dict(one.split(" to ") for one in (text or "").split(", ") if one) for text in (old, new)
    )
    for number in sorted(was.keys() | now.keys()):
        if was.get(number) != now.get(number):
            target = now.get(number, -1)
            yield f"ALTER INDEX {index} ALTER COLUMN {number} SET STATISTICS {target}"


def _trigger(part: Part, old: str | None, new: str | None, _names: Names) -> Iterator[str]:
    _, name, rest = part
    was = _TRIGGER.fullmatch(old) if old else None
    now = _TRIGGER.fullmatch(new) if new else None
    state = was["state"] if was else None
    if was and (now is None or was["create"] != now["create"]):
        yield f"DROP TRIGGER {rest} ON {name}"
        state = None
    if now:
        if was is None or was["create"] != now["create"]:
            yield now["create"]
        if state != now["state"]:
            yield f"ALTER TABLE {name} {_STATES[now['state']]} TRIGGER {rest}"


def _rule(part: Part, old: str | None, new: str | None, _names: Names) -> Iterator[str]:
    _, name, rest = part
    if old is not None:
        yield f"DROP RULE {rest} ON {name}"
    if new and not new.endswith(("  disabled", "  enabled replica", "  enabled always")):
        yield new


def _policy(part: Part, old: str | None, new: str | None, names: Names) -> Iterator[str]:
    _, name, rest = part
    if old is not None:
        yield f"DROP POLICY {rest} ON {name}"
    found = policy(new) if new else {}
    if found:
        roles = ", ".join(names.role(one) for one in str(found["roles"]).split(", "))
        using = f" USING ({found['using']})" if found["using"] else ""
        check = f" WITH CHECK ({found['check']})" if found["check"] else ""
        yield (
            f"CREATE POLICY {rest} ON {name} AS {str(found['kind']).upper()}"
            f" FOR {str(found['command']).upper()} TO {roles}{using}{check}"
        )


_PARTS: dict[str, Callable[[Part, str | None, str | None, Names], Iterator[str]]] = {
    "column": _column,
    "constraint": _constraint,
    "index": _index,
    "trigger": _trigger,
    "rule": _rule,
    "policy": _policy,
}


def _parent(name: str, part: str, old: str | None, new: str | None) -> Iterator[str]:
    """Attach a table to its partitioned table or parent, or detach it."""
    if part.startswith("partition of "):
        parent = part.removeprefix("partition of ")
        if old is not None:
            yield f"ALTER TABLE {parent} DETACH PARTITION {name}"
        if new is not None:
            yield f"ALTER TABLE {parent} ATTACH PARTITION {name} {new}"
    elif (old is None) != (new is None):
        no = "" if old is None else "NO "
        yield f"ALTER TABLE {name} {no}INHERIT {part.removeprefix('inherits ')}"


def _row_security(_kind: str, name: str, old: str | None, new: str | None) -> Iterator[str]:
    was, now = old or "disabled", new or "disabled"
    if was.startswith("enabled") != now.startswith("enabled"):
        state = "ENABLE" if now.startswith("enabled") else "DISABLE"
        yield f"ALTER TABLE {name} {state} ROW LEVEL SECURITY"
    if was.endswith("forced") != now.endswith("forced"):
        no = "" if now.endswith("forced") else "NO "
        yield f"ALTER TABLE {name} {no}FORCE ROW LEVEL SECURITY"


def _persistence(_kind: str, name: str, _old: str | None, new: str | None) -> Iterator[str]:
    if new in {None, "unlogged"}:
        yield f"ALTER TABLE {name} SET {'LOGGED' if new is None else 'UNLOGGED'}"


def _replica_identity(_kind: str, name: str, _old: str | None, new: str | None) -> Iterator[str]:
    words = {None: "DEFAULT", "full": "FULL", "nothing": "NOTHING"}
    if new is not None and new.startswith("index "):
        yield f"ALTER TABLE {name} REPLICA IDENTITY USING INDEX {new.removeprefix('index ')}"
    elif new in words:
        yield f"ALTER TABLE {name} REPLICA IDENTITY {words[new]}"


def _options(kind: str, name: str, old: str | None, new: str | None) -> Iterator[str]:
    yield from _set_options(f"ALTER {_ALTER.get(kind, 'TABLE')} {name}", old, new)


def _toast_options(_kind: str, name: str, old: str | None, new: str | None) -> Iterator[str]:
    yield from _set_options(f"ALTER TABLE {name}", old, new, "toast.")


def _set_options(alter: str, old: str | None, new: str | None, prefix: str = "") -> Iterator[str]:
    was, now = options(old), options(new)
    if gone := [prefix + one for one in was if one not in now]:
        yield f"{alter} RESET ({', '.join(gone)})"
    changed = [f"{prefix}{one} = {literal(now[one])}" for one in now if was.get(one) != now[one]]
    if changed:
        yield f"{alter} SET ({', '.join(changed)})"


_PROPERTIES: dict[str, Callable[[str, str, str | None, str | None], Iterator[str]]] = {
    "row security": _row_security,
    "persistence": _persistence,
    "replica identity": _replica_identity,
    "options": _options,
    "toast options": _toast_options,
}


def _comment_target(kind: str, name: str, word: str, rest: str) -> str:
    if word == "column":
        return f"COLUMN {name}.{rest}"
    if word == "index":
        return f"INDEX {schema_prefix(name)}{rest}"
    on = "DOMAIN " if kind == "domain" else ""
    return f"{word.upper()} {rest} ON {on}{name}"
