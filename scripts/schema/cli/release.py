"""`schema release`: the wheel and the notes of a version."""

from pathlib import Path

import typer

from schema.cli.exits import exit_codes
from schema.cli.output import progress
from schema.postgres.connection import connect
from schema.postgres.scratch import open_server
from schema.project import scripts
from schema.release import wheel as wheels
from schema.revisions.runner import upgrade


def run(tag: str, folder: Path) -> None:
    """Build the wheel into the folder, try it, and write the notes beside it."""
    from models.version import __version__  # noqa: PLC0415  # a checkout may hold a broken one

    with exit_codes(), progress() as show:
        released = wheels.require_tag(tag, __version__)
        text = wheels.notes(released)
        folder.mkdir(parents=True, exist_ok=True)
        show("the wheel")
        built = wheels.build(folder.resolve())
        with open_server(None, "18", show) as server, server.database() as head:
            with connect(head) as connection:
                upgrade(connection, scripts())
            version = wheels.assert_compatible(built, head, show)
        (folder / "notes.md").write_text(text, encoding="utf-8")
    typer.echo(f"{built.name} ({version}) suits a database at head; notes.md is beside it.")
