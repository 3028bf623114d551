"""The recipes of migrations/README.md work as written, through the checks that an author meets."""

import json
import re

import pytest

from schema.postgres.scratch import Server
from schema.project import ROOT
from tests.support.load import follow, recipes
from tests.support.repo_copy import Checkout, Launcher


def test_an_owned_table(run: Launcher, copy: Checkout, server: Server) -> None:
    """With the README's model and revision, which nothing is added to, every check passes."""
    readme = (ROOT / "migrations" / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## An owned table")[2]
    model, revision = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    revision = revision.replace('"HEAD"', f'"{copy.head}"')
    (copy.versions / "2099_01_01_0000_0123456789ab_create_note.py").write_text(revision)
    (copy.root / "models" / "note.py").write_text(model)
    copy.edit("models/__init__.py", "from .session", "from .note import Note\nfrom .session")
    copy.edit("models/__init__.py", '    "NotIsolated', '    "Note",\n    "NotIsolated')
    url = server.maintenance.render_as_string(hide_password=False)
    written = run.run(copy.root, "snapshot", "--database-url", url)
    assert written.code == 0, written.everything
    assert "policy note_owner" in (copy.root / "migrations" / "schema.txt").read_text()
    assert "| `note` | own | own | own | own | no |" in (copy.root / "models/README.md").read_text()
    checked = run.run(copy.root, "check", "--database-url", url)
    assert checked.code == 0, checked.everything


@pytest.mark.slow
def test_changing_a_table_that_is_in_use(run: Launcher, copy: Checkout, server: Server) -> None:
    """One after the other, the good revisions build, revert, keep what rows hold and pass the lint.

    The models do not follow them here, so the other checks do not matter.
    """
    for recipe in recipes().values():
        for code in recipe.good:
            follow(copy, code)
    url = server.maintenance.render_as_string(hide_password=False)
    result = run.run(copy.root, "check", "--json", "--database-url", url)
    checks = {check["name"]: check for check in json.loads(result.out)["checks"]}
    for name in ("history", "upgrade head", "round trip", "SQL lint"):
        failures = checks[name]["failures"]
        assert checks[name]["passed"], "\n".join(
            f"{one['message']} → {one['remedy']}" for one in failures
        )
