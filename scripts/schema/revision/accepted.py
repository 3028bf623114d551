"""Accept the linters' findings in what was written, where the way it was written answers them.

A comment above the statement says why, as migrations/README.md asks. A finding without an answer
stays: `scripts/lint` shows it, and a person decides.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import URL

from schema.postgres.connection import connect
from schema.project import scripts
from schema.revision.files import revisions
from schema.revisions.history import functions, parse
from schema.sql_lint import sqlfluff, squawk
from schema.sql_lint.cache import CleanTexts
from schema.sql_lint.capture import record
from schema.sql_lint.findings import Finding

_NOT_IN_THE_MODELS = "the models do not have it, or have another one"
_STYLE = re.compile("(LT|CP|RF|AL|ST|CV|AM|PRS)[0-9]*")
"""sqlfluff's rules of style; PRS is what it cannot parse."""
_UPGRADE = {
    "ban-drop-column": "its loss is declared, or the database computes it",
    "ban-drop-table": "its loss is declared above",
    "ban-drop-constraint": _NOT_IN_THE_MODELS,
    "ban-drop-default": _NOT_IN_THE_MODELS,
    "ban-drop-function": _NOT_IN_THE_MODELS,
    "ban-drop-index": _NOT_IN_THE_MODELS,
    "ban-drop-not-null": "the models allow NULL from now on",
    "ban-drop-policy": _NOT_IN_THE_MODELS,
    "ban-drop-trigger": _NOT_IN_THE_MODELS,
    "ban-drop-type": _NOT_IN_THE_MODELS,
    "ban-drop-view": _NOT_IN_THE_MODELS,
    "adding-field-with-default": "it was seen to write no row, or was asked for with --rewrite",
    "adding-not-nullable-field": "a validated CHECK proves it",
    "changing-column-type": "it was seen to write no row, or was asked for with --using",
}
_REWRITTEN = {
    "constraint-missing-not-valid": "its rows are written anew, as --rewrite asked",
    "disallowed-unique-constraint": "its rows are written anew, as --rewrite asked",
}
_DOWNGRADE = {
    "adding-field-with-default": "it brings back what the upgrade took away",
    "adding-not-nullable-field": "it brings back what the upgrade took away",
    "adding-foreign-key-constraint": "it brings back what the upgrade took away",
    "adding-serial-primary-key-field": "it brings back what the upgrade took away",
    "changing-column-type": "it brings back what the upgrade changed",
    "constraint-missing-not-valid": "it brings back what the upgrade took away",
    "disallowed-unique-constraint": "it brings back what the upgrade took away",
}


def accept_findings(copy: URL, paths: Sequence[Path], *, rewrites: bool) -> list[Finding]:
    """Lint the files, on a database at the revision before them; return what is not accepted.

    `rewrites` says whether a person has asked for rows to be written anew at once.
    """
    upgrade = _UPGRADE | (_REWRITTEN if rewrites else {})
    directory = scripts()
    new = {one.revision for one in revisions(directory, paths)}
    with connect(copy) as connection:
        recorded = record(connection, directory, new)
    clean = CleanTexts()
    found = [*squawk.check(recorded, clean), *sqlfluff.check(recorded, (), clean)]
    names = {path.name: path for path in paths}
    left = []
    comments: dict[tuple[Path, int], list[str]] = {}
    for finding in found:
        path = names[finding.file]
        reasons = _DOWNGRADE if finding.line in _lines_of_downgrade(path) else upgrade
        reason = reasons.get(finding.rule)
        if reason is None and _STYLE.fullmatch(finding.rule):
            reason = "PostgreSQL writes it so"
        if finding.rule == "renaming-object" and finding.sql.startswith("ALTER INDEX "):
            reason = "no query names an index"
        if reason is None:
            left.append(finding)
            continue
        comment = f"# lint: allow {finding.rule}: {reason}"
        lines = comments.setdefault((path, finding.line), [])
        if comment not in lines:
            lines.append(comment)
    for (path, line), added in sorted(comments.items(), reverse=True):
        _insert(path, line, added)
    return left


def _lines_of_downgrade(path: Path) -> range:
    function = functions(parse(path)).get("downgrade")
    return range(function.lineno, (function.end_lineno or 0) + 1) if function else range(0)


def _insert(path: Path, line: int, comments: Sequence[str]) -> None:
    """Insert comments above a line, as deep as it."""
    lines = path.read_text(encoding="utf-8").split("\n")  # a literal may hold other line breaks
    depth = len(lines[line - 1]) - len(lines[line - 1].lstrip())
    lines[line - 1 : line - 1] = [" " * depth + one for one in comments]
    path.write_text("\n".join(lines), encoding="utf-8")
