"""The `op.` call for a statement, where Alembic has one."""

import json
import re
from collections.abc import Callable, Iterator, Mapping

from schema.ddl.definition import column
from schema.revision.code import columns
from schema.revision.code.literals import NAME, names, split, string, table, unquoted
from schema.revision.code.types import written

type Parts = Mapping[str, str]
"""The parts of the object that a statement changes, after the change."""

_TABLE = rf"(?:{NAME}\.)?{NAME}"
_INDEX = re.compile(
    rf"CREATE (?P<unique>UNIQUE )?INDEX (?P<name>{NAME}) ON (?P<table>{_TABLE})"
    r" USING (?P<method>\w+) \((?P<columns>.+?)\)(?: INCLUDE \((?P<include>[^()]+)\))?"
    r"(?P<nulls> NULLS NOT DISTINCT)?(?: WITH \((?P<with>[^()]+)\))?(?: WHERE (?P<where>.+))?",
    re.DOTALL,
)
_LITERAL = r"E?'((?:[^']|'')*)'"


def call(sql: str, parts: Parts) -> str | None:
    """Return the `op.` call that executes the same statement; None if Alembic has none."""
    for pattern, write in _CALLS:
        if (found := pattern.fullmatch(sql)) is not None:
            return write(found, parts)
    return None


def create_index(sql: str, *, concurrently: bool) -> str | None:
    """Return the `op.` call that creates an index."""
    found = _INDEX.fullmatch(sql)
    if found is None or not _is_closed(found["columns"]):
        return None
    name, schema = table(found["table"])
    elements = ", ".join(_element(one) for one in split(found["columns"]))
    words = [f"op.f({string(unquoted(found['name']))})", name, f"[{elements}]"]
    if schema:
        words.append(schema.removeprefix(", "))
    if found["unique"]:
        words.append("unique=True")
    if found["method"] != "btree":
        words.append(f"postgresql_using={string(found['method'])}")
    if found["include"]:
        words.append(f"postgresql_include={names(split(found['include']))}")
    if found["nulls"]:
        words.append("postgresql_nulls_not_distinct=True")
    if found["with"]:
        pairs = (one.partition("=") for one in split(found["with"]))
        values = ", ".join(f"{string(key)}: {string(one.strip(chr(39)))}" for key, _, one in pairs)
        words.append(f"postgresql_with={{{values}}}")
    if found["where"]:
        words.append(f"postgresql_where={columns.text(found['where'])}")
    if concurrently:
        words.append("postgresql_concurrently=True")
    return f"op.create_index({', '.join(words)})"


def drop_index(index: str, heading: str, *, concurrently: bool) -> str:
    """Return the `op.` call that drops an index of a table."""
    name, schema = table(index)
    on, _ = table(heading.partition(" ")[2] if heading.startswith("table ") else index)
    where = f", table_name={on}" if heading.startswith("table ") and not concurrently else ""
    options = ", if_exists=True, postgresql_concurrently=True" if concurrently else ""
    return f"op.drop_index(op.f({name}){where}{schema}{options})"


def _element(text: str) -> str:
    return string(unquoted(text)) if re.fullmatch(NAME, text) else columns.text(text)


def _is_closed(text: str) -> bool:
    return text.count("(") == text.count(")")


def _add_column(found: re.Match[str], parts: Parts) -> str | None:
    definition = parts.get(f"column {found['column']}", "")
    fields = column(definition)
    if not fields:
        return None
    # A default that differs from row to row, and NOT NULL, come in later statements.
    for field, text, word in (
        ("default", f"  default {fields['default']}", "DEFAULT"),
        ("required", "  not null", "NOT NULL"),
    ):
        if fields[field] and word not in found["rest"]:
            definition = definition.replace(text, "", 1)
    written_column = columns.new_column(found["column"], definition)
    if written_column is None:
        return None
    name, schema = table(found["table"])
    return f"op.add_column({name}, {written_column}{schema})"


def _drop_column(found: re.Match[str], _parts: Parts) -> str:
    name, schema = table(found["table"])
    return f"op.drop_column({name}, {string(unquoted(found['column']))}{schema})"


def _drop_table(found: re.Match[str], _parts: Parts) -> str:
    name, schema = table(found["table"])
    return f"op.drop_table({name}{schema})"


def _alter(words: Callable[[re.Match[str]], str | None]) -> Callable[..., str | None]:
    def write(found: re.Match[str], _parts: Parts) -> str | None:
        chosen = words(found)
        if chosen is None:
            return None
        name, schema = table(found["table"])
        return f"op.alter_column({name}, {string(unquoted(found['column']))}, {chosen}{schema})"

    return write


def _new_type(found: re.Match[str]) -> str | None:
    kind = written(found["type"])
    if kind is None:
        return None
    using = f", postgresql_using={string(found['using'])}" if found["using"] else ""
    return f"type_={kind}{using}"


def _comment(found: re.Match[str]) -> str:
    return f"comment={'None' if found['text'] == 'NULL' else string(_text(found['text']))}"


