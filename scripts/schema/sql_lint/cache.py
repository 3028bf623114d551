"""A cache of the texts without findings, because the linters are slow.

The key is a hash of the text and of all other inputs of the linter, so it never hides a finding.
"""

import hashlib
from contextlib import suppress

from schema.project import ROOT

FILE = ROOT / ".venv" / "lint-clean"


class CleanTexts:
    """The keys of the texts without findings, from earlier runs and from this one."""

    def __init__(self) -> None:
        """Read the cache file; without one, every text is linted."""
        try:
            self._known = frozenset(FILE.read_text(encoding="utf-8").split())
        except (OSError, UnicodeDecodeError):
            self._known = frozenset()
        self._clean: set[str] = set()

    def __contains__(self, key: str) -> bool:
        """Whether the key is in the cache; if so, keep it for the next run."""
        if key in self._known:
            self._clean.add(key)
        return key in self._clean

    def add(self, key: str) -> None:
        """Add the key of a text without findings."""
        self._clean.add(key)

    def save(self) -> None:
        """Write the cache file, without the keys that this run did not use."""
        with suppress(OSError):  # a read-only checkout works without a cache
            FILE.write_text("\n".join(sorted(self._clean)), encoding="utf-8")


def key(*everything: object) -> str:
    """Return the key of a text and the other inputs of its linter."""
    return hashlib.sha256("\0".join(map(str, everything)).encode()).hexdigest()
