"""Fixtures: the wheel, and Better Auth."""

import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from schema.project import ROOT
from tests.application.better_auth.service import Driver, Service, driver, install_better_auth
from tests.support.later_defaults import head_template, later_defaults
from tests.support.npm import find_node

__all__ = ["head_template", "later_defaults"]


@pytest.fixture(scope="session")
def installed() -> tuple[str, Path]:
    """The paths of Node and of the installed driver."""
    return find_node(), install_better_auth()


@pytest.fixture(scope="session")
def process(installed: tuple[str, Path]) -> Iterator[Driver]:
    """One Node process for all tests; each test uses its own database."""
    with driver(*installed) as started:
        yield started


@pytest.fixture
def service(process: Driver, better_auth: URL) -> Iterator[Service]:
    """Better Auth on a database at head, as a login in `todo_auth` only."""
    started = Service(process, better_auth)
    yield started
    started.close()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the project's build backend without network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(folder)],
        cwd=ROOT / "models",
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel and this environment's copies of its dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    inside = folder / "bin" / "python"
    packages = subprocess.run(
        [inside, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(inside), "install", "--quiet"),
            *("--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)),
        ],
        check=True,
    )
    # Python does not read the .pth files in a folder that a .pth file names, so the editable
    # install of the project is not found.
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return inside
