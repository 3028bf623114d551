"""squawk: the effect of a statement on a database in use."""

import json
import os
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from migrations.postgres import OLDEST_VERSION
from schema.sql_lint.cache import CleanTexts, key
from schema.sql_lint.capture import Direction, Statement
from schema.sql_lint.findings import Finding, name, plain

# Rules that the deploy already satisfies.
EXCLUDES = {
    "prefer-robust-stmts": "an interrupted revision is rolled back",
    "require-lock-timeout": "the connection of every deploy sets it",
    "require-statement-timeout": "it would cancel index builds and validations",
}
# A downgrade drops what the upgrade created.
DOWN_EXCLUDES = (
    "ban-drop-column",
    "ban-drop-constraint",
    "ban-drop-default",
    "ban-drop-function",
    "ban-drop-index",
    "ban-drop-not-null",
    "ban-drop-policy",
    "ban-drop-table",
    "ban-drop-trigger",
    "ban-drop-type",
    "ban-drop-view",
)


def check(recorded: Iterable[Direction], clean: CleanTexts) -> Iterator[Finding]:
    """Lint together the consecutive statements inside a transaction, or outside of one."""
    for direction in recorded:
        for scripted, in_transaction in _runs(direction.statements):
            excludes = [*EXCLUDES, *(() if direction.upgrade else DOWN_EXCLUDES)]
            text, starts = _script(scripted)
            cache_key = key(
                f"squawk {version('squawk-cli')}", OLDEST_VERSION, excludes, in_transaction, text
            )
            if cache_key in clean:
                continue
            everything = _run_squawk(text, excludes, in_transaction=in_transaction)
            if not everything:
                clean.add(cache_key)
            for found in everything:
                index = max(i for i, start in enumerate(starts) if start <= found["line"])
                yield Finding(
                    name(Path(direction.revision.path)),
                    scripted[index].line,
                    found["rule_name"],
                    " ".join(filter(None, (found["message"], found["help"]))),
                    plain(scripted[index].sql),
                )


def _runs(statements: list[Statement]) -> Iterator[tuple[list[Statement], bool]]:
    """Split the statements where a transaction begins or ends."""
    for in_transaction, group in groupby(statements, key=lambda one: one.in_transaction):
        yield list(group), in_transaction


def _script(statements: list[Statement]) -> tuple[str, list[int]]:
    """Join statements to a script; return it and the first line (from 0) of each."""
    lines: list[str] = []
    starts = []
    for statement in statements:
        starts.append(len(lines))
        lines += f"{plain(statement.sql)};".splitlines()
    return "\n".join(lines) + "\n", starts


def _run_squawk(text: str, excludes: list[str], *, in_transaction: bool) -> list[dict[str, Any]]:
    done = subprocess.run(
        [
            Path(sysconfig.get_path("scripts")) / "squawk",
            f"--config={os.devnull}",  # ignore the developer's settings
            "--reporter=json",
            f"--pg-version={OLDEST_VERSION}.0",
            f"--exclude={','.join(excludes)}",
            f"--{'' if in_transaction else 'no-'}assume-in-transaction",
            "--stdin-filepath=revision.sql",
        ],
        # squawk would obey its own comments, which disable rules without a reason.
        input=text.replace("squawk-ignore", "squawk_ignore"),
        capture_output=True,
        text=True,
        check=False,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
