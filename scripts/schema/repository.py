"""Where things lie in the checkout that this package belongs to."""

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ROOT / "migrations" / "versions"
SNAPSHOT = ROOT / "migrations" / "schema.txt"
VERSION = ROOT / "models" / "version.py"
README = ROOT / "models" / "README.md"


def config() -> Config:
    """Alembic's configuration, quiet: commands here say themselves what they do."""
    return Config(ROOT / "alembic.ini")


def scripts() -> ScriptDirectory:
    """Alembic's view of the revision files; it reads each file once."""
    return ScriptDirectory.from_config(config())
