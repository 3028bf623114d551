"""Copies of the checkout, in which tests break something, and their own `schema` command.

Each run is a process with the copy's code. Python and the libraries take as long to start as the
checks to run, so one process imports the libraries and forks for each run. The repository's own
modules are imported after the fork.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from schema.project import ROOT

PARTS = ("alembic.ini", "pyproject.toml", "migrations", "models", "scripts")
"""The contents of a copy: no .venv and no .git."""

COMMAND = "from schema.cli.main import main; main()"

CHECK = ("check", "--no-lint")
"""Without the lint, which takes longer than all other checks and has its own tests."""

CHECKS = [
    "history",
    "upgrade head",
    "round trip",
    "autogenerate",
    "create_all",
    "comments",
    "ownership",
    "isolation",
    "generated files",
]
"""The checks of CHECK, in order."""

_WARNING = re.compile(r"^schema: warning: .* password in an argument .*\n", re.MULTILINE)

IRREVERSIBLE = 'raise NotImplementedError("This cannot be undone, because a test says so.")'
"""A downgrade that raises with a reason."""

REVISION = '''"""{summary}

WHY: a test needs a revision that does this.
"""

from alembic import op

revision = "{revision}"
down_revision = {parents!r}


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    {downgrade}
'''

_LAUNCHER = """
import gc, json, os, sys
import alembic.autogenerate, alembic.config, alembic.ext.checkconstraint_byname
import alembic.runtime.environment, alembic.script, psycopg, rich.console, rich.live, rich.table
import sqlalchemy.dialects.postgresql.psycopg, sqlalchemy.ext.hybrid, sqlmodel, typer

# Alembic has loaded the plugin of this checkout; a copy's plugin imports the copy's code.
for name in [one for one in sys.modules if one.partition(".")[0] == "schema"]:
    del sys.modules[name]
gc.freeze()  # what was imported is no garbage, and a child that ends need not look through it
for line in sys.stdin:
    job = json.loads(line)
    if os.fork() == 0:  # the child leaves the loop, and ends as any program does
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(job[name], os.O_CREAT | os.O_WRONLY | os.O_TRUNC), descriptor)
        os.chdir(job["root"])
        sys.path[:0] = [job["root"], job["root"] + "/scripts"]
        sys.argv = ["schema", *job["arguments"]]
        break
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
else:
    sys.exit()
assert not {"schema", "models", "migrations"} & set(sys.modules)
exec(job["code"])
"""


class Failure(NamedTuple):
    """A failure in the command's output."""

    check: str
    message: str
    detail: str
    remedy: str


@dataclass(frozen=True)
class Result:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str
    """Standard error, without the warning."""
    warning: str = ""
    """The warning about a password in an argument: the tests' URLs have some."""

    @property
    def everything(self) -> str:
        """The exit code and all output, for the message of a failed test."""
        return f"exit code {self.code}\n{self.out}\n{self.warning}{self.err}"

    def checks(self, mark: str) -> list[str]:
        """List the checks with that mark in the table: `✓ passes`, `✗ fails` or `-`."""
        rows = re.findall(rf"^{mark} +(.+?)  ", self.out, flags=re.MULTILINE)
        return [row.strip() for row in rows]

    @property
    def failures(self) -> list[Failure]:
        """Read the failures below the table."""
        found = re.findall(
            r"^✗ ([\w ,.]+): (.*)\n((?:    .*\n)*)  → (.*)$", self.out, flags=re.MULTILINE
        )
        return [Failure(*one) for one in found]


class Launcher:
    """Runs code in copies, each time in a new process."""

    def __init__(self, folder: Path, to: IO[str], answers: IO[str]) -> None:
        """Use the standard streams of the process that forks."""
        self._folder = folder
        self._to = to
        self._answers = answers

    def count(self, words: str) -> int:
        """Count these words in the standard error of the running command."""
        return (self._folder / "stderr").read_text(encoding="utf-8").count(words)

    def run(self, root: Path, *arguments: str, code: str = COMMAND) -> Result:
        """Run code in the copy at root, by default its command."""
        files = {name: self._folder / name for name in ("stdout", "stderr")}
        for file in files.values():
            file.write_text("", encoding="utf-8")  # remove the output of an earlier command
        job = {"root": str(root), "arguments": arguments, "code": code}
        job |= {name: str(file) for name, file in files.items()}
        self._to.write(json.dumps(job) + "\n")
        self._to.flush()
        answer = self._answers.readline()
        out, err = (file.read_text(encoding="utf-8") for file in files.values())
        warning = "".join(_WARNING.findall(err))
        return Result(int(answer), out, _WARNING.sub("", err), warning)


