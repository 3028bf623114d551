"""SQL that creates, drops or changes whole objects."""

import re
from collections.abc import Callable, Iterator, Mapping

from schema.ddl.definition import Names, fields, literal, options, split_comment
from schema.ddl.tables import column_definition, column_properties, guarded

type Parts = Mapping[str, str]
"""The parts of an object, with their definitions."""

KINDS = (
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
    "operator family",
    "operator class",
    "operator",
    "collation",
    "conversion",
    "statistics",
    "text search parser",
    "text search template",
    "text search dictionary",
    "text search configuration",
    "cast",
    "language",
    "transform",
    "access method",
    "foreign-data wrapper",
    "server",
    "event trigger",
    "publication",
    "subscription",
    "large object",
    "extension",
    "schema",
    "role",
    "default privileges of",
    "database",
)
"""The words that headings begin with."""

NO_OPERATION = "SELECT 1"
"""What stands for the sequence of an identity, which its column makes."""

_LONGEST_FIRST = sorted(KINDS, key=len, reverse=True)
"""`operator class` is tried before `operator`."""

_ENUM = re.compile(r"'(?:[^']|'')*'")
_SEQUENCE = {
    "start": "START WITH",
    "increment": "INCREMENT BY",
    "minimum": "MINVALUE",
    "maximum": "MAXVALUE",
    "cache": "CACHE",
}


def split_heading(heading: str) -> tuple[str, str]:
    """Split a heading into the object's kind and its SQL name; the kind is '' if it is unknown."""
    for kind in _LONGEST_FIRST:
        if heading == kind or heading.startswith(f"{kind} "):
            return kind, heading.removeprefix(kind).strip()
    return "", heading


def sql_kind(kind: str) -> str:
    """Return the kind as ALTER, DROP and COMMENT call it."""
    return kind.replace("-", " ").upper()


def sql_name(kind: str, name: str) -> str:
    """Return the name as DROP and COMMENT want it."""
    if kind == "cast":
        return f"({name.removeprefix('from ').replace(' to ', ' AS ', 1)})"
    return name


def create(kind: str, name: str, parts: Parts) -> tuple[list[str], set[str]]:
    """Return the statements that create an object, and the parts that they create with it."""
    maker = _MAKERS.get(kind)
    if maker is None:
        return [], set()
    made = maker(name, parts)
    return ([], set()) if made is None else made


def drop(kind: str, name: str, parts: Parts, names: Names) -> Iterator[str]:
    """Drop an object, without what depends on it. A role and a large object are never dropped."""
    if "identity of" in parts or kind in {"role", "database", "large object", "", "subscription"}:
        return
    if kind == "table":
        yield from guarded(name, "", f"table {name} holds rows", names)
        yield f"DROP TABLE {name}"
    elif kind == "cast":
        yield f"DROP CAST {sql_name(kind, name)}"
    else:
        yield f"DROP {sql_kind(kind)} {name}"


def redefine(kind: str, name: str, old: str | None, new: str) -> Iterator[str]:
    """Change an object's definition in place; nothing if it must be created anew."""
    if kind in {"function", "procedure"}:
        yield new
    elif kind == "type" and old and old.startswith("enum ") and new.startswith("enum "):
        yield from _enum_values(name, _ENUM.findall(old), _ENUM.findall(new))
    elif kind == "domain" and old is not None:
        yield from _domain(name, fields(old), fields(new))
    elif kind == "statistics" and old and old.partition("  ")[0] == new.partition("  ")[0]:
        target = new.partition("  statistics ")[2] or "-1"
        yield f"ALTER STATISTICS {name} SET STATISTICS {target}"
    elif kind == "event trigger" and old:
        state = fields(new.replace(", ", "  "))[-1]
        word = {"disabled": "DISABLE", "enabled replica": "ENABLE REPLICA"}.get(state, "ENABLE")
        yield f"ALTER EVENT TRIGGER {name} {'ENABLE ALWAYS' if state == 'enabled always' else word}"
    elif kind == "text search dictionary" and old:
        yield from _dictionary(name, old, new)


