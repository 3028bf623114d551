"""`schema serve`: a development server until Ctrl-C."""

import typer

from schema.cli.exits import exit_codes
from schema.postgres import dev_server
from schema.revisions.runner import upgrade_database


def run(port: int, postgres: str) -> None:
    """Serve until interrupted."""
    with exit_codes():
        dev_server.serve(postgres, port, upgrade_database, typer.echo)
