"""Add to the models what Better Auth needs: files for new tables, fields and indexes for others.

Nothing is overwritten or removed. What cannot be added is named, with the reason.
"""

import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from keyword import iskeyword
from pathlib import Path

from schema.better_auth import wording
from schema.better_auth.differences import ADDED, NOT_NEEDED, Difference
from schema.better_auth.fields import (
    Code,
    attribute,
    class_name,
    field_code,
    index_code,
    literal,
    snake,
)
from schema.better_auth.needs import CORE, Field, Index, Needs, Table
from schema.better_auth.source import CannotAddError, Source, arrange
from schema.project import ROOT

MODELS = ROOT / "models"

_MODULE = '''"""The `{table}` table{of}. Better Auth's only."""

{imports}


class {name}(BetterAuthTable, table=True):
    """{what}."""

    __tablename__ = "{table}"
    __table_args__ = ({arguments}{{"comment": {comment}}},)

{fields}
'''

_LINE = 76
"""Characters of a table's comment that fit into a line of a model."""

_ALWAYS = frozenset({("sqlmodel", "Field"), (".better_auth", "BetterAuthTable")})


@dataclass(frozen=True)
class Draft:
    """What `--write` would do."""

    files: dict[Path, str]
    """The new text of each file."""
    refused: list[str]
    """What is not added, and why, a sentence each without the final stop."""


def draft(needs: Needs, differences: Iterable[Difference]) -> Draft:
    """Write what the models lack, in memory."""
    lacking = [one for one in differences if one.where != "history"]
    writer = _Writer({one.name: one for one in needs.tables})
    writer.expect([one.needs for one in lacking if isinstance(one.needs, Table)])
    for one in lacking:
        if one.kind in ADDED:
            try:
                writer.add(one)
            except CannotAddError as error:
                writer.refused.append(f"{one.sentence}, and was not added: {error}")
        elif one.kind not in NOT_NEEDED:
            writer.refused.append(one.sentence)
    return Draft(dict(writer.files()), writer.refused)


