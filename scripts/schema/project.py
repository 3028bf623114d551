"""Paths in this checkout, and Alembic's configuration."""

import os
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from schema.errors import CannotRunError

ROOT = Path(__file__).resolve().parents[2]
REVISIONS_DIR = ROOT / "migrations" / "versions"
SNAPSHOT = ROOT / "migrations" / "schema.txt"
FINGERPRINTS = ROOT / "migrations" / "fingerprints.txt"
VERSION = ROOT / "models" / "version.py"
MODELS_README = ROOT / "models" / "README.md"


def own_environment() -> dict[str, str]:
    """Return the environment of a process that runs this checkout's code.

    Otherwise it would run the code of its working folder, or of an installed package.
    """
    path = os.pathsep.join(map(str, (ROOT / "scripts", ROOT, os.environ.get("PYTHONPATH", ""))))
    return os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)}


def config() -> Config:
    """Return Alembic's configuration, without its own logging.

    Raises:
        CannotRunError: the checkout's path contains a % sign.

    """
    if "%" in str(ROOT):
        raise CannotRunError(
            f"Alembic cannot work in a folder whose path has a % sign ({ROOT}); move the checkout."
        )
    return Config(ROOT / "alembic.ini")


def scripts() -> ScriptDirectory:
    """Return Alembic's script directory; it reads each revision file once."""
    return ScriptDirectory.from_config(config())
