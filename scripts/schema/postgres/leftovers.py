"""Remove what killed runs left in the temporary folder.

Other users can write to the temporary folder, and other processes can run as the user of root's
servers. So each file is opened without following a link or waiting for a pipe, and its owner is
checked.
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

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # each run creates a private folder in it


def clear_leftovers() -> None:
    """Stop the servers and remove the folders of killed runs."""
    owners = {os.geteuid()}
    if os.geteuid() == 0:
        with suppress(KeyError):
            owners.add(pwd.getpwnam(UNPRIVILEGED).pw_uid)
    parents = {Path(tempfile.gettempdir()), SHARED_MEMORY}
    for folder in (found for parent in parents for found in _folders_of_runs(parent)):
        with suppress(OSError):  # another user's, in use, or being created or removed
            _clear(folder, owners)


def _clear(folder: Path, owners: set[int]) -> None:
    """Stop the server of a killed run and remove its folder.

    Root's servers own their folders; the lock file always belongs to the run's user.

    Raises:
        OSError: the folder is in use, or its lock is another user's.

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
    """Open a regular file of that user; `folder` is the descriptor of its folder.

    It does not follow a link, and does not wait for the other end of a pipe.

    Raises:
        OSError: the file cannot be opened, is another user's, or is not a regular file.

    """
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != owner:
        os.close(file)
        raise PermissionError(f"{path} is not the run's own")
    return file


def postmaster_status(data: Path, owner: int) -> str:
    """Read postmaster.pid.

    Raises:
        OSError: the file does not exist, or is not that user's.

    """
    file = _open(data / "postmaster.pid", os.O_RDONLY, owner)
    with os.fdopen(file, encoding="utf-8", errors="replace") as opened:
        return opened.read(4096)


def _folders_of_runs(parent: Path) -> Iterator[Path]:
    """Find the folders of runs, and those unfinished for more than an hour."""
    yield from parent.glob(f"{FOLDER_PREFIX}*")
    old = time.time() - 3600
    for folder in parent.glob(f".{FOLDER_PREFIX}*"):
        with suppress(FileNotFoundError):
            if folder.lstat().st_mtime < old:
                yield folder


def remove(folder: Path) -> None:
    """Remove the folder; retry, because a killed program may still write its last file."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.01)


def _kill_postmaster(data: Path, owner: int) -> None:
    """Stop the server of that data directory, if it still runs as that user."""
    try:
        pid = int(postmaster_status(data, owner).splitlines()[0])
        if pid <= 0:
            return
        # Another program may have that process id now: only a server has the directory as argument.
        output = subprocess.run(
            ["ps", "-ww", "-o", "uid=,command=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        user, _, command = output.strip().partition(" ")
        if user != str(owner) or str(data) not in command:
            return
        os.kill(pid, signal.SIGQUIT)
        for _ in range(1000):
            os.kill(pid, 0)
            time.sleep(0.01)
    except (OSError, ValueError, IndexError):
        return
