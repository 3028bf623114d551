"""Compare the database's schema with the history at a revision: schema.txt and fingerprints.txt."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alembic.util import CommandError
from sqlalchemy import Connection

from migrations import snapshot
from migrations.snapshot import fingerprints
from migrations.snapshot.fingerprints import BASE, History

COMMITTED = Path(__file__).parents[1] / "schema.txt"
FINGERPRINTS = Path(__file__).parents[1] / "fingerprints.txt"

_CONFLICT = re.compile(r"^(<{7}|={7}|>{7})", re.MULTILINE)

_NAMED = 5
"""How many objects a sentence names."""


@dataclass(frozen=True)
class Schema:
    """A database's schema, compared with the history at one revision."""

    revision: str
    """The revision, or `base`."""
    nearest: str
    """The revision from which the fewest objects differ."""
    equals_nearest: bool
    objects: fingerprints.Comparison
    """The objects that differ from `revision`, and those that no revision has."""
    difference: str
    """At the head: the differing objects, '-' only in schema.txt, '+' only in the database."""

    @property
    def equals_another(self) -> bool:
        """Whether it is exactly the schema of another revision."""
        return self.equals_nearest and self.nearest != self.revision

    def __str__(self) -> str:
        """Say in one sentence, without a full stop, what differs."""
        parts = []
        if self.objects.changed:
            parts.append(differ(self.objects.changed))
        if self.objects.left:
            parts.append(f"{named(self.objects.left)} should not be there")
        if self.nearest != self.revision:
            how = "it is exactly" if self.equals_nearest else "it is nearer to"
            parts.append(f"{how} the schema at {self.nearest}")
        return "; ".join(parts)


def committed_schema() -> str:
    """The text of schema.txt: the schema at the head; '' if there is no such file."""
    return COMMITTED.read_text(encoding="utf-8") if COMMITTED.exists() else ""


def committed_history() -> History:
    """The fingerprints of the history; {} if there is no such file.

    Raises:
        CommandError: the file cannot be read.

    """
    if not FINGERPRINTS.exists():
        return {}
    try:
        return fingerprints.parse(FINGERPRINTS.read_text(encoding="utf-8"))
    except ValueError:  # UnicodeDecodeError too
        raise CommandError(
            "migrations/fingerprints.txt cannot be read; restore it, or write it anew with `schema"
            " snapshot`."
        ) from None


def require_files() -> None:
    """Make sure that the files are there with which a deploy verifies itself.

    Raises:
        CommandError: one is missing or damaged.

    """
    for path in (COMMITTED, FINGERPRINTS):
        if not path.exists():
            raise CommandError(
                f"migrations/{path.name} is missing, so the deploy cannot be verified; ship it with"
                " the deploy, or write it with `schema snapshot`."
            )
    committed_history()
    schema = committed_schema()
    if not re.match(r"revision \w+\n", schema) or _CONFLICT.search(schema):
        raise CommandError(
            "migrations/schema.txt cannot be read; restore it, or write it anew with `schema"
            " snapshot`."
        )


def compare(connection: Connection, revision: str | None) -> Schema | None:
    """Compare the database with the history at a revision; None if the files do not have it.

    Raises:
        DBAPIError, psycopg.Error: the schema cannot be read, for example because of a lock.

    """
    history = committed_history()
    at = revision or BASE
    if at not in history:
        return None
    facts = snapshot.read(connection, version_table=True)
    found = fingerprints.fingerprint(facts)
    objects = fingerprints.compare(history, at, found)
    nearest = fingerprints.nearest(history, found, at)
    committed = committed_schema()
    difference = ""
    if objects.differing and snapshot.revision(committed) == at:
        ours = tuple(one for one in facts if fingerprints.object_name(one) not in objects.foreign)
        difference = snapshot.text_difference(committed, snapshot.layout(ours, at))
    equals = not fingerprints.compare(history, nearest, found).differing
    return Schema(at, nearest, equals, objects, difference)


def named(objects: Sequence[str]) -> str:
    """Name some objects."""
    more = f" and {len(objects) - _NAMED} more" if len(objects) > _NAMED else ""
    return ", ".join(objects[:_NAMED]) + more


def differ(objects: Sequence[str]) -> str:
    """Say that some objects differ."""
    return f"{named(objects)} {'differs' if len(objects) == 1 else 'differ'}"
