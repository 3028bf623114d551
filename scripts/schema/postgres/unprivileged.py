"""The user that runs the server for root: PostgreSQL refuses to run as root."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import TypedDict

from schema.errors import CannotRunError

UNPRIVILEGED = "nobody"
"""The user of root's servers; every system has it."""


class Identity(TypedDict, total=False):
    """Arguments of `subprocess.run` for another user; empty for the current user."""

    user: int
    group: int
    extra_groups: list[int]


def unprivileged_identity() -> Identity:
    """Return the user for PostgreSQL: the current user, or an unprivileged one instead of root.

    Raises:
        CannotRunError: this is root, and there is no unprivileged user.

    """
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise CannotRunError(
            f"PostgreSQL refuses to run as root, and there is no user {UNPRIVILEGED} that it"
            " could run as; run this as another user, or give another server: --database-url."
        ) from None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def change_owner(folder: Path, identity: Identity) -> None:
    """Make that user the owner of the folder; other users cannot enter it.

    Raises:
        CannotRunError: root cannot run programs as that user, or the user cannot enter the folder.

    """
    if not identity:
        return
    try:
        os.chown(folder, identity["user"], identity["group"])
        writable = subprocess.run(["test", "-w", folder], **identity, check=False).returncode == 0
    except OSError as error:
        raise CannotRunError(
            f"PostgreSQL refuses to run as root, and root may not become {UNPRIVILEGED} here"
            f" ({error.strerror}); run this as another user, or give another server:"
            " --database-url."
        ) from error
    if not writable:
        raise CannotRunError(
            f"PostgreSQL runs as the user {UNPRIVILEGED}, who cannot enter the temporary folder"
            f" {folder.parent}; set TMPDIR to one that every user can enter, such as /tmp."
        )
