"""The history of revisions, read from its files without running them."""

import ast
from pathlib import Path

from alembic.script import Script, ScriptDirectory


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
    """Return the revision of a file and its parents, without running it."""
    values = {
        target.id: ast.literal_eval(node.value)
        for node in parse(path).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in {"revision", "down_revision"}
    }
    above = values.get("down_revision")
    parents = (above,) if isinstance(above, str) else tuple(above or ())
    return str(values.get("revision", "")), parents
