"""`scripts/setup` creates .venv, or does nothing if it is current.

The theory: from any state of the checkout, one run of the script makes .venv current, or prints one
sentence that says what is missing. A current .venv is not changed.
"""

import os
import pty
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from schema.project import ROOT
from tests.support.repo_copy import Checkout, copy_to

TOOLS = ("cat", "cksum", "dirname", "rm", "uname", "mkdir")
"""The programs that the script calls besides Python."""

WELL_KNOWN = ("/opt/homebrew/bin", "/usr/local/bin", "/usr/bin")
"""The folders in which the script searches for Python besides PATH and the home folder."""


@pytest.fixture
def copy(tmp_path: Path) -> Checkout:
    """A copy of the checkout with its locks, and without .venv."""
    made = copy_to(tmp_path / "checkout")
    for lock in ("requirements.txt", "requirements-dev.txt"):
        shutil.copy2(ROOT / lock, made.root)
    return made


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment with the script's tools and without Python."""
    tools, home = tmp_path / "tools", tmp_path / "home"
    tools.mkdir()
    home.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    return {"PATH": str(tools), "HOME": str(home)}


def setup(root: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the script of that checkout."""
    return subprocess.run(
        ["/bin/sh", root / "scripts" / "setup"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def program(path: Path, text: str) -> None:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


no_python_elsewhere = pytest.mark.skipif(
    any(list(Path(folder).glob("python3.1[3-9]")) for folder in WELL_KNOWN),
    reason="this machine has a Python where the script looks for one, whatever PATH says",
)


@no_python_elsewhere
def test_no_python(copy: Checkout, bare: dict[str, str]) -> None:
    """Without a usable Python, one sentence says what to do, and nothing is created."""
    done = setup(copy.root, bare)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("setup: no usable Python 3.13 or later was found.")
    assert "uv python install 3.13" in done.stderr
    assert "PYTHON=/path/to/python3.13 scripts/setup" in done.stderr
    assert not (copy.root / ".venv").exists()


@no_python_elsewhere
def test_python_is_too_old(copy: Checkout, bare: dict[str, str]) -> None:
    """A Python older than 3.13 is not used."""
    program(Path(bare["PATH"]) / "python3", "exit 1")
    done = setup(copy.root, bare)
    assert done.returncode == 2
    assert "no usable Python 3.13 or later" in done.stderr


@no_python_elsewhere
def test_python_cannot_make_environments(copy: Checkout, bare: dict[str, str]) -> None:
    """For a Python without venv the error names the missing package."""
    program(Path(bare["PATH"]) / "python3", 'case "$2" in *venv*) exit 1;; esac')
    done = setup(copy.root, bare)
    assert done.returncode == 2
    assert "python3 cannot make virtual environments" in done.stderr
    assert "apt install python3-venv" in done.stderr


@no_python_elsewhere
@pytest.mark.parametrize("script", ["check", "test"])
def test_commands_stop_where_set_up_does(copy: Checkout, bare: dict[str, str], script: str) -> None:
    """If set-up fails, the script fails with the same error."""
    done = subprocess.run(
        ["/bin/sh", copy.root / "scripts" / script],
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )
    if not (copy.root / "scripts" / script).exists():
        pytest.fail(f"there is no scripts/{script}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("setup: no usable Python")
    assert len(done.stderr.splitlines()) == 1


def test_current_environment_is_left_alone() -> None:
    """If .venv is current, the script writes and prints nothing, and takes no time."""
    stamps = [ROOT / ".venv" / name for name in ("stamp", "stamp-packages")]
    before = [(stamp.stat().st_mtime_ns, stamp.read_text(encoding="utf-8")) for stamp in stamps]
    start = time.perf_counter()
    done = setup(ROOT, dict(os.environ))
    seconds = time.perf_counter() - start
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [
        (stamp.stat().st_mtime_ns, stamp.read_text(encoding="utf-8")) for stamp in stamps
    ] == before
    assert seconds < 2, "it takes 20 ms on an idle machine"


PYTHON_THAT_RECORDS = """
echo "$*" >> "$RECORD"
case "$*" in
  "-m venv .venv") mkdir -p .venv/bin; cat "$0" > .venv/bin/python; cat "$0" > .venv/bin/schema ;;