@contextmanager
def launcher(folder: Path) -> Iterator[Launcher]:
    """Run a launcher that writes the commands' output to that folder."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-B", "-c", _LAUNCHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin as to, process.stdout as answers:
            yield Launcher(folder, to, answers)
            to.close()
            answers.read()
    finally:
        process.wait()


class Checkout:
    """A copy of the checkout."""

    def __init__(self, root: Path) -> None:
        """Find the files in the copy."""
        self.root = root
        self.versions = root / "migrations" / "versions"
        self.snapshot = root / "migrations" / "schema.txt"
        self.head = self.snapshot.read_text(encoding="utf-8").split()[1]

    def revision(self, slug: str) -> Path:
        """Return the only revision file with that slug."""
        (path,) = self.versions.glob(f"*_{slug}.py")
        return path

    def edit(self, path: str | Path, old: str, new: str) -> None:
        """Replace the first occurrence of a text, which must exist."""
        file = self.root / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{file.name} has changed: it no longer holds {old!r}"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    def add(  # noqa: PLR0913  # each is a thing that can be wrong with a revision file
        self,
        upgrade: str = "pass",
        downgrade: str = "pass",
        *,
        revision: str = "a0b1c2d3e4f5",
        parents: str | tuple[str, ...] = "",
        name: str = "",
        summary: str = "Change something.",
    ) -> Path:
        """Write a revision file, by default after the head."""
        path = self.versions / (name or f"2099_01_01_0000_{revision}_change_something.py")
        text = REVISION.format(
            summary=summary,
            revision=revision,
            parents=parents or self.head,
            upgrade=upgrade,
            downgrade=downgrade,
        )
        path.write_text(text, encoding="utf-8")
        return path


def copy_to(folder: Path, root: Path = ROOT) -> Checkout:
    """Copy a checkout, by default this one, into a new folder."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source, target = root / part, folder / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    return Checkout(folder)


def git(copy: Checkout, *arguments: str) -> None:
    """Run git in the copy, without the developer's settings."""
    settings = {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "nobody@example.invalid" for who in ("AUTHOR", "COMMITTER")
           for what in ("NAME", "EMAIL")},
    }  # fmt: skip  # two dimensions on two lines
    subprocess.run(
        ["git", "-C", copy.root, *arguments],
        env=os.environ | settings,
        check=True,
        capture_output=True,
    )


def branch_off(copy: Checkout) -> None:
    """Make the copy a repository whose branch main is this checkout, and begin another branch."""
    git(copy, "init", "--quiet", "--initial-branch=main")
    git(copy, "add", ".")
    git(copy, "commit", "--quiet", "--message=Everything")
    git(copy, "switch", "--quiet", "--create=feature")


def equip(copy: Checkout) -> None:
    """Give a copy what `scripts/lint` and the tests need, and this checkout's environment."""
    for name in ("tests", ".github"):
        ignored = shutil.ignore_patterns("*cache*", "node_modules")
        shutil.copytree(ROOT / name, copy.root / name, ignore=ignored)
    shutil.copy2(ROOT / "requirements-dev.txt", copy.root)
    own, copied = ROOT / ".venv", copy.root / ".venv"
    copied.mkdir()
    for name in ("bin", "node"):
        if (own / name).exists():
            (copied / name).symlink_to(own / name)
    if (own / "mypy_cache").exists():
        shutil.copytree(own / "mypy_cache", copied / "mypy_cache")
    if (own / "lint-clean").exists():
        shutil.copy2(own / "lint-clean", copied / "lint-clean")
    stamp = 'echo "$(cksum requirements-dev.txt scripts/setup) $(pwd -P) $(cksum pyproject.toml)"'
    with (copied / "stamp").open("w", encoding="utf-8") as file:
        subprocess.run(["sh", "-c", stamp], cwd=copy.root, stdout=file, check=True)


def sql(*statements: str) -> str:
    """Return the body of an upgrade or downgrade that executes these statements."""
    return "\n    ".join(f"op.execute({statement!r})" for statement in statements)
