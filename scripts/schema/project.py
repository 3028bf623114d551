"""Where things lie in the checkout that this package belongs to."""

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from schema.errors import CannotRunError

ROOT = Path(__file__).resolve().parents[2]
REVISIONS_DIR = ROOT / "migrations" / "versions"
SNAPSHOT = ROOT / "migrations" / "schema.txt"
VERSION = ROOT / "models" / "version.py"
MODELS_README = ROOT / "models" / "README.md"


def config() -> Config:
    """Alembic's configuration, quiet: commands here say themselves what they do.

    Raises:
        CannotRunError: the checkout's path cannot be written into alembic.ini's settings.

    """
    if "%" in str(ROOT):
        raise CannotRunError(
            f"Alembic cannot work in a folder whose path has a % sign ({ROOT}); move the checkout."
        )
    return Config(ROOT / "alembic.ini")


def scripts() -> ScriptDirectory:
    """Alembic's view of the revision files; it reads each file once."""
    return ScriptDirectory.from_config(config())
