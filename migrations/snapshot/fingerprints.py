"""Fingerprints: a hash of each object of the history at each revision, in fingerprints.txt.

schema.txt holds the schema at the head only. With the fingerprints a deploy can tell, without a
server to compare with, whether a database equals its revision, or which other revision it equals,
and which objects are not the history's at all.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from migrations.snapshot.fact import Fact, Snapshot
from migrations.snapshot.layout import one_line

BASE = "base"
"""Alembic's name for the state before the first revision."""

_SHARED = ("database", "extension plpgsql")
"""Objects that hold facts of several owners: there, each fact is compared on its own."""

_HEADER = """\
# Written by `schema snapshot`: what each revision adds or changes, with a hash of its definition,
# and what it removes (-). A deploy, `schema doctor` and `schema adopt` compare databases with it.
"""
_REMOVED = "-"
_VERSION_TABLE = "table alembic_version"
_LENGTH = 16
"""Hexadecimal digits of a hash."""

type Fingerprints = Mapping[str, str]
"""The hash of each object; in an object that is shared, of each fact."""

type History = Mapping[str, Fingerprints]
"""The fingerprints at BASE and at each revision, oldest first."""


@dataclass(frozen=True)
class Comparison:
    """A database compared with the history at one revision; each field names objects."""

    changed: tuple[str, ...]
    """They differ, or the database does not have them."""
    left: tuple[str, ...]
    """Other revisions have them, this one does not."""
    foreign: tuple[str, ...]
    """No revision has them."""

    @property
    def differing(self) -> tuple[str, ...]:
        """The objects of the history that are not as they are at the revision."""
        return self.changed + self.left


def is_shared(heading: str) -> bool:
    """Whether an object holds facts of several owners."""
    return heading in _SHARED


def object_name(fact: Fact) -> str:
    """Return the object that a fact belongs to; in a shared object, the fact itself."""
    if is_shared(fact.object):
        return one_line(f"{fact.object}: {fact.part}")
    return one_line(fact.object)


def fingerprint(snapshot: Snapshot) -> dict[str, str]:
    """Return the hash of each object."""
    texts: dict[str, list[str]] = {}
    for fact in snapshot:
        texts.setdefault(object_name(fact), []).append(repr(fact[1:]))
    return {
        name: hashlib.sha256("".join(text).encode()).hexdigest()[:_LENGTH]
        for name, text in texts.items()
    }


def write(history: Mapping[str, Snapshot]) -> str:
    """Return the text of fingerprints.txt, from the schema at BASE and at each revision."""
    lines: list[str] = []
    before: Fingerprints = {}
    for revision, schema in history.items():
        now = fingerprint(schema)
        lines.append(revision)
        lines += [
            f"    {now.get(name, _REMOVED):{_LENGTH}}  {name}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        before = now
    return _HEADER + "".join(f"{line}\n" for line in lines)


def parse(text: str) -> dict[str, Fingerprints]:
    """Read the text of fingerprints.txt.

    Raises:
        ValueError: it is not such a text.

    """
    history: dict[str, Fingerprints] = {}
    now: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        if not line.startswith(" "):
            if line in history or not re.fullmatch(r"\w+", line):
                raise ValueError(line)
            now = dict(now)
            history[line] = now
            continue
        value, separator, name = line.strip().partition("  ")
        if not separator or not history:
            raise ValueError(line)
        now.pop(name.strip(), None)
        if value != _REMOVED:
            now[name.strip()] = value
    if BASE not in history:
        raise ValueError("there is no " + BASE)
    return history


def owned(history: History) -> Collection[str]:
    """Return the objects that any revision of the history has."""
    return set().union(*history.values())


def compare(history: History, revision: str, found: Fingerprints) -> Comparison:
    """Compare a database with the history at a revision that it has."""
    expected = history[revision]
    known = owned(history)
    changed = {name for name in expected if found.get(name) != expected[name]}
    if revision == BASE and _VERSION_TABLE not in found:
        changed.discard(_VERSION_TABLE)  # the first deploy makes it
    return Comparison(
        changed=tuple(sorted(changed)),
        left=tuple(sorted(one for one in found if one not in expected and one in known)),
        foreign=tuple(sorted(one for one in found if one not in known)),
    )


def nearest(history: History, found: Fingerprints, recorded: str | None = None) -> str:
    """Return the revision at which the fewest objects of the history differ.

    Of several, it is the latest one. The recorded one counts unless another explains more than half
    of what differs from it: an object more or less is no evidence against a record.
    """
    known = owned(history)
    ours = {name: value for name, value in found.items() if name in known}

    def distance(revision: str) -> int:
        return len(dict(history[revision].items() ^ ours.items()))

    closest = min(list(history)[::-1], key=distance)
    if recorded is not None and distance(recorded) <= 2 * distance(closest):
        return recorded
    return closest