def sequence(name: str, part: str, definition: str | None) -> Iterator[str]:
    """Change a sequence's parameters or its owning column."""
    if part == "parameters" and definition is not None:
        yield f"ALTER SEQUENCE {name} {_sequence_options(definition)}"
    elif part == "persistence":
        yield f"ALTER SEQUENCE {name} SET {'LOGGED' if definition is None else 'UNLOGGED'}"
    elif part == "owned by":
        yield f"ALTER SEQUENCE {name} OWNED BY {definition or 'NONE'}"


def _create_table(name: str, parts: Parts) -> tuple[list[str], set[str]] | None:
    columns = {part: one for part, one in parts.items() if part.startswith("column ")}
    for part, bound in parts.items():
        if part.startswith("partition of "):  # it takes its columns and constraints from there
            parent = part.removeprefix("partition of ")
            return [f"CREATE TABLE {name} PARTITION OF {parent} {bound}"], {part, *columns}
    if "of type" in parts:
        return [f"CREATE TABLE {name} OF {parts['of type']}"], {"of type", *columns}
    parents = [part.removeprefix("inherits ") for part in parts if part.startswith("inherits ")]
    inherited = {part for part, one in columns.items() if one.endswith("  inherited")}
    written = {
        part: column_definition(one) for part, one in columns.items() if part not in inherited
    }
    if None in written.values():
        return None
    unlogged = "UNLOGGED " if parts.get("persistence") == "unlogged" else ""
    body = ", ".join(f"{part.removeprefix('column ')} {text}" for part, text in written.items())
    partitioned = f" PARTITION BY {parts['partitioned by']}" if "partitioned by" in parts else ""
    inherits = f" INHERITS ({', '.join(parents)})" if parents else ""
    statements = [f"CREATE {unlogged}TABLE {name} ({body}){inherits}{partitioned}"]
    for part, one in columns.items():
        if part in inherited:
            continue
        statements += column_properties(name, part.removeprefix("column "), one)
    made = {*columns, "persistence", "partitioned by", "access method"}
    return statements, made | {f"inherits {one}" for one in parents}


def replace_view(name: str, parts: Parts) -> str:
    """Return the statement that gives a view another query; it fails if the view loses columns."""
    return _create_view(name, parts)[0][0].replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1)


def _create_view(name: str, parts: Parts) -> tuple[list[str], set[str]]:
    chosen = ", ".join(
        f"{key} = {literal(one)}" for key, one in options(parts.get("options")).items()
    )
    having = f" WITH ({chosen})" if chosen else ""
    statements = [f"CREATE VIEW {name}{having} AS {parts['definition'].rstrip(';')}"]
    return statements + _column_comments(name, parts), _with_columns(parts, "definition", "options")


def _create_materialized_view(name: str, parts: Parts) -> tuple[list[str], set[str]]:
    query = parts["definition"].rstrip(";")
    statements = [f"CREATE MATERIALIZED VIEW {name} AS {query} WITH NO DATA"]
    return statements + _column_comments(name, parts), _with_columns(parts, "definition")


def _column_comments(name: str, parts: Parts) -> list[str]:
    comments = (
        (part.removeprefix("column "), split_comment(one)[1])
        for part, one in parts.items()
        if part.startswith("column ")
    )
    return [f"COMMENT ON COLUMN {name}.{c} IS {literal(text)}" for c, text in comments if text]


def _with_columns(parts: Parts, *others: str) -> set[str]:
    return {*others, *(part for part in parts if part.startswith("column ")), "rule _RETURN"}


def _create_routine(_name: str, parts: Parts) -> tuple[list[str], set[str]]:
    return [parts["definition"]], {"definition"}


def _create_sequence(name: str, parts: Parts) -> tuple[list[str], set[str]] | None:
    if "identity of" in parts:  # its column makes it
        return [NO_OPERATION], set(parts)
    definition = parts["parameters"]
    return [f"CREATE SEQUENCE {name} {_sequence_options(definition)}"], {"parameters"}


def _sequence_options(definition: str) -> str:
    words = [f"AS {fields(definition)[0]}"]
    for field in fields(definition)[1:]:
        word, _, value = field.partition(" ")
        words.append("CYCLE" if word == "cycle" else f"{_SEQUENCE[word]} {value}")
    return " ".join(words if "CYCLE" in words else [*words, "NO CYCLE"])


