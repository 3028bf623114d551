"""`schema rebase`: move this branch's revisions behind the main branch's head."""

import typer

from schema.cli.exits import exit_codes
from schema.cli.output import progress
from schema.postgres.scratch import open_server
from schema.revision.rebase import rebase


def run(database_url: str | None, postgres: str) -> None:
    """Move them, and print what was done."""
    with exit_codes(), progress() as show, open_server(database_url, postgres, show) as server:
        show("rebase")
        done = rebase(server)
    typer.echo(done, nl=False)
