"""How long `alembic check` takes with this project's comparison, and with Alembic's own.

Whole processes, in turns, on this repository's schema and on one of 300 owned tables more. Nothing
passes or fails here; the figures are medians, and the ratio of the two.
"""

import compileall
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import URL

from schema.checks import models
from schema.postgres.connection import connect
from schema.postgres.scratch import open_server
from tests.support.repo_copy import Checkout, copy_to

RUNS = 5
TABLES = (0, 300)

_TABLE = '''

class Thing{n}(Owned, table=True):
    """A thing of a measurement."""

    __tablename__ = "thing_{n}"
    __table_args__ = (
        CheckConstraint("size > {n}", name="size"),
        Index("thing_{n}_title_idx", "user_id", "title"),
        {{"comment": "A thing"}},
    )

    title: str = Field(sa_type=Text, sa_column_kwargs={{"comment": "What it is called"}})
    size: int = Field(sa_column_kwargs={{"server_default": text("{n} + 1")}})
    price: Decimal | None = Field(default=None, sa_type=Numeric(10, 2))
    is_sold: bool = Field(sa_column_kwargs={{"server_default": text("false")}})
    sold_at: datetime | None = Field(default=None, sa_type=TIMESTAMPTZ)
    colour: str | None = Field(default=None, sa_type=Text)
    place: str | None = Field(default=None, sa_type=Text)
    link: UUID | None = Field(default=None, sa_type=Uuid)
'''
"""A dozen columns with those of `Owned`, which adds the key, row security, a policy and grants."""

_MODULE = '''"""The tables of a measurement."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Numeric, Text, Uuid, text
from sqlmodel import Field

from .base import TIMESTAMPTZ
from .ownership import Owned
'''

_BUILD = """
import sys
from models import metadata
from schema.postgres.connection import connect
from sqlalchemy import make_url
with connect(make_url(sys.argv[1])) as connection:
    metadata.create_all(connection)
    connection.exec_driver_sql(
        "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL"
        " CONSTRAINT alembic_version_pkc PRIMARY KEY)"
    )
    connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('" + sys.argv[2] + "')")
    connection.commit()
"""


def checkouts(folder: Path, tables: int) -> tuple[Checkout, Checkout]:
    """Make a checkout whose models have so many tables more, and one with Alembic's comparison."""
    ours, theirs = (copy_to(folder / name) for name in ("ours", "theirs"))
    for copy in (ours, theirs):
        text = _MODULE + "".join(_TABLE.format(n=n) for n in range(tables))
        (copy.root / "models" / "thing.py").write_text(text, encoding="utf-8")
        file = copy.root / "models" / "__init__.py"
        file.write_text(f"{file.read_text(encoding='utf-8')}\nfrom . import thing\n", "utf-8")
        compileall.compile_dir(copy.root, quiet=2)
    selected = 'autogenerate_plugins=["schema"]'
    own = f"autogenerate_plugins={models._ALEMBICS_OWN!r}"  # noqa: SLF001  # as the check has it
    theirs.edit("migrations/env.py", selected, own)
    return ours, theirs


def seconds(copy: Checkout, url: URL) -> float:
    """Run `alembic check` in a checkout, and return how long it took.

    Raises:
        RuntimeError: it finds a difference, or fails.

    """
    started = time.monotonic()
    done = _python(copy, "-m", "alembic", "check", DATABASE_URL=_text(url))
    taken = time.monotonic() - started
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return taken


def _python(copy: Checkout, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: one for name, one in os.environ.items() if name in {"PATH", "HOME", "TMPDIR"}}
    path = os.pathsep.join(map(str, (copy.root / "scripts", copy.root)))
    return subprocess.run(
        [sys.executable, "-P", *arguments], cwd=copy.root, env=kept | {"PYTHONPATH": path} | more,
        capture_output=True, text=True, check=False,
    )  # fmt: skip  # one line per group


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def report(postgres: str, runs: int = RUNS, sizes: Sequence[int] = TABLES) -> None:
    """Print the figures."""
    for tables in sizes:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_server(None, postgres, lambda _step: None) as server,
            server.database() as url,
        ):
            ours, theirs = checkouts(Path(folder), tables)
            built = _python(ours, "-c", _BUILD, _text(url), ours.head)
            if built.returncode:
                raise RuntimeError(built.stderr)
            with connect(url, autocommit=True) as connection:
                connection.exec_driver_sql("ANALYZE")
            taken: dict[str, list[float]] = {"ours": [], "Alembic's": []}
            for _ in range(runs):
                taken["ours"].append(seconds(ours, url))
                taken["Alembic's"].append(seconds(theirs, url))
        _print(tables, taken)


def _print(tables: int, taken: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(found) for name, found in taken.items()}
    base = medians["Alembic's"]
    words = ", ".join(
        f"{name} {median:.2f} s (ratio {median / base:.2f})" for name, median in medians.items()
    )
    sys.stdout.write(f"{tables} more tables: {words}\n")
    sys.stdout.flush()