def _create_type(name: str, parts: Parts) -> tuple[list[str], set[str]] | None:
    definition = parts.get("definition", "")
    if definition.startswith("enum "):
        return [f"CREATE TYPE {name} AS ENUM ({definition.removeprefix('enum ')})"], {"definition"}
    if definition.startswith("composite of "):
        attributes = []
        for attribute in definition.removeprefix("composite of ").split(", "):
            found = column_definition(parts.get(f"column {attribute}", ""))
            if found is None:
                return None
            attributes.append(f"{attribute} {found}")
        statements = [f"CREATE TYPE {name} AS ({', '.join(attributes)})"]
        return statements + _column_comments(name, parts), _with_columns(parts, "definition")
    return None


def _create_domain(name: str, parts: Parts) -> tuple[list[str], set[str]]:
    words = []
    for field in fields(parts["definition"]):
        word, _, value = field.partition(" ")
        words.append({"collation": f"COLLATE {value}", "not": "NOT NULL"}.get(word, field))
    return [f"CREATE DOMAIN {name} AS {' '.join(words)}"], {"definition"}


def _domain(name: str, old: list[str], new: list[str]) -> Iterator[str]:
    if old[0] != new[0]:
        return
    was = next((one for one in old if one.startswith("default ")), None)
    now = next((one for one in new if one.startswith("default ")), None)
    if was != now:
        yield f"ALTER DOMAIN {name} {f'SET {now}' if now else 'DROP DEFAULT'}"
    if ("not null" in old) != ("not null" in new):
        yield f"ALTER DOMAIN {name} {'SET' if 'not null' in new else 'DROP'} NOT NULL"


def _enum_values(name: str, old: list[str], new: list[str]) -> Iterator[str]:
    if [one for one in new if one in old] != old:  # a value is gone, or they have another order
        return
    for place, value in enumerate(new):
        if value not in old:
            where = f"AFTER {new[place - 1]}" if place else f"BEFORE {old[0]}"
            yield f"ALTER TYPE {name} ADD VALUE {value} {where}"


def _dictionary(name: str, old: str, new: str) -> Iterator[str]:
    if old.partition("  ")[0] == new.partition("  ")[0] and new.partition("  ")[2]:
        yield f"ALTER TEXT SEARCH DICTIONARY {name} ({new.partition('  ')[2]})"


def _create_schema(name: str, _parts: Parts) -> tuple[list[str], set[str]]:
    return [f"CREATE SCHEMA {name}"], set()


def _create_extension(name: str, parts: Parts) -> tuple[list[str], set[str]]:
    schema = parts["definition"].partition("  schema ")[2]
    return [f"CREATE EXTENSION {name} SCHEMA {schema}"], {"definition"}


def _create_role(name: str, _parts: Parts) -> tuple[list[str], set[str]]:
    return [f"CREATE ROLE {name} NOLOGIN"], set()


def _create_statistics(_name: str, parts: Parts) -> tuple[list[str], set[str]]:
    return [parts["definition"].partition("  statistics ")[0]], {"definition"}


def _create_event_trigger(name: str, parts: Parts) -> tuple[list[str], set[str]]:
    words = {"on": "ON", "when": "WHEN", "execute": "EXECUTE FUNCTION"}
    said = []
    for field in fields(parts["definition"]):
        for word, sql in words.items():
            if field.startswith(f"{word} "):
                values = field.removeprefix(f"{word} ")
                said.append(f"{sql} {_tags(values) if word == 'when' else values}")
    return [f"CREATE EVENT TRIGGER {name} {' '.join(said)}"], {"definition"}


def _tags(condition: str) -> str:
    tags = ", ".join(literal(tag) for tag in condition.removeprefix("tag in ").split(", "))
    return f"TAG IN ({tags})"


_MAKERS: dict[str, Callable[[str, Parts], tuple[list[str], set[str]] | None]] = {
    "table": _create_table,
    "view": _create_view,
    "materialized view": _create_materialized_view,
    "function": _create_routine,
    "procedure": _create_routine,
    "sequence": _create_sequence,
    "type": _create_type,
    "domain": _create_domain,
    "schema": _create_schema,
    "extension": _create_extension,
    "role": _create_role,
    "statistics": _create_statistics,
    "event trigger": _create_event_trigger,
}
