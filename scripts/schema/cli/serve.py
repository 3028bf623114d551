"""`schema serve` and `schema reset`: this checkout's development server."""

import typer
from sqlalchemy import URL

from schema.access.declared import declared_samples
from schema.cli.exits import exit_codes
from schema.cli.output import progress
from schema.errors import CannotRunError
from schema.postgres import dev_server
from schema.revisions.runner import upgrade_database
from schema.rows.generator import fill_database


def run(port: int, postgres: str, *, seed: bool, detach: bool, stop: bool) -> None:
    """Serve until interrupted, start a server in the background, or stop it."""
    with exit_codes():
        if stop:
            if detach:
                raise CannotRunError("--stop and --detach contradict each other; give one of them.")
            dev_server.stop()
            typer.echo("Stopped; its data is gone.")
        elif detach:
            seeding = ["--seed"] if seed else []
            arguments = ["--port", str(port), "--postgres", postgres, *seeding]
            with progress() as show:
                show("server")
                said = dev_server.detach(arguments)
            typer.echo(said, nl=False)
        else:
            dev_server.serve(postgres, port, _builder(seed=seed), typer.echo)


def reset(*, seed: bool) -> None:
    """Build the running server's database anew."""
    with exit_codes(), progress() as show:
        show("reset")
        dev_server.reset(_builder(seed=seed))
    typer.echo("The development database is at the head of this branch; its old data is gone.")


def _builder(*, seed: bool) -> dev_server.Build:
    def build(url: URL) -> None:
        upgrade_database(url)
        if seed:
            fill_database(url, declared_samples())

    return build
