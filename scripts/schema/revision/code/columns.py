"""Columns and constraints as SQLAlchemy writes them in a table."""

import re
from collections.abc import Mapping

from schema.ddl.definition import column, split_comment
from schema.revision.code.literals import NAME, names, split, string, unquoted
from schema.revision.code.types import written

_REFERENCE = re.compile(
    rf"FOREIGN KEY \((?P<columns>.+?)\) REFERENCES (?:(?P<schema>{NAME})\.)?(?P<table>{NAME})"
    r"\((?P<referred>.+?)\)(?P<options>.*)"
)
_OPTIONS = re.compile(
    r"(?: ON UPDATE (?P<onupdate>CASCADE|RESTRICT|SET NULL|SET DEFAULT))?"
    r"(?: ON DELETE (?P<ondelete>CASCADE|RESTRICT|SET NULL|SET DEFAULT))?"
    r"(?P<deferrable> DEFERRABLE)?(?: INITIALLY (?P<initially>DEFERRED))?(?P<later> NOT VALID)?"
)
_KEY = re.compile(r"(?P<kind>PRIMARY KEY|UNIQUE) \((?P<columns>[^()]+)\)")
_CHECK = re.compile(r"CHECK \((?P<condition>.*)\)(?P<later> NOT VALID)?", re.DOTALL)


_INTEGERS = ("sa.SmallInteger()", "sa.Integer()", "sa.BigInteger()")


def text(expression: str) -> str:
    """Write an SQL expression."""
    return f"sa.text({string(escaped(expression))})"


def escaped(sql: str) -> str:
    r"""Escape the colons that SQLAlchemy takes for parameters, and those that it takes for escaped.

    The rules are those of `sqlalchemy.sql.elements.TextClause`: `:name` is a parameter where no
    colon and no word stands beside it, and `\:` is a colon.
    """
    return re.sub(r"(?<![:\w]):(?=\w+(?![:\w]))|(?<=\\):", r"\\:", sql)


def new_column(name: str, definition: str, *, in_key: bool = False) -> str | None:
    """Write a column; None if SQLAlchemy cannot say all of it."""
    body, comment = split_comment(definition)
    found = column(body)
    kind = written(str(found.get("type"))) if found else None
    if kind is None or found["inherited"] or found["foreign_options"]:
        return None
    if found["collation"]:
        collation = f"collation={string(unquoted(str(found['collation'])))}"
        if kind not in {"sa.Text()", "sa.String()"} or "." in str(found["collation"]):
            return None
        kind = kind.replace("()", f"({collation})")
    words = [string(unquoted(name)), kind]
    if found["generated"]:
        kept = found["kept"] == "stored"
        words.append(f"sa.Computed({string(escaped(str(found['generated'])))}, persisted={kept})")
    if found["identity"]:
        words.append(f"sa.Identity(always={found['identity'] == 'always'})")
    if in_key and kind in _INTEGERS and not found["default"] and not found["identity"]:
        words.append("autoincrement=False")  # otherwise SQLAlchemy gives it a sequence
    if found["default"]:
        words.append(f"server_default={text(found['default'])}")
    if found["required"]:
        words.append("nullable=False")
    if comment is not None:
        words.append(f"comment={string(comment)}")
    return f"sa.Column({', '.join(words)})"


def constraint(name: str, definition: str) -> str | None:
    """Write a constraint of a table; None if SQLAlchemy cannot say all of it."""
    body, comment = split_comment(definition)
    if comment is not None:
        return None
    given = f"name=op.f({string(unquoted(name))})"
    if key := _plain_key(body):
        kind = "PrimaryKey" if key["kind"] == "PRIMARY KEY" else "Unique"
        columns = ", ".join(string(unquoted(one)) for one in split(key["columns"]))
        return f"sa.{kind}Constraint({columns}, {given})"
    if check := _CHECK.fullmatch(body):
        if check["later"] or not _is_closed(check["condition"]):
            return None
        return f"sa.CheckConstraint({string(escaped(check['condition']))}, {given})"
    if found := reference(body):
        referred = [f"{found['target']}.{unquoted(one)}" for one in split(str(found["referred"]))]
        words = [names(split(str(found["columns"]))), names(referred), given, *options(found)]
        return f"sa.ForeignKeyConstraint({', '.join(words)})"
    return None


def key_columns(parts: Mapping[str, str]) -> list[str]:
    """Return the columns of a table's primary key."""
    keys = (
        _plain_key(split_comment(definition)[0])
        for part, definition in parts.items()
        if part.startswith("constraint ") and definition.startswith("PRIMARY KEY ")
    )
    found = next(keys, None)
    return split(found["columns"]) if found else []


def check_condition(body: str) -> tuple[str, bool] | None:
    """Return the condition of a CHECK as a literal, and whether it is NOT VALID."""
    found = _CHECK.fullmatch(body)
    if found is None or not _is_closed(found["condition"]):
        return None
    return string(escaped(found["condition"])), bool(found["later"])


def unique_columns(body: str) -> list[str] | None:
    """Return the columns of a UNIQUE constraint that has no options."""
    found = _plain_key(body)
    return split(found["columns"]) if found and found["kind"] == "UNIQUE" else None


def _plain_key(body: str) -> re.Match[str] | None:
    """Match a key of plain columns, without options."""
    found = _KEY.fullmatch(body)
    if found is None or not all(re.fullmatch(NAME, one) for one in split(found["columns"])):
        return None
    return found


def reference(body: str) -> Mapping[str, str | None] | None:
    """Return the parts of a FOREIGN KEY that SQLAlchemy can say."""
    found = _REFERENCE.fullmatch(body)
    chosen = _OPTIONS.fullmatch(found["options"]) if found else None
    if found is None or chosen is None:
        return None
    target = ".".join(unquoted(one) for one in (found["schema"], found["table"]) if one)
    return {**found.groupdict(), **chosen.groupdict(), "target": target}


def options(key: Mapping[str, str | None]) -> list[str]:
    """Write the options of a FOREIGN KEY as keyword arguments."""
    words = [f"{one}={string(str(key[one]))}" for one in ("onupdate", "ondelete") if key[one]]
    if key["deferrable"]:
        words.append("deferrable=True")
    if key["initially"]:
        words.append(f"initially={string(str(key['initially']))}")
    if key["later"]:
        words.append("postgresql_not_valid=True")
    return words


def _is_closed(condition: str) -> bool:
    """Whether every bracket in a condition is closed in it: it is one condition, with no rest."""
    depth = 0
    for sign in re.sub(r"'(?:[^']|'')*'", "", condition):
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if depth < 0:
            return False
    return depth == 0
