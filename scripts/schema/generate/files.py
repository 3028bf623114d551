"""The generated files: snapshot, fingerprints, models/version.py, a part of models/README.md."""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from difflib import unified_diff
from pathlib import Path

from sqlalchemy import URL

from migrations import snapshot
from migrations.snapshot import fingerprints
from migrations.snapshot.fingerprints import BASE
from schema.access.probe import Access, probe
from schema.errors import CannotRunError
from schema.generate import models_readme
from schema.postgres.scratch import Server
from schema.project import FINGERPRINTS, MODELS_README, ROOT, SNAPSHOT, VERSION, scripts
from schema.revisions import schemas
from schema.revisions.history import read_heads
from schema.revisions.schemas import Schemas

_VERSION = re.compile(r'^__version__ = "(?P<number>[0-9.]+)\+', re.MULTILINE)
_GENERATED = re.compile(r"^__version__ = .*\n\nHISTORY = \([^)]*\)\n", re.MULTILINE)


def rewrite(server: Server) -> str:
    """Rewrite the files, and return the changes; "" if they were up to date.

    Raises:
        CannotRunError: the history has no single head or does not build, or a file cannot be
            written.

    """
    directory = scripts()
    heads = read_heads(directory)
    if len(heads) != 1:
        raise CannotRunError(
            f"The history has {len(heads)} heads, but a snapshot needs one; run schema check."
        )
    with server.database() as scratch:
        history = schemas.build(scratch, directory)
        found = probe(scratch)
        changed = _write(render(scratch, history, found.accesses))
    if not found.accesses:
        changed += (
            f"{name(MODELS_README)} is NOT rewritten: no statement could be tried on rows; run"
            " schema check.\n"
        )
    return changed


def render(head: URL, history: Schemas, found: Sequence[Access]) -> Mapping[Path, str]:
    """Return the new text of each file, from a database at head and the probe's accesses.

    Without accesses models/README.md is left out: the isolation check reports that failure.
    """
    revisions = [revision for revision in history if revision != BASE]
    files = {
        SNAPSHOT: snapshot.layout(history[revisions[-1]], revisions[-1]),
        FINGERPRINTS: fingerprints.write(history),
        VERSION: version_text(read(VERSION), revisions),
    }
    if found:
        written = read(MODELS_README).partition(models_readme.BEGIN)[0]
        files[MODELS_README] = written + models_readme.generate(head, found)
    return files


def read(path: Path) -> str:
    """Return the text of a file; "" if it is missing."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def difference(path: Path, before: str, after: str) -> str:
    """Return the difference: fact by fact for the snapshot, line by line for the others.

    Hashes tell a reader nothing, and schema.txt shows what is behind them: "" for fingerprints.txt.
    """
    if path == FINGERPRINTS:
        return ""
    if path != SNAPSHOT:
        hunks = list(unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[2:]
        return "".join(f"{one[0]} {one[1:]}\n" for one in hunks if not one.startswith("@@"))
    heads = "".join(
        f"{sign} revision {snapshot.revision(text)}\n"
        for sign, text in (("-", before), ("+", after))
        if snapshot.revision(before) != snapshot.revision(after)
    )
    return heads + snapshot.text_difference(before, after)


def name(path: Path) -> str:
    """Return the path relative to the checkout."""
    return path.relative_to(ROOT).as_posix()


def version_text(text: str, revisions: Sequence[str]) -> str:
    """Set the head in the wheel's version, and list the history.

    Raises:
        CannotRunError: the text has no version.

    """
    found = _VERSION.search(text)
    if found is None:
        raise CannotRunError(
            f'{name(VERSION)} has no line __version__ = "<number>+<head>"; restore it with git.'
        )
    history = "".join(f'    "{revision}",\n' for revision in revisions)
    generated = f'__version__ = "{found["number"]}+{revisions[-1]}"\n\nHISTORY = (\n{history})\n'
    return _GENERATED.sub(generated, text)


def _write(files: Mapping[Path, str]) -> str:
    changed = ""
    for path, text in files.items():
        before = read(path)
        if before == text:
            continue
        replace(path, text)
        changed += f"{difference(path, before, text)}{name(path)} is rewritten.\n"
    return changed


def replace(path: Path, text: str) -> None:
    """Write a file atomically.

    Raises:
        CannotRunError: it cannot be written.

    """
    try:
        handle, temporary_name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
        temporary = Path(temporary_name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise
    except OSError as error:
        raise CannotRunError(f"{name(path)} cannot be written: {error.strerror}.") from error
