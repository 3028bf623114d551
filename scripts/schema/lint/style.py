"""sqlfluff: how SQL is written."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sqlfluff.core import FluffConfig, Linter

from ..repository import ROOT
from ..statements import Direction
from .findings import Finding, name, plain

CLEAN = ROOT / ".venv" / "lint-clean"
GENERATED_EXCLUDES = ("layout", "capitalisation")


def check(recorded: Iterable[Direction], files: Iterable[Path]) -> Iterator[Finding]:
    """Judge each statement by itself, and each file as a whole.

    What was clean and has not changed still is: that is remembered in .venv, for parsing is slow.
    """
    known = CLEAN.read_text(encoding="utf-8").split() if CLEAN.exists() else []
    clean = set()
    linters: dict[bool, Linter] = {}
    for piece in (*_pieces(recorded), *_files(files)):
        key = piece.key()
        if key in known:
            clean.add(key)
            continue
        if piece.written not in linters:
            linters[piece.written] = _linter(() if piece.written else GENERATED_EXCLUDES)
        found = linters[piece.written].lint_string(piece.text).get_violations()
        if not found:
            clean.add(key)
        for one in found:
            line = piece.line or one.line_no
            message = f"{one.desc()} ({one.rule_name()})"
            yield Finding(piece.file, line, one.rule_code(), message, piece.shown)
    with suppress(OSError):  # a read-only checkout only loses the time
        CLEAN.write_text("\n".join(sorted(clean)), encoding="utf-8")


@dataclass(frozen=True)
class _Piece:
    """A text for sqlfluff, and where its findings belong."""

    text: str
    file: str
    line: int
    """Where the revision executes it; 0 when the finding's own line counts."""
    written: bool
    shown: str

    def key(self) -> str:
        """Name the text, and everything else that the result depends on."""
        settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        everything = f"{version('sqlfluff')}\0{settings}\0{self.written}\0{self.text}"
        return hashlib.sha256(everything.encode()).hexdigest()


def _pieces(recorded: Iterable[Direction]) -> Iterator[_Piece]:
    for direction in recorded:
        file = name(Path(direction.revision.path))
        for one in direction.statements:
            sql = plain(one.sql)
            yield _Piece(f"{sql};\n", file, one.line, one.written, sql)


def _files(files: Iterable[Path]) -> Iterator[_Piece]:
    for path in files:
        yield _Piece(path.read_text(encoding="utf-8"), name(path), 0, written=True, shown="")


def _linter(excludes: Iterable[str]) -> Linter:
    always = FluffConfig.from_path(str(ROOT)).get("exclude_rules")
    excluded = ",".join([*always, *excludes])
    return Linter(FluffConfig.from_path(str(ROOT), overrides={"exclude_rules": excluded}))
