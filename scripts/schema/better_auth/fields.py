"""The Python of a generated model: fields, classes, and the names that they import."""

import json
import keyword
import re
import textwrap
from dataclasses import dataclass

from schema.better_auth import wording
from schema.better_auth.needs import Default, Field, Table

_PYTHON = {
    "string": "str",
    "number": "int",
    "boolean": "bool",
    "date": "datetime",
    "json": "dict[str, Any] | list[Any]",
    "string[]": "list[str]",
    "number[]": "list[float]",
}
_TYPES = {
    "text": ("sqlalchemy", "Text"),
    "integer": ("sqlalchemy", "Integer"),
    "bigint": ("sqlalchemy", "BigInteger"),
    "uuid": ("sqlalchemy", "Uuid"),
    "timestamp with time zone": (".base", "TIMESTAMPTZ"),
    "jsonb": ("sqlalchemy.dialects.postgresql", "JSONB"),
}
"""Where a type comes from; SQLModel makes a boolean column by itself."""

_LINE = 72
"""Characters of a column's comment that fit into a line of a model."""

type Imports = frozenset[tuple[str, str]]
"""Modules and the names that they give."""


@dataclass(frozen=True)
class Code:
    """A piece of a module, and what it imports."""

    text: str
    imports: Imports


def snake(name: str) -> str:
    """Return a name in Python's style for attributes and modules."""
    return wording.words(name).replace(" ", "_")


def attribute(name: str) -> str | None:
    """Return the attribute of a column; None if there is none.

    A name that Python, SQLModel or pydantic keeps for itself gets an underscore.
    """
    from models.better_auth import BetterAuthTable  # noqa: PLC0415  # see differences.py

    made = snake(name)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", made):
        return None
    taken = keyword.iskeyword(made) or hasattr(BetterAuthTable, made) or made.startswith("model_")
    return f"{made}_" if taken else made


def class_name(table: str) -> str | None:
    """Return the class of a table; None if its name gives none."""
    made = "".join(word.capitalize() for word in wording.words(table).split())
    plain = re.fullmatch(r"[\w-]+", table) and re.fullmatch(r"[A-Z][A-Za-z0-9]*", made)
    return made if plain else None


def field_code(table: Table, field: Field, name: str) -> Code:
    """Return the line of a field in its model, which is still to be formatted."""
    imports = {("sqlmodel", "Field")}
    nullable = not field.required
    python = "UUID" if field.type == "uuid" else _PYTHON[field.kind]
    for word, module in (("UUID", "uuid"), ("datetime", "datetime"), ("Any", "typing")):
        if re.search(rf"\b{word}\b", python):
            imports.add((module, word))
    arguments = ["default=None"] if nullable or field.default else []
    if field.unique:
        arguments.append("unique=True")
    if field.reference:
        target = f"{field.reference.table}.{field.reference.column}"
        arguments.append(f"foreign_key={json.dumps(target)}")
        if field.reference.on_delete != "NO ACTION":
            arguments.append(f"ondelete={json.dumps(field.reference.on_delete)}")
    if (kind := _TYPES.get(field.type)) is not None:
        imports.add(kind)
        arguments.append(f"sa_type={kind[1]}")
    column, needed = _column(table, field, name)
    arguments.append(f"sa_column_kwargs={{{column}}}")
    annotation = f"{python} | None" if nullable else python
    line = f"    {name}: {annotation} = Field({', '.join(arguments)})"
    return Code(line, frozenset(imports | needed))


def _column(table: Table, field: Field, name: str) -> tuple[str, set[tuple[str, str]]]:
    """Return what the column has beside its type, and the names that it imports."""
    comment = wording.of_column(table, field)
    entries: dict[str, str] = {}
    imports: set[tuple[str, str]] = set()
    if name != field.name:
        entries["name"] = json.dumps(field.name)
    if field.default:
        entries["server_default"], imports = _default(field.default)
    entries["comment"] = literal(comment)
    if comment.startswith((wording.SECRET, wording.PERSONAL)) and _needs_mask(field):
        entries["info"] = """{"mask": "'{}'::jsonb"}"""
    return ", ".join(f'"{key}": {value}' for key, value in entries.items()), imports


def _needs_mask(field: Field) -> bool:
    """Whether an anonymised branch cannot tell what the column could hold instead."""
    return field.required and field.type == "jsonb"


def _default(default: Default) -> tuple[str, set[tuple[str, str]]]:
    """Return a server default, which existing rows get, too."""
    if default.now:
        return "NOW", {(".base", "NOW")}
    if isinstance(default.value, str):
        return json.dumps(default.value), set()
    return f"text({json.dumps(json.dumps(default.value))})", {("sqlalchemy", "text")}


def literal(text: str, width: int = _LINE) -> str:
    """Return a text as a Python literal, over several lines if it is longer than the width."""
    if len(text) <= width:
        return json.dumps(text, ensure_ascii=False)
    lines = textwrap.wrap(text, width, drop_whitespace=False, break_on_hyphens=False)
    return f"({' '.join(json.dumps(line, ensure_ascii=False) for line in lines)})"


def index_code(columns: tuple[str, ...], name: str | None, *, unique: bool) -> Code:
    """Return an index of `__table_args__`; without a name it gets that of the convention."""
    arguments = [json.dumps(name) if name else "None", *map(json.dumps, columns)]
    text = f"Index({', '.join([*arguments, *(['unique=True'] if unique else [])])})"
    return Code(text, frozenset({("sqlalchemy", "Index")}))
