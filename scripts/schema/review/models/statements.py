"""What a release of the models executes on each table, as SQL with its values left open.

The models of any commit are read in a process of its own, because this one holds the checkout's.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from schema.errors import CannotRunError
from schema.generate.files import version_text
from schema.project import ROOT, VERSION
from schema.revisions.merged import NotComparableError, git

_SECONDS = 60
"""How long a `models` package may take."""

_ERROR = re.compile(r"[\w.]*(?:Error|Exception|Exit|Interrupt)\b.*")
"""The line of a traceback that names the error."""


@dataclass(frozen=True)
class ModelStatement:
    """A statement of the models."""

    table: str
    """Without `public`; of a start-up assertion, its name."""
    command: str
    """`SELECT`, `INSERT`, `UPDATE`, `DELETE`, `start-up`."""
    sql: str
    """For psycopg; the parameter `row` is a row as JSON. "" for a start-up assertion."""
    reads: str = ""
    """The type that the models expect of the one column that it selects, as SQL; "" for any."""


def export_models(commit: str, folder: Path) -> Path:
    """Copy the `models` package of a commit into an existing folder, and return where it is.

    If the commit has none, neither has the folder.

    Raises:
        CannotRunError: git cannot tell.

    """
    archive = folder / "models.tar"
    try:
        if git("ls-tree", commit, "models"):
            git("archive", "--format=tar", f"--output={archive}", commit, "models")
    except NotComparableError as error:
        raise CannotRunError(f"The base's models cannot be read: {error}.") from error
    if archive.exists():
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
        archive.unlink()
    return folder / "models"


def new_models(folder: Path, revisions: Sequence[str]) -> Path:
    """Copy the checkout's models into a folder, as the wheel of the last revision will have them.

    Their version and history are those that `schema snapshot` would write: whether the author has
    run it yet must not decide what the start-up assertions say.

    Raises:
        CannotRunError: models/version.py has no version.

    """
    # Apart from what `export_models` writes.
    models = folder / "new" / "models"
    source = ROOT / "models"
    if source.is_dir():
        shutil.copytree(source, models, ignore=shutil.ignore_patterns("__pycache__"))
    version = models / VERSION.name
    if version.exists():
        text = version_text(version.read_text(encoding="utf-8"), revisions)
        version.write_text(text, encoding="utf-8")
    return models


class Release:
    """The models of a folder, imported once, by a process that answers until `close`."""

    def __init__(self, models: Path) -> None:
        """Start the process, which imports them meanwhile; a folder without models has none."""
        self._models = models
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._process: subprocess.Popen[str] | None = None
        if (models / "__init__.py").is_file():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "schema.review.models.program"],
                env=_environment(models),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )

    def __enter__(self) -> Self:
        """Return the release."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._errors.close()

    def statements(self) -> tuple[ModelStatement, ...]:
        """Return what the ORM executes with the models; nothing if there are none.

        Raises:
            CannotRunError: the models cannot be imported or mapped.

        """
        return tuple(
            ModelStatement(one["table"], one["command"], one["sql"], one["reads"])
            for one in self.ask("") or ()
        )

    def ask(self, url: str) -> Any:  # noqa: ANN401  # JSON
        """Return what the program says of that database, or without one its statements.

        Without models the result is None.

        Raises:
            CannotRunError: the models cannot be imported, or their process fails or takes a minute.

        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return None
        late = threading.Timer(_SECONDS, process.kill)
        late.start()
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(f"{url}\n")
                process.stdin.flush()
            answer = process.stdout.readline()
        finally:
            late.cancel()
        if answer:
            return json.loads(answer)
        code = process.wait()
        if code == -signal.SIGKILL:
            why = f"their import took more than {_SECONDS} s"
        else:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace")
            lines = [line for line in said.splitlines() if _ERROR.fullmatch(line)]
            why = lines[-1] if lines else f"exit code {code}"
            # A temporary folder, or this machine's.
            why = why.replace(f"{self._models.parent}{os.sep}", "").rstrip(".")
        raise CannotRunError(f"The models cannot be read: {why}.")


def statements_of(models: Path) -> tuple[ModelStatement, ...]:
    """Return what the ORM executes with the models of this folder; see `Release.statements`."""
    with Release(models) as release:
        return release.statements()


def _environment(models: Path) -> Mapping[str, str]:
    """Let `models` be the package of that folder, and keep the secrets of a review from it."""
    path = os.pathsep.join(map(str, (models.parent, ROOT / "scripts")))
    return {
        name: value for name, value in os.environ.items() if not name.startswith("DATABASE_URL")
    } | {"PYTHONPATH": path}
