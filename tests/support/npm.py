"""Install npm packages for tests, once, from a lock with hashes, in .venv."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

OLDEST_NODE = 20

IN_CI = "TODO_SCHEMA_TESTS_IN_CI"
"""The environment's word that a skipped test would be missed; tests/conftest.py sets it."""

INSTALL_TIMEOUT = 300
"""Seconds that `npm ci` may take on a slow network."""


class NodeMissingError(Exception):
    """Node is missing or too old; the message says what to do."""


def node() -> str:
    """Find Node of a supported version, with npm beside it.

    Raises:
        NodeMissingError: there is none.

    """
    found = {name: shutil.which(name) for name in ("node", "npm")}
    missing = [name for name, path in found.items() if path is None]
    remedy = f"install Node {OLDEST_NODE} or later, with npm, to run the tests that need it"
    if missing:
        raise NodeMissingError(f"{' and '.join(missing)} cannot be found; {remedy}.")
    path = str(found["node"])
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    number = version.stdout.strip().removeprefix("v")
    if not number.partition(".")[0].isdecimal():
        raise NodeMissingError(f"{path} does not run ({version.stderr.strip()}); {remedy}.")
    if int(number.partition(".")[0]) < OLDEST_NODE:
        raise NodeMissingError(f"{path} is version {number}, which is too old; {remedy}.")
    return path


def find_node() -> str:
    """Find Node; without it, skip the test, or fail in CI."""
    try:
        return node()
    except NodeMissingError as error:
        if os.environ.get(IN_CI):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def install(source: Path, folder: Path, finish: Callable[[Path], None] | None = None) -> None:
    """Install the packages of the lock in `source` into a folder, unless they are installed.

    One process installs at a time. The stamp is written last, so that an interrupted installation
    is repeated. npm inherits the file lock: if it outlives its parent, the next process waits.
    `finish` is called with the folder after an installation.
    """
    manifests = [source / "package.json", source / "package-lock.json"]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in manifests)).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "installed"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
            return
        stamp.unlink(missing_ok=True)
        for file in manifests:
            shutil.copyfile(file, folder / file.name)
        done = subprocess.run(
            ["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=folder,
            pass_fds=(lock.fileno(),),
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_TIMEOUT,
        )
        assert done.returncode == 0, f"npm ci failed in {folder.name}:\n{done.stderr}"
        if finish is not None:
            finish(folder)
        stamp.write_text(wanted, encoding="utf-8")
