"""Small histories of a test's own: revisions that execute given SQL, behind a base."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alembic.script import ScriptDirectory

from schema.project import ROOT
from schema.review.pull_request import PullRequest

_REVISION = '''"""{title}."""

import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = {below!r}
branch_labels = None
depends_on = None
{declared}

def upgrade() -> None:
{up}


def downgrade() -> None:
{down}
'''

IRREVERSIBLE = 'raise NotImplementedError("a test says so")'


@dataclass(frozen=True)
class Revision:
    """A revision: the Python lines of its upgrade and of its downgrade, and what it declares."""

    up: Sequence[str]
    down: Sequence[str] = ("pass",)
    declared: str = ""
    title: str = "A test's revision"


def executing(*statements: str, alone: bool = False) -> list[str]:
    """Return lines that execute the statements, in an autocommit block if `alone`."""
    lines = [f"op.get_bind().exec_driver_sql({sql.replace('%', '%%')!r})" for sql in statements]
    if not alone:
        return lines or ["pass"]
    return ["with op.get_context().autocommit_block():", *(f"    {line}" for line in lines)]


def changing(*up: str, down: Sequence[str] = (), declared: str = "") -> Revision:
    """Return a revision that executes SQL in its transaction, and SQL to revert it."""
    return Revision(executing(*up), executing(*down), declared)


def write_history(folder: Path, revisions: Sequence[Revision]) -> PullRequest:
    """Write the revisions into an empty folder, and read them as new ones without a base."""
    (folder / "env.py").write_text((ROOT / "migrations" / "env.py").read_text())
    (folder / "versions").mkdir()
    for number, one in enumerate(revisions, start=1):
        (folder / "versions" / f"{number:04}.py").write_text(
            _REVISION.format(
                title=one.title,
                number=f"{number:012}",
                below=f"{number - 1:012}" if number > 1 else None,
                declared=one.declared,
                up="\n".join(f"    {line}" for line in one.up),
                down="\n".join(f"    {line}" for line in one.down),
            ),
            encoding="utf-8",
        )
    directory = ScriptDirectory(str(folder))
    return PullRequest("0" * 40, directory, (), list(directory.walk_revisions())[::-1])
