"""Findings of the linters, and the comments that accept them."""

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from schema.project import ROOT

ALLOWANCE = re.compile(r"(?:#|--) lint: allow (?P<rule>[\w-]+): *(?P<reason>.*)")


@dataclass(frozen=True)
class Finding:
    """A finding of a linter or of the comparison with `--sql`."""

    file: str
    line: int
    rule: str
    message: str
    sql: str = ""


@dataclass(frozen=True)
class Allowance:
    """A comment that accepts the findings of one rule from line `first` to `last`."""

    file: str
    line: int
    first: int
    last: int
    rule: str
    reason: str

    def accepts(self, finding: Finding) -> bool:
        """Whether the comment accepts the finding."""
        return (
            finding.file == self.file
            and finding.rule == self.rule
            and self.first <= finding.line <= self.last
        )


def name(path: Path) -> str:
    """Return the name of a revision file, or the path of another file."""
    return path.name if path.suffix == ".py" else path.relative_to(ROOT).as_posix()


def plain(sql: str) -> str:
    """Remove the indentation and the final semicolon of a statement."""
    return textwrap.dedent(sql).strip().rstrip("; \n")


def allowances(path: Path) -> Iterator[Allowance]:
    """Find the comments that accept findings, and the lines that they cover."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, text in enumerate(lines, start=1):
        match = ALLOWANCE.search(text)
        if match:
            below = next(
                (n for n in range(number, len(lines) + 1) if not _is_comment(lines[n - 1])), number
            )
            last = _end_of_statement(path, below) if path.suffix == ".py" else below
            yield Allowance(name(path), number, below, last, match["rule"], match["reason"].strip())


def _is_comment(line: str) -> bool:
    return line.strip().startswith(("#", "--"))


def _end_of_statement(path: Path, line: int) -> int:
    """Return the last line of the smallest Python statement that begins on that line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ends = [
        node.end_lineno or node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno == line
    ]
    return min(ends, default=line)


def apply_allowances(findings: list[Finding], files: Iterable[Path]) -> list[Finding]:
    """Remove accepted findings; add a finding for each unused comment or missing reason."""
    accepting = [one for file in files for one in allowances(file)]
    open_findings = [
        one for one in findings if not any(allowance.accepts(one) for allowance in accepting)
    ]
    for allowance in accepting:
        if not allowance.reason:
            message = f"the comment that allows {allowance.rule} gives no reason"
            open_findings.append(Finding(allowance.file, allowance.line, "unreasoned", message))
        if not any(allowance.accepts(one) for one in findings):
            message = f"the comment allows {allowance.rule}, but accepts no finding: delete it"
            open_findings.append(Finding(allowance.file, allowance.line, "unused", message))
    return sorted(open_findings, key=lambda one: (one.file, one.line, one.rule))
