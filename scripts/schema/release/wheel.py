"""Build the wheel, and try it as an application does: installed alone, on a database at head."""

import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import URL

from schema.errors import CannotRunError
from schema.project import ROOT

_TRY = """
import os, sqlalchemy, todo_schema
with sqlalchemy.create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    todo_schema.assert_compatible(connection)
print(todo_schema.__version__)
"""


def require_tag(tag: str, version: str) -> str:
    """Return the released version, without the revision.

    Raises:
        CannotRunError: the tag is not that version's.

    """
    released = version.partition("+")[0]
    if tag != f"v{released}":
        raise CannotRunError(
            f"The tag {tag} is not the version in models/version.py, whose tag is v{released}."
        )
    return released


def notes(released: str) -> str:
    """Return what CHANGELOG.md says of a version.

    Raises:
        CannotRunError: it has no section of it.

    """
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(
        rf"^## {re.escape(released)}(?![\w.+-]).*?\n(.*?)(?=^## |\Z)",
        text,
        re.DOTALL | re.MULTILINE,
    )
    if found is None or not found[1].strip():
        raise CannotRunError(
            f"CHANGELOG.md has no section {released}; rename Unreleased before the tag is made."
        )
    return found[1].strip() + "\n"


def build(folder: Path) -> Path:
    """Build the wheel into a folder, and return it.

    Raises:
        CannotRunError: it cannot be built.

    """
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(folder)]
    _run(command, "The wheel cannot be built", cwd=ROOT / "models")
    (wheel,) = folder.glob("*.whl")
    return wheel


def assert_compatible(wheel: Path, database: URL, show: Callable[[str], None]) -> str:
    """Install the wheel in a new environment, and assert there that it suits the database.

    Returns the version that the installed wheel names.

    Raises:
        CannotRunError: it cannot be installed, or does not suit the database.

    """
    with tempfile.TemporaryDirectory(prefix="todo-schema-release-") as folder:
        show("a new environment")
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        install: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
        ]
        _run([*install, f"{wheel}", "psycopg[binary]"], "The wheel cannot be installed")
        show("assert_compatible")
        url = database.render_as_string(hide_password=False)
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return _run(
            [python, "-P", "-c", _TRY],
            "The installed wheel does not suit a database at head",
            env=own | {"DATABASE_URL": url},
        ).strip()


def _run(
    command: Sequence[str | Path],
    what: str,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason is given"]
        raise CannotRunError(f"{what}: {lines[-1]}")
    return done.stdout
