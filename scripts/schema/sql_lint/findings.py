"""What the linters found, and the comments that accept some of it, each with its reason."""

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
    """Something that a linter, or the comparison, found."""

    file: str
    line: int
    rule: str
    message: str
    sql: str = ""


@dataclass(frozen=True)
class Allowance:
    """A comment that accepts the findings of one rule in some lines of a file."""

    file: str
    line: int
    first: int
    last: int
    rule: str
    reason: str

    def accepts(self, finding: Finding) -> bool:
        """Whether the finding is what the comment stands beside."""
        return (
            finding.file == self.file
            and finding.rule == self.rule
            and self.first <= finding.line <= self.last
        )


def name(path: Path) -> str:
    """How findings name a file: a revision by its own name, another file by its path."""
    return path.name if path.suffix == ".py" else path.relative_to(ROOT).as_posix()


def plain(sql: str) -> str:
    """The statement without the indentation that it has in the revision's file, and without `;`."""
    return textwrap.dedent(sql).strip().rstrip("; \n")


def allowances(path: Path) -> Iterator[Allowance]:
    """Find the comments that accept findings, and the lines that each of them speaks for."""
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
    """The last line of the smallest Python statement that begins on that line, or holds it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ends = [
        node.end_lineno or node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno == line
    ]
    return min(ends, default=line)


def apply_allowances(findings: list[Finding], files: Iterable[Path]) -> list[Finding]:
    """Take away what is accepted; add what accepts nothing, or gives no reason."""
    accepting = [one for file in files for one in allowances(file)]
    open_findings = [
        one for one in findings if not any(allowance.accepts(one) for allowance in accepting)
    ]
    for allowance in accepting:
        if not allowance.reason:
            message = f"the comment that allows {allowance.rule} gives no reason"
            open_findings.append(Finding(allowance.file, allowance.line, "unreasoned", message))
        if not any(allowance.accepts(one) for one in findings):
            message = f"the comment that allows {allowance.rule} allows nothing: delete it"
            open_findings.append(Finding(allowance.file, allowance.line, "unused", message))
    return sorted(open_findings, key=lambda one: (one.file, one.line, one.rule))
