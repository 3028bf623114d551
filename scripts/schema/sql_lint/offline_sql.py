"""`--sql` shows what runs, or the docstring gives the reason: `OFFLINE: <reason>`."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from alembic.script import Script, ScriptDirectory
from pglast import ast, parse_sql
from pglast.parser import fingerprint, scan, split
from pglast.stream import RawStream
from pglast.visitors import Visitor

from schema.sql_lint.capture import Direction, offline
from schema.sql_lint.findings import Finding
from schema.text import pluralize

RULE = "offline"
LEADING_COMMENTS = re.compile(r"\A(?:--[^\n]*\n|\s)+")
OFFLINE = re.compile(r"^OFFLINE: .+", re.MULTILINE)


def check(directory: ScriptDirectory, recorded: Iterable[Direction]) -> Iterator[Finding]:
    """Compare the executed statements of each revision with the output of `--sql`."""
    differing: dict[Script, list[Finding]] = {}
    for direction in recorded:
        differing.setdefault(direction.revision, []).extend(_compare(directory, direction))
    for revision, found in differing.items():
        if not OFFLINE.search(revision.module.__doc__ or ""):
            yield from found
        elif not found:
            message = "--sql shows exactly what runs: delete OFFLINE: from the docstring"
            yield Finding(Path(revision.path).name, 1, RULE, message)


def _compare(directory: ScriptDirectory, direction: Direction) -> Iterator[Finding]:
    """Report the first difference between the executed statements and `--sql`."""
    file = Path(direction.revision.path).name
    way = "upgrade" if direction.upgrade else "downgrade"
    try:
        shown = _shown(offline(directory, direction.revision, upgrade=direction.upgrade))
        executed = [(one, sql) for one in direction.statements for sql in _split(one.sql)]
    except Exception as error:  # noqa: BLE001  # a revision may raise whatever it likes
        message = (
            f"the {way} cannot be rendered with --sql ({type(error).__name__}: {error}); fix that,"
            " or give the reason in the docstring: OFFLINE: <reason>"
        )
        yield Finding(file, 1, RULE, message)
        return
    for (statement, sql), other in zip(executed, shown, strict=False):
        if not _same(sql, other, parametrised=statement.parametrised):
            message = f"the {way} executes a different statement than --sql shows"
            detail = f"executed: {sql.strip()}\n--sql:    {other.strip()}"
            yield Finding(file, statement.line, RULE, message, detail)
            return
    if len(executed) != len(shown):
        number = pluralize(len(executed), "statement")
        message = f"the {way} executes {number}, --sql shows {len(shown)}"
        surplus = executed[len(shown) :]
        line = surplus[0][0].line if surplus else 1
        more = [sql.strip() for _, sql in surplus] or [s.strip() for s in shown[len(executed) :]]
        yield Finding(file, line, RULE, message, more[0])


def _split(sql: str) -> tuple[str, ...]:
    """Split a script into statements, without the comments before each."""
    return tuple(LEADING_COMMENTS.sub("", str(part)) for part in split(sql))


def _shown(script: str) -> list[str]:
    """Split the output of `--sql` into the revision's own statements."""
    statements = _split(script)
    normalized = (" ".join(_tokens(statement)) for statement in statements)
    return [
        statement
        for statement, plain in zip(statements, normalized, strict=True)
        if plain not in {"BEGIN", "COMMIT"}
        and not re.match(r"(CREATE TABLE|INSERT INTO|UPDATE|DELETE FROM) alembic_version\b", plain)
    ]


def _same(executed: str, shown: str, *, parametrised: bool) -> bool:
    """Whether the tokens are equal; for a statement with parameters, whether the shapes are."""
    if parametrised:
        return _shape(executed) == _shape(shown)
    return _tokens(executed) == _tokens(shown)


def _shape(sql: str) -> str:
    """Return a fingerprint without values, and without their casts, which only the driver adds."""
    shown = RawStream()  # type: ignore[no-untyped-call]  # pglast leaves it so
    return str(fingerprint(shown(_Uncast()(parse_sql(sql)))))


class _Uncast(Visitor):
    """Removes the casts of constants."""

    def visit_TypeCast(self, _ancestors: object, node: ast.TypeCast) -> ast.Node | None:  # noqa: N802  # pglast looks for the name of the node
        inner = node.arg
        while isinstance(inner, ast.TypeCast):
            inner = inner.arg
        return inner if isinstance(inner, ast.A_Const) else None


def _tokens(sql: str) -> list[str]:
    """Return the tokens of a statement, without comments and the final semicolon."""
    text = sql.encode()
    words = [
        text[token.start : token.end + 1].decode()
        for token in scan(sql)
        if token.name not in {"SQL_COMMENT", "C_COMMENT"}
    ]
    return words[:-1] if words[-1:] == [";"] else words
