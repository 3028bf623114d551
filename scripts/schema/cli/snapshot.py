"""`schema snapshot`: rewrite the generated files and print what changed in them."""

import typer

from schema.cli.exits import exit_codes
from schema.cli.output import progress
from schema.generate.files import rewrite
from schema.postgres.scratch import open_server


def run(database_url: str | None, postgres: str) -> None:
    """Rewrite the files."""
    with exit_codes(), progress() as show, open_server(database_url, postgres, show) as server:
        show("upgrade head")
        changed = rewrite(server)
    typer.echo(changed or "Everything is up to date.", nl=not changed)
