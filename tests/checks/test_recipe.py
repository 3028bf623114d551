"""The recipe for an owned table in migrations/README.md works as written."""

import re

from schema.postgres.scratch import Server
from schema.project import ROOT
from tests.support.repo_copy import Checkout, Launcher

MODEL = '''"""`note`: what a user wants to remember. Owned: each user has notes of their own."""

from sqlalchemy import Text
from sqlmodel import Field

from .ownership import Owned


class Note(Owned, table=True):
    """Something to remember."""

    __tablename__ = "note"
    __table_args__ = ({"comment": "Something to remember"},)

    body: str = Field(sa_type=Text, sa_column_kwargs={"comment": "What to remember"})
'''

REVISION = '''"""Keep notes.

WHY: the recipe is followed by a test.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "ffff00000000"
down_revision = "{head}"
branch_labels = None
depends_on = None

TIMESTAMPTZ = postgresql.TIMESTAMP(timezone=True)
NOW = sa.text("CURRENT_TIMESTAMP")


def upgrade() -> None:
{recipe}

def downgrade() -> None:
    op.drop_table("note")
'''


def test_an_owned_table_takes_one_line_and_the_recipe(
    run: Launcher, copy: Checkout, server: Server
) -> None:
    """With a model derived from Owned and the README's revision, every check passes."""
    readme = (ROOT / "migrations" / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## An owned table")[2]
    (recipe,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    body = "".join(f"    {line}\n" if line else "\n" for line in recipe.splitlines())
    text = REVISION.format(head=copy.head, recipe=body)
    (copy.versions / "2099_01_01_0000_ffff00000000_keep_notes.py").write_text(text)
    (copy.root / "models" / "note.py").write_text(MODEL)
    copy.edit("models/__init__.py", "from .session", "from .note import Note\nfrom .session")
    copy.edit("models/__init__.py", '    "NotIsolated', '    "Note",\n    "NotIsolated')
    url = server.maintenance.render_as_string(hide_password=False)
    written = run.run(copy.root, "snapshot", "--database-url", url)
    assert written.code == 0, written.everything
    assert "policy note_owner" in (copy.root / "migrations" / "schema.txt").read_text()
    assert "| `note` | own | own | own | own | no |" in (copy.root / "models/README.md").read_text()
    checked = run.run(copy.root, "check", "--no-lint", "--database-url", url)
    assert checked.code == 0, checked.everything