class _Writer:
    """The new texts of the models' files, while they grow."""

    def __init__(self, tables: dict[str, Table]) -> None:
        self._tables = tables
        self._new: dict[Path, str] = {}
        self._changed: dict[Path, Source] = {}
        self._expected: set[str] = set()
        self.refused: list[str] = []

    def expect(self, tables: list[Table]) -> None:
        """Note which tables are going to be there, so that others may reference them."""
        from models import metadata  # noqa: PLC0415  # a checkout may hold one that cannot be imported

        self._expected = {*metadata.tables, *(one.name for one in tables)}
        # A table that references a refused one is refused, too.
        while refused := self._expected & {one.name for one in tables if not self._possible(one)}:
            self._expected -= refused

    def _possible(self, table: Table) -> bool:
        try:
            self._module(table)
        except CannotAddError:
            return False
        return True

    def files(self) -> Iterator[tuple[Path, str]]:
        """Yield each file with its new text."""
        for path, text in self._new.items():
            yield path, arrange(text, path)
        for path, source in self._changed.items():
            if source.state():
                yield path, arrange(source.text(), path)

    def add(self, difference: Difference) -> None:
        """Add what is missing.

        Raises:
            CannotAddError: it cannot be added, and nothing of it was.

        """
        before = {path: source.state() for path, source in self._changed.items()}
        try:
            self._add(difference)
        except CannotAddError:
            for path, source in self._changed.items():
                source.restore(before.get(path, 0))
            raise

    def _add(self, difference: Difference) -> None:
        match difference.needs:
            case Table() as table:
                self._add_table(table)
            case Index() as index if difference.table:
                code = index_code(index.columns, index.name, unique=index.unique)
                self._add_arguments(difference.table, [code])
            case Field() as field if difference.table:
                self._add_to_table(self._tables[difference.table], field, difference.kind)

    def _add_table(self, table: Table) -> None:
        path, name, text = self._module(table)
        if path in self._new:
            raise CannotAddError(f"models/{path.name} is of another table")
        self._new[path] = text
        package = self._source(MODELS / "__init__.py")
        package.add_imports(frozenset({(f".{path.stem}", name)}))
        package.add_to_all(name)

    def _module(self, table: Table) -> tuple[Path, str, str]:
        """Return the path of a new table's model, its class and its text.

        Raises:
            CannotAddError: a name is taken or none in Python, or it references what is not there.

        """
        if table.key in CORE:
            raise CannotAddError(f"todos belong to the table user; leave {table.key}.modelName out")
        name = class_name(table.name)
        path = MODELS / f"{snake(table.name)}.py"
        if name is None or not path.stem.isidentifier() or iskeyword(path.stem):
            raise CannotAddError("its name gives no name of a class")
        if path.exists():
            raise CannotAddError(f"models/{path.name} is there already")
        if name in vars(import_module("models")):
            raise CannotAddError(f"models/__init__.py has another {name}")
        fields = [self._field(table, field) for field in table.fields]
        arguments = list(_indexes(table))
        imports = _ALWAYS.union(*(code.imports for code in (*fields, *arguments)))
        if name in {imported for _, imported in imports}:
            raise CannotAddError(f"its class would hide the {name} that it imports")
        what = wording.of_table(table)
        text = _MODULE.format(
            table=table.name,
            of=f" of Better Auth's plugin {table.plugin}" if table.plugin else "",
            imports="\n".join(f"from {module} import {one}" for module, one in sorted(imports)),
            name=name,
            what=what,
            arguments="".join(f"{code.text}, " for code in arguments),
            comment=literal(f"{what}; Better Auth's alone", _LINE),
            fields="\n".join(code.text for code in fields),
        )
        return path, name, text

    def _add_to_table(self, table: Table, field: Field, kind: str) -> None:
        """Add a column, or what an existing one lacks, to a model."""
        if kind == "missing-column":
            if (
                table.key in CORE
                and field.key != field.name
                and attribute(field.key) in _known(table)
            ):
                raise CannotAddError(f"leave {table.key}.fields.{field.key} out")
            self._add_field(table, field)
        elif kind == "missing-unique":
            code = Code(
                f"UniqueConstraint({json.dumps(field.name)})",
                frozenset({("sqlalchemy", "UniqueConstraint")}),
            )
            self._add_arguments(table.name, [code])
        else:
            self._add_arguments(table.name, [index_code((field.name,), None, unique=False)])

    def _add_field(self, table: Table, field: Field) -> None:
        code = self._field(table, field)
        model = _model(table.name)
        if attribute(field.name) in _known(table):
            raise CannotAddError(f"class {model.__name__} has an attribute of that name")
        source = self._source(Path(inspect.getfile(model)))
        source.add_imports(code.imports)
        source.add_field(model.__name__, code.text)
        if _needs_index(table, field):
            self._add_arguments(table.name, [index_code((field.name,), None, unique=False)])

    def _add_arguments(self, table: str, codes: list[Code]) -> None:
        model = _model(table)
        source = self._source(Path(inspect.getfile(model)))
        for code in codes:
            source.add_table_argument(model.__name__, code.text)
            source.add_imports(code.imports)

    def _field(self, table: Table, field: Field) -> Code:
        """Return the code of a field.

        Raises:
            CannotAddError: its name is no name in Python, or it references what is not there.

        """
        if (name := attribute(field.name)) is None:
            raise CannotAddError(f"{field.name} gives no name of an attribute")
        if field.reference and field.reference.table not in self._expected:
            raise CannotAddError(
                f"{field.name} references {field.reference.table}, which is not there"
            )
        return field_code(table, field, name)

    def _source(self, path: Path) -> Source:
        if path not in self._changed:
            self._changed[path] = Source(path.read_text(encoding="utf-8"))
        return self._changed[path]


def _model(table: str) -> type:
    """Return the model of a table."""
    from models.base import mappings  # noqa: PLC0415  # see _Writer.expect

    for mapper in mappings.mappers:
        if mapper.local_table.name == table:  # type: ignore[attr-defined]  # models map tables
            return mapper.class_
    raise CannotAddError(f"no model has the table {table}")


def _known(table: Table) -> set[str]:
    """Return the attributes of a table's model."""
    return set(dir(_model(table.name)))


def _indexes(table: Table) -> Iterator[Code]:
    """Return the indexes of a new table, those of its foreign keys included."""
    for field in table.fields:
        if _needs_index(table, field):
            yield index_code((field.name,), None, unique=False)
    for index in table.indexes:
        yield index_code(index.columns, index.name, unique=index.unique)


def _needs_index(table: Table, field: Field) -> bool:
    """Whether a column needs an index of its own.

    Deleting what a foreign key references reads the whole table without one.
    """
    led = field.unique or any(one.columns[:1] == (field.name,) for one in table.indexes)
    return not led and (field.index or field.reference is not None)
