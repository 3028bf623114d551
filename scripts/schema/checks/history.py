"""The rules for revision files, checked without running them."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from alembic.script import Script, ScriptDirectory

from schema.checks import merged_revisions
from schema.checks.result import CheckResult, Failure
from schema.revisions.history import body, functions, only_raises, parse
from schema.text import pluralize

NAME = re.compile(
    r"(?P<date>\d{4}_\d\d_\d\d_\d{4})_(?P<revision>[0-9a-z]+)_(?P<slug>[a-z0-9_]+)\.py"
)
NAME_FORM = "YYYY_MM_DD_HHMM_<revision>_<slug>.py"
WHY = re.compile(r"^WHY: (?P<why>.+)", re.MULTILINE)
TEMPLATE_WHY = "say what needs this change"
LEFTOVERS = ("Delete this list when you have followed it", "please adjust!")
IMPORTABLE = {"alembic", "sqlalchemy", *sys.stdlib_module_names}


def check(scripts: ScriptDirectory) -> CheckResult:
    """Check that the history is linear and every file follows the rules of migrations/README.md."""
    changed, not_compared = merged_revisions.check()
    note = f"; merged ones not checked: {not_compared}" if not_compared else ""
    try:
        revisions = list(scripts.walk_revisions())[::-1]
        heads = scripts.get_heads()
    except Exception as error:  # noqa: BLE001  # a revision file may raise whatever it likes
        what = str(error).rstrip(".")
        message = f"The revision files cannot be read: {type(error).__name__}: {what}."
        return CheckResult("revision files", [*changed, Failure(message, "Fix the file named.")])
    failures = [*_one_line(revisions, heads), *changed]
    paths = {revision.revision: Path(revision.path) for revision in revisions}
    for revision in revisions:
        failures += _file(revision, paths)
    return CheckResult(f"{pluralize(len(revisions), 'revision')}, one line{note}", failures)


def _one_line(revisions: list[Script], heads: list[str]) -> Iterator[Failure]:
    if not revisions:
        yield Failure(
            "There is no revision.", 'Write the first one: alembic revision -m "Create …".'
        )
    branches = [
        f"The history branches after {_name(revision)}: {', '.join(sorted(revision.nextrev))}."
        for revision in revisions
        if len(revision.nextrev) > 1
    ]
    if len(heads) > 1:
        yield Failure(
            f"The history has {len(heads)} heads: {', '.join(sorted(heads))}.",
            "Merge main into this branch and run `schema rebase`. If neither is merged: set the"
            " down_revision of the newer one to the older one, and rename its file so that it sorts"
            " last.",
            "\n".join(branches),
        )
    for revision in revisions:
        if isinstance(revision.down_revision, tuple):
            yield Failure(
                f"{_name(revision)} merges two lines of history.",
                "Delete it, and rebase one line onto the other: a line can be downgraded, a merge"
                " cannot.",
            )
    if len(heads) == 1:
        yield from (Failure(one, "Rebase one of them onto the other.") for one in branches)


def _file(revision: Script, paths: dict[str, Path]) -> Iterator[Failure]:
    path = paths[revision.revision]
    tree = parse(path)
    found = functions(tree)
    yield from _named(path, revision, paths)
    yield from _explained(path, ast.get_docstring(tree) or "")
    for module in _imports(tree):
        if module.partition(".")[0] not in IMPORTABLE:
            yield Failure(
                f"{path.name} imports {module}.",
                "Import only alembic, sqlalchemy and the standard library: if other code changes"
                " later, a merged revision changes with it.",
            )
    for name in ("upgrade", "downgrade"):
        if name not in found:
            yield Failure(f"{path.name} has no {name} function.", f"Add def {name}() -> None.")
    downgrade = found.get("downgrade")
    if not _empty(found.get("upgrade")) and _empty(downgrade):
        yield Failure(
            f"{path.name} has a downgrade that does nothing.",
            "Undo what upgrade does, or raise NotImplementedError and say why that is impossible.",
        )
    if downgrade and only_raises(downgrade) and not _gives_reason(downgrade):
        yield Failure(
            f"{path.name} has a downgrade that raises without a reason.",
            'Give it: raise NotImplementedError("… cannot be undone, because …").',
        )


def _named(path: Path, revision: Script, paths: dict[str, Path]) -> Iterator[Failure]:
    match = NAME.fullmatch(path.name)
    if match is None or match["revision"] != revision.revision:
        yield Failure(
            f"{path.name} is not named {NAME_FORM} with its revision, {revision.revision}.",
            'Rename it, or let Alembic name it: alembic revision -m "…".',
        )
        return
    parent = paths.get(str(revision.down_revision))
    if parent is not None and parent.name > path.name:
        yield Failure(
            f"{path.name} sorts before {parent.name}, which it follows.",
            "Rename it with a later time, so that the files sort in the order of the history.",
        )


def _explained(path: Path, docstring: str) -> Iterator[Failure]:
    summary = docstring.strip().partition("\n")[0]
    if not summary[:1].isupper():
        yield Failure(
            f"{path.name} does not begin with a sentence that says what it does.",
            'Begin its docstring with one in the imperative: """Create todo.',
        )
    leftover = next((one for one in LEFTOVERS if one in path.read_text(encoding="utf-8")), None)
    if leftover:
        yield Failure(
            f'{path.name} still contains generated text: "{leftover}".',
            "Review the generated code, correct it, and delete this text.",
        )
    why = WHY.search(docstring)
    if why is None or why["why"].startswith(TEMPLATE_WHY):
        yield Failure(
            f"{path.name} does not say why.",
            "Add a paragraph to its docstring that begins with WHY: and gives the reason for the"
            " change and the problem without it.",
        )


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def _empty(function: ast.FunctionDef | None) -> bool:
    return function is not None and not body(function)


def _gives_reason(function: ast.FunctionDef) -> bool:
    raised = body(function)[0]
    call = raised.exc if isinstance(raised, ast.Raise) else None
    if not isinstance(call, ast.Call) or not call.args:
        return False
    text = call.args[0]
    return not isinstance(text, ast.Constant) or bool(str(text.value).strip())


def _name(revision: Script) -> str:
    return Path(revision.path).name