def _text(literal: str) -> str:
    """Return the text of an SQL literal that `schema.ddl` has written."""
    if literal.startswith("E"):
        return literal[2:-1].replace("''", "'").replace("\\\\", "\\")
    return literal[1:-1].replace("''", "'")


def _table_comment(found: re.Match[str], _parts: Parts) -> str:
    name, schema = table(found["table"])
    if found["text"] == "NULL":
        return f"op.drop_table_comment({name}{schema})"
    return f"op.create_table_comment({name}, {string(_text(found['text']))}{schema})"


def _add_constraint(found: re.Match[str], _parts: Parts) -> str | None:
    name, schema = table(found["table"])
    constraint = f"op.f({string(unquoted(found['name']))})"
    body = found["body"]
    if check := columns.check_condition(body):
        later = ", postgresql_not_valid=True" if check[1] else ""
        return f"op.create_check_constraint({constraint}, {name}, {check[0]}{schema}{later})"
    if unique := columns.unique_columns(body):
        return f"op.create_unique_constraint({constraint}, {name}, {names(unique)}{schema})"
    if key := columns.reference(body):
        target, target_schema = string(str(unquoted(str(key["table"])))), key["schema"]
        words = [constraint, name, target, names(split(str(key["columns"])))]
        words += [names(split(str(key["referred"]))), *columns.options(key)]
        if schema:
            words.append(schema.removeprefix(", ").replace("schema=", "source_schema="))
        if target_schema:
            words.append(f"referent_schema={string(unquoted(target_schema))}")
        return f"op.create_foreign_key({', '.join(words)})"
    return None


def _drop_constraint(found: re.Match[str], _parts: Parts) -> str:
    name, schema = table(found["table"])
    return f"op.drop_constraint(op.f({string(unquoted(found['name']))}), {name}{schema})"


def _pattern(text: str) -> re.Pattern[str]:
    filled = text.replace("<table>", f"(?P<table>{_TABLE})").replace(
        "<column>", f"(?P<column>{NAME})"
    )
    return re.compile(filled.replace("<name>", f"(?P<name>{NAME})"), re.DOTALL)


_ALTER = "ALTER TABLE <table> ALTER COLUMN <column> "

_CALLS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Parts], str | None]], ...] = (
    (_pattern("ALTER TABLE <table> ADD COLUMN <column> (?P<rest>.+)"), _add_column),
    (_pattern("ALTER TABLE <table> DROP COLUMN <column>"), _drop_column),
    (_pattern("DROP TABLE <table>"), _drop_table),
    (_pattern(f"{_ALTER}SET NOT NULL"), _alter(lambda _: "nullable=False")),
    (_pattern(f"{_ALTER}DROP NOT NULL"), _alter(lambda _: "nullable=True")),
    (_pattern(f"{_ALTER}DROP DEFAULT"), _alter(lambda _: "server_default=None")),
    (
        _pattern(f"{_ALTER}SET DEFAULT (?P<default>.+)"),
        _alter(lambda found: f"server_default={columns.text(found['default'])}"),
    ),
    (
        _pattern(rf"{_ALTER}TYPE (?P<type>[\w\s(),\[\]]+?)(?: USING (?P<using>.+))?"),
        _alter(_new_type),
    ),
    (
        _pattern(rf"COMMENT ON COLUMN <table>\.<column> IS (?P<text>NULL|{_LITERAL})"),
        _alter(_comment),
    ),
    (_pattern(f"COMMENT ON TABLE <table> IS (?P<text>NULL|{_LITERAL})"), _table_comment),
    (_pattern("ALTER TABLE <table> ADD CONSTRAINT <name> (?P<body>.+)"), _add_constraint),
    (_pattern("ALTER TABLE <table> DROP CONSTRAINT <name>"), _drop_constraint),
)


def create_table(name: str, parts: Parts, order: list[str], inline: list[str]) -> str | None:
    """Return the `op.` call that creates a table with these constraints; None if there is none.

    `order` has the names of the columns in their order.
    """
    plain = {"persistence"} & parts.keys() or any(
        part.startswith(("partition", "inherits ", "of type")) for part in parts
    )
    if plain:
        return None
    words = list(_new_columns(parts, order))
    if None in words:
        return None
    words += [columns.constraint(one.removeprefix("constraint "), parts[one]) for one in inline]
    quoted, schema = table(name)
    if "comment" in parts:
        words.append(f"comment={string(json.loads(parts['comment']))}")
    body = ", ".join(filter(None, words))
    return f"op.create_table({quoted}, {body}{schema})"


def _new_columns(parts: Parts, order: list[str]) -> Iterator[str | None]:
    found = [part.removeprefix("column ") for part in parts if part.startswith("column ")]
    key = columns.key_columns(parts)
    ranks = {name: place for place, name in enumerate(order)}
    for name in sorted(found, key=lambda one: ranks.get(one, len(ranks))):
        yield columns.new_column(name, parts[f"column {name}"], in_key=name in key)
