"""sqlfluff: the style of the SQL."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlfluff.core import FluffConfig, Linter, SQLBaseError

from schema.project import ROOT
from schema.sql_lint.cache import CleanTexts, key
from schema.sql_lint.capture import Direction
from schema.sql_lint.findings import Finding, name, plain

GENERATED_EXCLUDES = ("layout", "capitalisation")


def check(
    recorded: Iterable[Direction], files: Iterable[Path], clean: CleanTexts
) -> Iterator[Finding]:
    """Lint each statement by itself, and each file as a whole."""
    linters: dict[bool, Linter] = {}
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    configuration = f"sqlfluff {version('sqlfluff')}\0{settings}\0{GENERATED_EXCLUDES}"
    for piece in (*_pieces(recorded), *_files(files)):
        cache_key = key(configuration, piece.hand_written, piece.text)
        if cache_key in clean:
            continue
        if piece.hand_written not in linters:
            linters[piece.hand_written] = _linter(() if piece.hand_written else GENERATED_EXCLUDES)
        found = _lint(linters[piece.hand_written], piece.text)
        if not found:
            clean.add(cache_key)
        for one in found:
            line = piece.line or one.line_no
            message = f"{one.desc()} ({one.rule_name()})"
            yield Finding(piece.file, line, one.rule_code(), message, piece.shown)


@dataclass(frozen=True)
class _Piece:
    """A text for sqlfluff, and the file and line of its findings."""

    text: str
    file: str
    line: int
    """The line of the revision file; 0 to use the line of the finding."""
    hand_written: bool
    shown: str


def _pieces(recorded: Iterable[Direction]) -> Iterator[_Piece]:
    for direction in recorded:
        file = name(Path(direction.revision.path))
        for one in direction.statements:
            sql = plain(one.sql)
            yield _Piece(f"{sql};\n", file, one.line, one.hand_written, sql)


def _files(files: Iterable[Path]) -> Iterator[_Piece]:
    for path in files:
        yield _Piece(path.read_text(encoding="utf-8"), name(path), 0, hand_written=True, shown="")


def _linter(excludes: Iterable[str]) -> Linter:
    always = _settings().get("exclude_rules")
    return Linter(_settings(exclude_rules=",".join([*always, *excludes])))


def _settings(**overrides: Any) -> FluffConfig:  # noqa: ANN401  # what sqlfluff takes
    """Return the checkout's settings, without those in the home folder."""
    return FluffConfig.from_path(
        str(ROOT),
        extra_config_path=str(ROOT / "pyproject.toml"),
        ignore_local_config=True,
        overrides=overrides,
    )


def _lint(linter: Linter, text: str) -> list[SQLBaseError]:
    """Lint the text without `lint_string`, which obeys comments that disable rules."""
    rendered = linter.render_string(text, "", linter.config, "utf-8")
    parsed = linter.parse_rendered(rendered)
    return linter.lint_parsed(parsed, linter.get_rulepack()).get_violations()


def laid_out(statement: str, width: int) -> str:
    """Return a statement in the layout that `check` asks for, without a semicolon.

    Its lines are no longer than `width` characters, where they can be broken.
    """
    logging.getLogger("sqlfluff").setLevel(logging.CRITICAL)  # `check` finds what is left
    linted = Linter(_settings(max_line_length=width)).lint_string(
        f"{plain(statement)};\n", fix=True
    )
    fixed, _ = linted.fix_string()
    return plain(fixed)
