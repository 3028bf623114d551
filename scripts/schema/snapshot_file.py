"""migrations/schema.txt, the committed snapshot at head: rewriting it from the migrations."""

import os
import tempfile
from pathlib import Path

from migrations import snapshot

from .alembic_run import upgrade
from .database import connect, describe
from .errors import CannotRunError
from .repository import SNAPSHOT, scripts
from .server import Server


def rewrite(server: Server) -> str:
    """Rewrite the file, and return what changed in it: nothing when it was up to date.

    Raises:
        CannotRunError: the history has no single head, or the file cannot be written.

    """
    directory = scripts()
    try:
        heads = directory.get_heads()
    except Exception as error:  # a revision file may raise whatever it likes
        raise CannotRunError(
            f"The revision files cannot be read ({describe(error)}); run schema check."
        ) from error
    if len(heads) != 1:
        raise CannotRunError(
            f"The history has {len(heads)} heads, but a snapshot is of one; run schema check."
        )
    with server.database() as scratch, connect(scratch) as connection:
        try:
            upgrade(connection, directory)
        except Exception as error:  # a revision may raise whatever it likes
            raise CannotRunError(
                f"The history does not build ({describe(error)}); run schema check."
            ) from error
        fresh = snapshot.layout(snapshot.read(connection), heads[0])
    before = SNAPSHOT.read_text(encoding="utf-8") if SNAPSHOT.exists() else ""
    if fresh == before:
        return ""
    try:
        _replace(SNAPSHOT, fresh)
    except OSError as error:
        raise CannotRunError(f"{SNAPSHOT} cannot be written: {error.strerror}.") from error
    return snapshot.text_difference(before, fresh) or "Only the revision changed.\n"


def _replace(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
