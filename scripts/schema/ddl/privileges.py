"""SQL for owners, privileges, default privileges, roles and settings."""

import re
from collections.abc import Iterator

from schema.ddl.definition import OWNER, Names, literal, privileges, split_comment

_GRANT = re.compile(r"grant (?:on column (?P<column>.+) )?to (?P<role>.+)", re.DOTALL)
_DEFAULT = re.compile(
    r"(?P<kind>tables|sequences|functions|types|schemas|large objects)"
    r"(?: in schema (?P<schema>.+))? to (?P<role>.+)",
    re.DOTALL,
)
_BY_DEFAULT = {"functions": "EXECUTE", "types": "USAGE"}
"""What PUBLIC has on new objects, unless it was revoked."""

_ON = {
    "view": "TABLE",
    "materialized view": "TABLE",
    "foreign table": "TABLE",
    "aggregate": "FUNCTION",
    "server": "FOREIGN SERVER",
    "foreign-data wrapper": "FOREIGN DATA WRAPPER",
}
"""What GRANT calls a kind, where it is another word."""

_ATTRIBUTES = (
    "login",
    "inherit",
    "superuser",
    "createrole",
    "createdb",
    "replication",
    "bypassrls",
)

_SETTING = re.compile(r"\w+(\.\w+)*")
_ITEM = re.compile(r'"((?:[^"]|"")*)"|([^,"\s][^,"]*)')

_LISTS = {"search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"}
"""Settings whose value is a list of names: quoted as one string, it would be one name."""


def grant(
    kind: str, name: str, change: tuple[str, str | None, str | None], names: Names
) -> Iterator[str]:
    """Change a role's privileges on an object: the part, what it has, what it should have."""
    part, old, new = change
    found = _GRANT.fullmatch(part)
    if found is None or " by " in f"{old} {new}":
        return
    target = names.database if kind == "database" else name
    on = f"{_ON.get(kind, kind.upper())} {target}"
    column = f" ({found['column']})" if found["column"] else ""
    role = names.role(found["role"])
    if new is None and found["role"] == OWNER:
        new = "ALL"
    was, now = privileges(old), privileges(new)
    for words, option in (
        (was - now - {f"{word}*" for word in now} - {f"{word[:-1]}*" for word in now}, ""),
        ({word for word in was if word.endswith("*") and word[:-1] in now}, "GRANT OPTION FOR "),
    ):
        if words:
            gone = ", ".join(f"{word.rstrip('*')}{column}" for word in sorted(words))
            yield f"REVOKE {option}{gone} ON {on} FROM {role}"
    if found["role"] == OWNER and old is None and new is not None:
        yield f"REVOKE ALL ON {on} FROM {role}"
    for chosen, option in _lists(now - was):
        granted = ", ".join(f"{word}{column}" for word in chosen)
        yield f"GRANT {granted} ON {on} TO {role}{option}"


def default_privileges(name: str, part: str, granted: str | None, names: Names) -> Iterator[str]:
    """Give a role exactly these privileges on what another role will make."""
    found = _DEFAULT.fullmatch(part)
    if found is None or (granted and " by " in granted):
        return
    where = f" IN SCHEMA {found['schema']}" if found["schema"] else ""
    role = names.role(found["role"])
    head = f"ALTER DEFAULT PRIVILEGES FOR ROLE {names.role(name)}{where}"
    kind = found["kind"].upper()
    if granted is None and not where:
        if found["role"] == "PUBLIC":
            granted = _BY_DEFAULT.get(found["kind"])
        elif found["role"] == name:
            granted = "ALL"
    yield f"{head} REVOKE ALL ON {kind} FROM {role}"
    for words, option in _lists(privileges(granted)):
        yield f"{head} GRANT {', '.join(words)} ON {kind} TO {role}{option}"


def role(name: str, change: tuple[str, str | None, str | None], names: Names) -> Iterator[str]:
    """Set an attribute, a membership or a setting of a role. A role is never dropped."""
    part, old, definition = change
    if part == "attributes" and definition is not None:
        was, old_comment = split_comment(old or "")
        now, comment = split_comment(definition)
        if was != now:
            yield f"ALTER ROLE {name} {_attributes(was, now)}"
        if comment != old_comment:
            yield f"COMMENT ON ROLE {name} IS {'NULL' if comment is None else literal(comment)}"
    elif part.startswith("member of "):
        yield from _membership(name, names.role(part.removeprefix("member of ")), old, definition)
    elif part.startswith("setting "):
        setting = part.removeprefix("setting ")
        where = ""
        if setting.endswith(" in this database"):
            setting = setting.removesuffix(" in this database")
            where = f" IN DATABASE {names.database}"
        yield from _setting(f"ALTER ROLE {name}{where}", setting, definition)


def database(part: str, definition: str | None, names: Names) -> Iterator[str]:
    """Set a setting or the connection limit of the database."""
    if part.startswith("setting "):
        setting = part.removeprefix("setting ")
        yield from _setting(f"ALTER DATABASE {names.database}", setting, definition)
    elif part == "connection limit":
        yield f"ALTER DATABASE {names.database} CONNECTION LIMIT {definition or -1}"


def _membership(name: str, group: str, old: str | None, new: str | None) -> Iterator[str]:
    was, now = ((one or "").split("; ") for one in (old, new))
    for one in filter(None, was):
        if one not in now:
            _, _, grantor = one.partition(" by ")
            yield f"REVOKE {group} FROM {name}{f' GRANTED BY {grantor}' if grantor else ''}"
    for one in filter(None, now):
        if one not in was:
            words = one.partition(" by ")[0].split(", ")
            chosen = {"INHERIT": "inherit", "SET": "set", "ADMIN": "admin"}
            given = ", ".join(f"{key} {str(word in words).upper()}" for key, word in chosen.items())
            yield f"GRANT {group} TO {name} WITH {given}"


def _setting(head: str, setting: str, value: str | None) -> Iterator[str]:
    if not _SETTING.fullmatch(setting):
        return
    if value is None:
        yield f"{head} RESET {setting}"
    else:
        written = _list(value) if setting in _LISTS else literal(value)
        yield f"{head} SET {setting} TO {written}"


def _list(value: str) -> str:
    """Write a list of names, each as a literal of its own: a value may hold anything."""
    names = [quoted.replace('""', '"') or plain for quoted, plain in _ITEM.findall(value)]
    return ", ".join(map(literal, names)) or "''"


def _attributes(old: str, new: str) -> str:
    """Write the attributes that differ: a role without one may not even name it."""
    was, now = old.split(", "), new.split(", ")
    words = [
        word if word in now else f"no{word}"
        for word in _ATTRIBUTES
        if (word in was) != (word in now)
    ]
    for limit, default in (("connection limit ", "-1"), ("valid until ", "'infinity'")):
        before, after = (
            next((one.removeprefix(limit) for one in given if one.startswith(limit)), None)
            for given in (was, now)
        )
        if before != after:
            quoted = after if limit.startswith("connection") or after is None else literal(after)
            words.append(f"{limit}{quoted or default}")
    return " ".join(words).upper()


def _lists(words: set[str]) -> Iterator[tuple[list[str], str]]:
    """Split privileges by the grant option, and write it."""
    for option, chosen in (
        ("", [word for word in sorted(words) if not word.endswith("*")]),
        (" WITH GRANT OPTION", [word[:-1] for word in sorted(words) if word.endswith("*")]),
    ):
        if chosen:
            yield chosen, option
