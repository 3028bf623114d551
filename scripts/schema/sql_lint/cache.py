"""What the linters found nothing in, remembered from run to run, for they are slow.

Only a text without any finding is remembered, under a name made of it and of everything else that
the result depends on: so this never hides a finding.
"""

import hashlib
from contextlib import suppress

from schema.project import ROOT

FILE = ROOT / ".venv" / "lint-clean"


class CleanTexts:
    """The texts that earlier runs found clean, and those that this one does."""

    def __init__(self) -> None:
        """Read what earlier runs left; nothing there means that everything is linted."""
        try:
            self._known = frozenset(FILE.read_text(encoding="utf-8").split())
        except (OSError, UnicodeDecodeError):
            self._known = frozenset()
        self._clean: set[str] = set()

    def __contains__(self, key: str) -> bool:
        """Whether an earlier run found it clean; it is then remembered for the next one too."""
        if key in self._known:
            self._clean.add(key)
        return key in self._clean

    def add(self, key: str) -> None:
        """Remember it."""
        self._clean.add(key)

    def save(self) -> None:
        """Leave it to the next run, without what this one did not meet."""
        with suppress(OSError):  # a read-only checkout only loses the time
            FILE.write_text("\n".join(sorted(self._clean)), encoding="utf-8")


def key(*everything: object) -> str:
    """Name a text and what else the result depends on."""
    return hashlib.sha256("\0".join(map(str, everything)).encode()).hexdigest()
