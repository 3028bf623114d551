"""What runs that were killed have left in the temporary folder.

Others may write to the temporary folder, and root's servers run as a user whom others may be, too:
so whatever is read there is opened without following a link or waiting for a pipe, and only if it
is this user's.
"""

import fcntl
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from schema.postgres.unprivileged import UNPRIVILEGED

FOLDER_PREFIX = "todo-schema-"

MEMORY = Path("/dev/shm")  # noqa: S108  # the folder made there is private


def clear_leftovers() -> None:
    """Stop the servers and remove the folders of runs that were killed before they could."""
    owners = {os.geteuid()}
    if os.geteuid() == 0:
        with suppress(KeyError):
            owners.add(pwd.getpwnam(UNPRIVILEGED).pw_uid)
    places = {Path(tempfile.gettempdir()), MEMORY}
    for folder in (found for place in places for found in _folders_of_runs(place)):
        with suppress(OSError):  # another user's, in use, or just being made or removed
            _clear(folder, owners)


def _clear(folder: Path, owners: set[int]) -> None:
    """Clear the folder of a run that has ended.

    Raises:
        OSError: it is in use, or not this user's: root's servers own their folders, but no lock.

    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        owner = os.fstat(opened).st_uid
        if owner not in owners:
            return
        lock = _open(Path("lock"), os.O_RDWR, os.geteuid(), opened)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _kill_postmaster(folder / "data", owner)
            remove(folder)
        finally:
            os.close(lock)
    finally:
        os.close(opened)


def _open(path: Path, flags: int, owner: int, folder: int | None = None) -> int:
    """Open a file of that user, below a folder that is open where one is given.

    Raises:
        OSError: it cannot be opened, is another user's, or is no regular file: a link is not
            followed, and nothing waits for the other end of a pipe.

    """
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != owner:
        os.close(file)
        raise PermissionError(f"{path} is not the run's own")
    return file


def postmaster_status(data: Path, owner: int) -> str:
    """Read what the server says of itself in postmaster.pid.

    Raises:
        OSError: it has not said anything, or the file is not that user's.

    """
    file = _open(data / "postmaster.pid", os.O_RDONLY, owner)
    with os.fdopen(file, encoding="utf-8", errors="replace") as opened:
        return opened.read(4096)


def _folders_of_runs(place: Path) -> Iterator[Path]:
    """Find the folders of runs, and those whose making was cut short an hour ago."""
    yield from place.glob(f"{FOLDER_PREFIX}*")
    old = time.time() - 3600
    for folder in place.glob(f".{FOLDER_PREFIX}*"):
        with suppress(FileNotFoundError):
            if folder.lstat().st_mtime < old:
                yield folder


def remove(folder: Path) -> None:
    """Remove the folder, while a program that was just killed may still write its last file."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.01)


def _kill_postmaster(data: Path, owner: int) -> None:
    """Stop the server of that data directory, when it still runs, as that user."""
    try:
        pid = int(postmaster_status(data, owner).splitlines()[0])
        if pid <= 0:
            return
        # The number may be another program's by now; only a postgres there is started that way.
        shown = subprocess.run(
            ["ps", "-ww", "-o", "uid=,command=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        user, _, command = shown.strip().partition(" ")
        if user != str(owner) or str(data) not in command:
            return
        os.kill(pid, signal.SIGQUIT)
        for _ in range(1000):
            os.kill(pid, 0)
            time.sleep(0.01)
    except (OSError, ValueError, IndexError):
        return
