"""The history of revisions, read from its files without running them."""

import ast
from collections.abc import Iterator
from pathlib import Path

from alembic.script import Script, ScriptDirectory

from schema.errors import CannotRunError
from schema.postgres.connection import describe_error


def revisions_oldest_first(scripts: ScriptDirectory) -> list[Script]:
    """List the revisions, oldest first."""
    return list(scripts.walk_revisions())[::-1]


def is_linear(scripts: ScriptDirectory) -> bool:
    """Whether the files can be read and the history is linear."""
    try:
        revisions = list(scripts.walk_revisions())
        heads = scripts.get_heads()
    except Exception:  # noqa: BLE001  # a revision file may raise whatever it likes
        return False
    return len(heads) == 1 and not any(
        isinstance(revision.down_revision, tuple) or len(revision.nextrev) > 1
        for revision in revisions
    )


def single_head(scripts: ScriptDirectory) -> str | None:
    """Return the head; None if there is not exactly one or the files cannot be read."""
    try:
        heads = scripts.get_heads()
    except Exception:  # noqa: BLE001  # a revision file may raise whatever it likes
        return None
    return heads[0] if len(heads) == 1 else None


def read_heads(scripts: ScriptDirectory) -> tuple[str, ...]:
    """Return the heads.

    Raises:
        CannotRunError: the files cannot be read.

    """
    try:
        return tuple(scripts.get_heads())
    except Exception as error:  # a revision file may raise whatever it likes
        raise CannotRunError(
            f"The revision files cannot be read ({describe_error(error)}); run schema check."
        ) from error


def is_irreversible(revision: Script) -> bool:
    """Whether the revision cannot be reverted: its downgrade only raises."""
    return only_raises(functions(parse(Path(revision.path))).get("downgrade"))


def parse(path: Path) -> ast.Module:
    """Parse a revision file."""
    return ast.parse(path.read_text(encoding="utf-8"), path.name)


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """Return the functions of a module, by name."""
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def body(function: ast.FunctionDef | None) -> list[ast.stmt]:
    """Return the statements of a function, without docstring and `pass`."""
    return [
        statement
        for statement in (function.body if function else [])
        if not isinstance(statement, ast.Pass)
        and not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
    ]


def only_raises(function: ast.FunctionDef | None) -> bool:
    """Whether the first statement of a function is `raise`."""
    statements = body(function)
    return bool(statements) and isinstance(statements[0], ast.Raise)


def identifiers(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the revision of a file and its parents, without running it.

    Raises:
        SyntaxError, ValueError: the file is no Python, or does not name them as literals.

    """
    values = {name: ast.literal_eval(value) for name, value in _assigned(path)}
    above = values.get("down_revision")
    parents = (above,) if isinstance(above, str) else tuple(above or ())
    return str(values.get("revision", "")), parents


def place_of_parent(path: Path) -> tuple[int, int]:
    """Return where the value of `down_revision` begins and ends in the file, in bytes."""
    value = dict(_assigned(path))["down_revision"]
    lines = path.read_bytes().splitlines(keepends=True)

    def offset(line: int, column: int) -> int:
        return sum(map(len, lines[: line - 1])) + column

    end_line, end_column = value.end_lineno or 0, value.end_col_offset or 0
    return offset(value.lineno, value.col_offset), offset(end_line, end_column)


def _assigned(path: Path) -> Iterator[tuple[str, ast.expr]]:
    """Yield the values of a file's identifiers, annotated or not."""
    for node in parse(path).body:
        targets: list[ast.expr] = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and target.id in {"revision", "down_revision"}:
                value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
                if value is not None:
                    yield target.id, value
