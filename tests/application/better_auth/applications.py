"""Applications for tests: a folder with a configuration of Better Auth, and its packages."""

import shutil
import subprocess
import sys
from pathlib import Path

from schema.project import ROOT
from tests.application.better_auth.service import FOLDER
from tests.support.repo_copy import Checkout

CONFIG = """
import {{ betterAuth }} from "better-auth";
import {{ jwt, organization, twoFactor }} from "better-auth/plugins";

export const auth = betterAuth({{
  baseURL: "http://localhost:3000",
  secret: "only for tests, and 32 characters or more",
  emailAndPassword: {{ enabled: true }},
  user: {{ deleteUser: {{ enabled: true }} }},
  advanced: {{ database: {{ generateId: "uuid" }} }},
  plugins: [{plugins}],
}});
"""
"""A configuration as models/README.md shows it, with plugins."""


def application(folder: Path, config: str, name: str = "auth.mjs") -> Path:
    """Make an application in a new folder, and return the path of its configuration."""
    folder.mkdir()
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    path = folder / name
    path.write_text(config, encoding="utf-8")
    return path


def lint_models(copy: Checkout, *, types: bool = False) -> None:
    """Assert that ruff, and mypy if wanted, find nothing in the copy's models."""
    cache = copy.root / "mypy_cache"
    if types and (ROOT / ".venv" / "mypy_cache").exists():
        shutil.copytree(ROOT / ".venv" / "mypy_cache", cache)
    for command in (
        ("ruff", "check", "--no-cache", "models"),
        ("ruff", "format", "--no-cache", "--check", "models"),
        *([("mypy", "--cache-dir", str(cache), "-p", "models")] if types else []),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=copy.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