esac
[ "$FAIL" = "" ] || case "$*" in *"$FAIL"*) exit 1 ;; esac
"""
"""A substitute for Python, venv and pip that records its arguments."""


@pytest.fixture
def recorded(tmp_path: Path, bare: dict[str, str]) -> dict[str, str]:
    """An environment whose Python only records its arguments."""
    chmod = shutil.which("chmod")
    assert chmod is not None
    (Path(bare["PATH"]) / "chmod").symlink_to(chmod)
    text = PYTHON_THAT_RECORDS.replace(" ;;\nesac", "; chmod +x .venv/bin/* ;;\nesac", 1)
    program(tmp_path / "python" / "python", text)
    return bare | {
        "PYTHON": str(tmp_path / "python" / "python"),
        "RECORD": str(tmp_path / "record"),
        "FAIL": "",
    }


def asked(environment: dict[str, str]) -> list[str]:
    """Return the recorded calls since the last time, and delete them."""
    record = Path(environment["RECORD"])
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    record.unlink(missing_ok=True)
    steps = {"venv .venv": "venv", "--require-hashes": "packages", "--editable": "project"}
    return [name for line in lines for mark, name in steps.items() if mark in line]


def test_each_step_is_done_once(copy: Checkout, recorded: dict[str, str]) -> None:
    """The first run does all steps; the second finds .venv current and does not call Python."""
    assert setup(copy.root, recorded).returncode == 0
    assert asked(recorded) == ["venv", "packages", "project"]
    assert setup(copy.root, recorded).returncode == 0
    assert asked(recorded) == []


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_a_terminal_shows_what_pip_does(
    copy: Checkout, recorded: dict[str, str], *, terminal: bool
) -> None:
    """The packages take a minute on a slow line: a person sees progress, a pipe stays quiet."""
    controller, end = pty.openpty()
    with os.fdopen(controller), os.fdopen(end, "w") as errors:
        done = subprocess.run(
            [copy.root / "scripts" / "setup"],
            env=recorded,
            stderr=errors if terminal else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=False,
        )
    assert done.returncode == 0
    lines = Path(recorded["RECORD"]).read_text(encoding="utf-8").splitlines()
    (packages,) = (line for line in lines if "--require-hashes" in line)
    assert ("-qq" in packages) is not terminal


@pytest.mark.parametrize(
    ("step", "again"),
    [
        ("venv .venv", ["venv", "packages", "project"]),
        ("--require-hashes", ["venv", "packages", "project"]),
        ("--editable", ["project"]),
    ],
    ids=["venv", "packages", "project"],
)
def test_interrupted_set_up_is_redone(
    copy: Checkout, recorded: dict[str, str], step: str, again: list[str]
) -> None:
    """If a step is interrupted, the run fails, and the next run repeats that step."""
    assert setup(copy.root, recorded | {"FAIL": step}).returncode != 0
    asked(recorded)
    assert setup(copy.root, recorded).returncode == 0
    assert asked(recorded) == again
    assert setup(copy.root, recorded).returncode == 0
    assert asked(recorded) == []


@pytest.mark.parametrize(
    ("file", "again"),
    [
        ("requirements-dev.txt", ["venv", "packages", "project"]),
        ("scripts/setup", ["venv", "packages", "project"]),
        ("pyproject.toml", ["project"]),
        ("README.md", []),
    ],
)
def test_what_changed_is_redone(
    copy: Checkout, recorded: dict[str, str], file: str, again: list[str]
) -> None:
    """A new lock creates a new .venv; new metadata only reinstalls the project."""
    assert setup(copy.root, recorded).returncode == 0
    asked(recorded)
    with (copy.root / file).open("a", encoding="utf-8") as changed:
        changed.write("\n# changed\n")
    assert setup(copy.root, recorded).returncode == 0
    assert asked(recorded) == again


def test_moved_checkout_is_set_up_again(copy: Checkout, recorded: dict[str, str]) -> None:
    """A virtual environment contains its own path, so a moved one is created again."""
    assert setup(copy.root, recorded).returncode == 0
    asked(recorded)
    moved = copy.root.rename(copy.root.with_name("elsewhere, with a blank"))
    assert setup(moved, recorded).returncode == 0
    assert asked(recorded) == ["venv", "packages", "project"]


@pytest.mark.slow
def test_real_set_up_after_an_interruption(copy: Checkout) -> None:
    """After an interrupted run a real .venv is created from the lock, and the command works."""
    (copy.root / ".venv" / "bin").mkdir(parents=True)
    (copy.root / ".venv" / "stamp").write_text("half way", encoding="utf-8")
    done = setup(copy.root, dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    command = copy.root / ".venv" / "bin" / "schema"
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "Check, show and serve the schema" in shown.stdout
