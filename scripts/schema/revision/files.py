"""The files of revisions: named, written and formatted, one after the other."""

import re
import subprocess
import sysconfig
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from alembic.script import Script, ScriptDirectory
from alembic.util import rev_id

from schema.errors import CannotRunError
from schema.project import REVISIONS_DIR, ROOT
from schema.revision.code.literals import string
from schema.revisions.history import revisions_oldest_first

NAME = re.compile(r"(?P<time>\d{4}_\d\d_\d\d_\d{4})_(?P<rest>.+\.py)")
_TIME = "%Y_%m_%d_%H%M"
_SLUG_LENGTH = 60
"""Characters of a file's name that say what the revision does, as in alembic.ini."""
_WIDTH = 100


@dataclass(frozen=True)
class Source:
    """The parts of a revision's file."""

    title: str
    """What it does, in the imperative, without a full stop."""
    why: str
    upgrade: Sequence[str]
    downgrade: Sequence[str]
    notes: Sequence[str] = ()
    """Further paragraphs of its docstring."""
    constants: Sequence[str] = ()
    declarations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """`assumes` and `loses`."""


def later(name: str) -> str:
    """Return the time for a file's name: now, or a minute after the file that it must follow."""
    match = NAME.fullmatch(name)
    now = datetime.now(UTC).replace(tzinfo=None)
    before = datetime.strptime(match["time"], _TIME) if match else now  # noqa: DTZ007  # a name, in UTC
    return max(now, before + timedelta(minutes=1)).strftime(_TIME)


def write(sources: Sequence[Source], parent: str | None) -> list[Path]:
    """Write the files, each following the one before; return their paths.

    Raises:
        CannotRunError: a file cannot be written, or the formatter fails; then none is left.

    """
    written: list[Path] = []
    last = max((path.name for path in REVISIONS_DIR.glob("*.py")), default="")
    try:
        for source in sources:
            revision = rev_id()
            path = REVISIONS_DIR / f"{later(last)}_{revision}_{_slug(source.title)}.py"
            written.append(path)
            path.write_text(_text(source, revision, parent), encoding="utf-8")
            parent, last = revision, path.name
        _format(written)
    except OSError as error:
        remove(written)
        raise CannotRunError(f"The revision cannot be written: {error.strerror}.") from error
    except BaseException:
        remove(written)
        raise
    return written


def revisions(directory: ScriptDirectory, paths: Sequence[Path]) -> list[Script]:
    """Return the revisions in the files, oldest first."""
    names = {path.name for path in paths}
    return [one for one in revisions_oldest_first(directory) if Path(one.path).name in names]


def remove(paths: Sequence[Path]) -> None:
    """Remove the files."""
    for path in paths:
        path.unlink(missing_ok=True)


def _slug(title: str) -> str:
    slug = "_".join(re.findall(r"[a-z0-9]+", title.lower()))
    if len(slug) > _SLUG_LENGTH:
        slug = slug[:_SLUG_LENGTH].rpartition("_")[0] or slug[:_SLUG_LENGTH]
    return slug or "change"


def _text(source: Source, revision: str, parent: str | None) -> str:
    below = ""
    for name, values in source.declarations.items():
        pairs = ", ".join(f"{string(key)}: {string(one)}" for key, one in values.items())
        below += f"\n{name} = {{{pairs}}}\n"
    below += "".join(f"\n{one}\n" for one in source.constants)
    for name, lines in (("upgrade", source.upgrade), ("downgrade", source.downgrade)):
        below += f"\n\ndef {name}() -> None:\n" + "".join(f"    {line}\n" for line in lines)
    imports = {
        "import logging\n": r"\blogging\.",
        "import sqlalchemy as sa\n": r"\bsa\.",
        "from alembic import op\n": r"\bop\.",
        "from sqlalchemy.dialects import postgresql\n": r"\bpostgresql\.",
    }
    above = "".join(line for line, used in imports.items() if re.search(used, below))
    return (
        f"{_docstring(source)}\n\n{above}\n"
        f"revision = {string(revision)}\ndown_revision = {string(parent) if parent else None}\n"
        f"branch_labels = None\ndepends_on = None\n{below}"
    )


def _docstring(source: Source) -> str:
    paragraphs = [f"WHY: {source.why}", *source.notes]
    filled = [textwrap.fill(one, _WIDTH, break_long_words=False) for one in paragraphs]
    text = "\n".join((f"{source.title}.", "", *filled))
    escaped = text.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    return f'"""{escaped}\n"""'


def _format(paths: Sequence[Path]) -> None:
    program = Path(sysconfig.get_path("scripts")) / "ruff"
    for arguments in (["check", "--quiet", "--fix", "--select", "I"], ["format", "--quiet"]):
        done = subprocess.run(
            [program, *arguments, *paths], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().partition("\n")[0]
            raise CannotRunError(f"The revision cannot be formatted: {reason or 'ruff fails'}.")
