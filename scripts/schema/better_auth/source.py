"""Add to the text of a Python module, without changing what is there; ruff arranges the result."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from schema.better_auth.fields import Imports
from schema.errors import CannotRunError


class CannotAddError(Exception):
    """The module is not written as the models are; the message is a clause that says what."""


class Source:
    """The text of a module, and what is to be inserted into it."""

    def __init__(self, text: str) -> None:
        """Read the module."""
        self._lines = text.splitlines(keepends=True)
        self._module = ast.parse(text)
        self._insertions: list[tuple[int, int, str]] = []
        """Line (from 1), column in bytes, and text."""

    def text(self) -> str:
        """Return the text with the insertions."""
        lines = [line.encode() for line in self._lines]
        # From the end to the start, so that positions stay true, and of several at one place the
        # last first, which so stands behind the others.
        ordered = list(reversed(self._insertions))
        ordered.sort(key=lambda one: one[:2], reverse=True)
        for line, column, text in ordered:
            if line > len(lines):
                lines.append(b"")
            old = lines[line - 1]
            lines[line - 1] = old[:column] + text.encode() + old[column:]
        return b"".join(lines).decode()

    def state(self) -> int:
        """Return what `restore` takes to undo later insertions."""
        return len(self._insertions)

    def restore(self, state: int) -> None:
        """Undo the insertions since that state."""
        del self._insertions[state:]

    def add_imports(self, wanted: Imports) -> None:
        """Import what the module does not import yet, in no order."""
        present = set(self._imported())
        statements = [
            node for node in self._module.body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        if not statements:
            raise CannotAddError("it imports nothing")
        for module, name in sorted(wanted - present):
            self._insertions.append((statements[0].lineno, 0, f"from {module} import {name}\n"))

    def add_field(self, class_name: str, code: str) -> None:
        """Add a field behind the last one of a class."""
        fields = [
            node
            for node in self._class(class_name).body
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func) == "Field"
        ]
        if not fields:
            raise CannotAddError(f"class {class_name} has no field")
        self._insertions.append(((fields[-1].end_lineno or 0) + 1, 0, f"{code}\n"))

    def add_table_argument(self, class_name: str, code: str) -> None:
        """Add an index or a constraint to `__table_args__`, before the options at its end."""
        for node in self._class(class_name).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__table_args__":
                self._add_argument(node.value, code)
                return
        raise CannotAddError(f"class {class_name} has no __table_args__")

    def _add_argument(self, value: ast.expr, code: str) -> None:
        match value:
            case ast.Tuple(elts=[*_, ast.Dict() as options]):
                self._insertions.append((options.lineno, options.col_offset, f"{code}, "))
            case _:
                raise CannotAddError("its __table_args__ are no tuple that ends with options")

    def add_to_all(self, name: str) -> None:
        """Add a name to `__all__`, at its start."""
        for node in self._module.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                start = node.value
                self._insertions.append(
                    (start.lineno, start.col_offset + 1, f"{json.dumps(name)}, ")
                )
                return
        raise CannotAddError("it has no __all__")

    def _class(self, name: str) -> ast.ClassDef:
        for node in self._module.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return node
        raise CannotAddError(f"it has no class {name}")

    def _imported(self) -> Iterator[tuple[str, str]]:
        for node in self._module.body:
            if isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                yield from ((module, one.asname or one.name) for one in node.names)


def arrange(text: str, path: Path) -> str:
    """Sort the imports and `__all__`, and format, as `scripts/lint --fix` does.

    Raises:
        CannotRunError: ruff fails.

    """
    for command in (
        ("check", "--fix-only", "--select", "I001,RUF022"),
        ("format",),
    ):
        text = _ruff(text, path, command)
    return text


def _ruff(text: str, path: Path, command: Iterable[str]) -> str:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ruff", *command),
            *("--quiet", "--no-cache", "--stdin-filename", str(path), "-"),
        ],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=path.parent,
    )
    if done.returncode != 0:
        raise CannotRunError(
            f"ruff does not format {path.name}: {done.stderr.strip().partition('\n')[0]}."
        )
    return done.stdout
