"""The comparison behind `alembic check` and `alembic revision --autogenerate`.

The models' schema is built in a scratch database on an embedded server of the same major version.
The database that is compared is only read. What neither the models nor any revision has is not
compared: it is somebody else's.
"""

import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext, RevisionContext
from alembic.operations.ops import MigrateOperation, MigrationScript, UpgradeOps
from alembic.util import CommandError, PriorityDispatchResult
from sqlalchemy import Connection, MetaData

from migrations import snapshot
from migrations.snapshot import Snapshot, fingerprints
from schema.ddl.definition import by_part
from schema.errors import CannotRunError
from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import open_server
from schema.project import FINGERPRINTS, own_environment
from schema.revision import models

log = logging.getLogger("alembic.autogenerate.schema")


_FOR_ONE_FILE = ("head", "splice", "branch_label", "version_path", "rev_id", "depends_on")
"""Alembic's options of `revision` for one file."""


class DifferenceOp(MigrateOperation):
    """A part of an object that differs; Alembic shows it, and this project writes the revision."""

    def __init__(self, heading: str, part: str, was: str | None, becomes: str | None) -> None:
        """Say what the database has and what the models have; None for nothing."""
        self.heading = heading
        self.part = part
        self.was = was
        self.becomes = becomes

    def reverse(self) -> "DifferenceOp":
        """Return the difference of the way back."""
        return DifferenceOp(self.heading, self.part, self.becomes, self.was)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `alembic check` prints."""
        verb = "add" if self.was is None else "remove" if self.becomes is None else "change"
        values = [one for one in (self.was, self.becomes) if one is not None]
        return (verb, self.heading, self.part, *values)


def compare(context: AutogenContext, upgrade: UpgradeOps) -> PriorityDispatchResult:
    """Add an operation for each difference; write the revision, if Alembic was asked for one.

    Raises:
        CommandError: the models cannot be built, or a revision cannot be written.

    """
    connection = context.connection
    if connection is None or context.opts is None:
        raise CommandError("The models can be compared with a database only, not with --sql.")
    with suppress(ValueError):  # registered already, by an earlier run of this process
        renderers.dispatch_for(DifferenceOp)(_render)
    revision = context.opts.get("revision_context")
    scratch = _scratch(_major(connection), _options(context))
    try:
        declared = _declared(scratch, _listed(context.metadata))
    except CannotRunError as error:
        raise CommandError(str(error)) from error
    found = snapshot.read(connection, version_table=True)
    ours = _ours(found, models.with_version_table(declared, found))
    upgrade.ops.extend(_operations(*ours))
    log.info("compared %d facts of %d objects", len(ours[1]), len({one.object for one in ours[1]}))
    if upgrade.ops and revision is not None and _is_to_be_written(revision):
        _write(scratch, revision)
    return PriorityDispatchResult.STOP


def _listed(metadata: MetaData | Sequence[MetaData] | None) -> list[MetaData]:
    if metadata is None:
        raise CommandError("env.py gives no target_metadata.")
    return [metadata] if isinstance(metadata, MetaData) else list(metadata)


def _major(connection: Connection) -> int:
    return int((connection.dialect.server_version_info or (0,))[0])


def _options(context: AutogenContext) -> dict[str, str]:
    environment = context.migration_context.environment_context
    return {} if environment is None else environment.get_x_argument(as_dictionary=True)


@dataclass(frozen=True)
class _Scratch:
    """Where the models are built."""

    major: int
    """The major version of the database that is compared."""
    url: str | None
    folder: str | None

    @property
    def options(self) -> list[str]:
        """The same choice, as options of the `schema` command."""
        server = [] if self.url is None else ["--database-url", self.url]
        return [*server, "--postgres", self.folder or str(self.major)]


def _scratch(major: int, options: Mapping[str, str]) -> _Scratch:
    """Read the choice of a server.

    Raises:
        CommandError: there is none of that version.

    """
    found = _Scratch(major, options.get("scratch-url"), options.get("postgres"))
    if found.url is None and found.folder is None and major not in VERSIONS:
        raise CommandError(
            f"The database is PostgreSQL {major}, and the models must be built on the same version:"
            " name a server with -x scratch-url=URL, or a folder with initdb and postgres with"
            " -x postgres=FOLDER."
        )
    return found


def _declared(scratch: _Scratch, metadata: Sequence[MetaData]) -> Snapshot:
    """Build the models' schema on a server of the same major version.

    Raises:
        CannotRunError: it cannot be built.

    """
    with open_server(scratch.url, scratch.folder or scratch.major, lambda _: None) as server:
        if int(server.version.partition(".")[0]) != scratch.major:
            raise CannotRunError(
                f"The database is PostgreSQL {scratch.major}, and the scratch server"
                f" {server.version}; name one of the same major version."
            )
        with server.database() as empty:
            return models.build(empty, metadata).facts


def _ours(found: Snapshot, declared: Snapshot) -> tuple[Snapshot, Snapshot]:
    """Leave out of a database what neither the models nor any revision has."""
    known = {fingerprints.object_name(fact) for fact in declared}
    if FINGERPRINTS.exists():
        known |= set(fingerprints.owned(fingerprints.parse(FINGERPRINTS.read_text("utf-8"))))
    foreign = {name for fact in found if (name := fingerprints.object_name(fact)) not in known}
    if foreign:
        log.info("not compared, because no revision has it: %s", ", ".join(sorted(foreign)))
    return tuple(one for one in found if fingerprints.object_name(one) not in foreign), declared


def _operations(found: Snapshot, declared: Snapshot) -> Iterator[DifferenceOp]:
    old, new = by_part(found), by_part(declared)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield DifferenceOp(*key, old.get(key), new.get(key))


def _is_to_be_written(revision: RevisionContext) -> bool:
    """Whether Alembic runs `revision`, and not `check` or a test of its own.

    Raises:
        CommandError: the revision has no message.

    """
    if revision.process_revision_directives is not None:
        return False
    if revision.command_args["message"]:
        return True
    command = getattr(revision.config.cmd_opts, "cmd", None)
    if command and command[0].__name__ == "revision":
        raise CommandError('Say what the revision does, in the imperative: -m "Add todo.priority".')
    return False


def _write(scratch: _Scratch, revision: RevisionContext) -> None:
    """Let `schema revision` write the files, instead of Alembic, which would write one.

    It is a process of its own, because it runs revisions: Alembic's environment is global, and
    cannot be entered twice.

    Raises:
        CommandError: nothing is written.

    """
    given = revision.command_args
    if asked := [one for one in _FOR_ONE_FILE if given.get(one) not in (None, False, "head")]:
        options = ", ".join(f"--{one.replace('_', '-')}" for one in asked)
        raise CommandError(
            f"{options}: what is written has ids, names and an order of its own. Leave it"
            " out, or write the file by hand, without --autogenerate."
        )
    arguments = ["revision", "-m", given["message"], *scratch.options]
    program = "from schema.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env=own_environment(),
        check=False,
    )
    if done.returncode:
        raise CommandError(done.stderr.strip().removeprefix("schema: "))
    if done.stdout.startswith("Nothing to do"):
        raise CommandError(
            "The models equal the migrations, and the database differs from them: run schema drift."
        )
    revision.config.print_stdout("%s", done.stdout.rstrip())
    revision.process_revision_directives = _clear


def _clear(_context: object, _revision: object, directives: list[MigrationScript]) -> None:
    directives.clear()


def _render(_context: AutogenContext, operation: DifferenceOp) -> list[str]:
    """Show a difference where Alembic or pytest-alembic renders it."""
    values = (("database", operation.was), ("models", operation.becomes))
    lines = [f"# {operation.heading}, {operation.part}"]
    for of, value in values:
        text = "nothing" if value is None else value.replace("\n", " ")
        lines.append(f"#   {of}: {text}")
    return lines
