"""The ignore list in alembic.ini: objects that are not the history's, and that reports leave out.

    [schema]
    ignore =
        schema billing
        extension postgis
        table spatial_*

A line names an object as a report does, with * and ? for more than one. A schema stands for all
that is in it. What the history owns is never ignored, and neither are privileges: a line cannot
hide who may read our tables.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from alembic.config import Config

_NEVER = ("database: grant to ", "default privileges of ")


def patterns(config: Config) -> tuple[str, ...]:
    """Return the lines of the list."""
    text = config.get_section("schema", {}).get("ignore", "")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def not_ignored(foreign: Iterable[str], ignored: Sequence[str]) -> list[str]:
    """Return the objects that a report names."""
    return [name for name in foreign if not _is_ignored(name, ignored)]


def _is_ignored(name: str, ignored: Sequence[str]) -> bool:
    if name.startswith(_NEVER):
        return False
    return any(fnmatchcase(name, one) or _is_in_schema(name, one) for one in ignored)


def _is_in_schema(name: str, pattern: str) -> bool:
    """Whether a pattern names the schema that an object is in."""
    kind, _, schema = pattern.partition(" ")
    return kind == "schema" and any(
        fnmatchcase(word, f"{schema}.*") for word in name.split(" ")[1:]
    )
