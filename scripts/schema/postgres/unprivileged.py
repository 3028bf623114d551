"""Root's servers run as another user, because PostgreSQL refuses root."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import TypedDict

from schema.errors import CannotRunError

UNPRIVILEGED = "nobody"
"""Whom root runs PostgreSQL as, which refuses root: every system has this user."""


class Identity(TypedDict, total=False):
    """What makes `subprocess` run a program as another user; empty for whoever runs this."""

    user: int
    group: int
    extra_groups: list[int]


def unprivileged_identity() -> Identity:
    """Choose whom PostgreSQL runs as: whoever runs this, or for root an unprivileged user."""
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


def hand_over(folder: Path, identity: Identity) -> None:
    """Give the folder to whom PostgreSQL runs as; nobody else can enter it."""
    if not identity:
        return
    try:
        os.chown(folder, identity["user"], identity["group"])
        reached = subprocess.run(["test", "-w", folder], **identity, check=False).returncode == 0
    except OSError as error:
        raise CannotRunError(
            f"PostgreSQL refuses to run as root, and root may not become {UNPRIVILEGED} here"
            f" ({error.strerror}); run this as another user, or give another server:"
            " --database-url."
        ) from error
    if not reached:
        raise CannotRunError(
            f"The user {UNPRIVILEGED}, whom PostgreSQL runs as, cannot enter the temporary folder"
            f" {folder.parent}; set TMPDIR to one that everybody can enter, such as /tmp."
        )
