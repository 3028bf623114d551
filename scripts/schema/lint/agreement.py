"""What runs is what `--sql` shows, or the revision says why it cannot be: OFFLINE: <reason>."""

import re
from collections.abc import Iterator
from pathlib import Path

from alembic.script import ScriptDirectory
from pglast.parser import fingerprint, scan, split

from ..proof import counted
from ..statements import Direction, Statement, offline
from .findings import Finding

OFFLINE = re.compile(r"^OFFLINE: .+", re.MULTILINE)


def check(directory: ScriptDirectory, direction: Direction) -> Iterator[Finding]:
    """Compare what was executed with what `--sql` shows for it."""
    revision = direction.revision
    reason = OFFLINE.search(revision.module.__doc__ or "")
    file = Path(revision.path).name
    way = "upgrade" if direction.upgrade else "downgrade"
    try:
        shown = _shown(offline(directory, revision, upgrade=direction.upgrade))
    except Exception as error:  # noqa: BLE001  # a revision may raise whatever it likes
        if not reason:
            message = (
                f"the {way} cannot be rendered with --sql ({type(error).__name__}: {error}); make"
                " it so, or say why not in the docstring: OFFLINE: <reason>"
            )
            yield Finding(file, 1, "offline", message)
        return
    executed = direction.statements
    differ = next(
        (pair for pair in zip(executed, shown, strict=False) if not _same(pair[0], pair[1])),
        None,
    )
    if differ is None and len(executed) == len(shown):
        if reason and direction.upgrade:
            message = "--sql shows what runs: the docstring's OFFLINE: has no reason any more"
            yield Finding(file, 1, "offline", message)
    elif not reason:
        at = differ[0].line if differ else 1
        detail = (
            f"executed: {differ[0].sql.strip()}\n--sql:    {differ[1].strip()}" if differ else ""
        )
        message = (
            f"the {way} executes {counted(len(executed), 'statement')}, --sql shows {len(shown)}"
            if differ is None
            else f"the {way} executes another statement than --sql shows"
        )
        yield Finding(file, at, "offline", message, detail)


def _shown(script: str) -> list[str]:
    """Split a rendered script into the revision's own statements."""
    statements = split(script)
    ours = (" ".join(_tokens(statement)) for statement in statements)
    return [
        statement
        for statement, plain in zip(statements, ours, strict=True)
        if plain not in {"BEGIN", "COMMIT"}
        and not re.match(r"(CREATE TABLE|INSERT INTO|UPDATE|DELETE FROM) alembic_version\b", plain)
    ]


def _same(executed: Statement, shown: str) -> bool:
    """Whether both are one statement: token by token, or by shape where values were written in."""
    if executed.parametrised:
        return bool(fingerprint(executed.sql) == fingerprint(shown))
    return _tokens(executed.sql) == _tokens(shown)


def _tokens(sql: str) -> list[str]:
    """The statement's words, without blanks, comments and a closing semicolon."""
    text = sql.encode()
    words = [
        text[token.start : token.end + 1].decode()
        for token in scan(sql)
        if token.name not in {"SQL_COMMENT", "C_COMMENT"}
    ]
    return words[:-1] if words[-1:] == [";"] else words
