"""`schema roles`: create the logins, or print the SQL that creates them."""

import typer

from migrations.postgres import parse_url
from schema.cli.exits import exit_codes
from schema.postgres import logins


def run(application: str, better_auth: str, database_url: str | None) -> None:
    """Create both logins, or neither."""
    with exit_codes():
        wanted = logins.pair(application, better_auth)
        if database_url is None:
            for login in wanted:
                typer.echo(f"-- {login.name}: its password is {login.password}")
                typer.echo(f"{login.statement()};")
            return
        url = parse_url(database_url)
        for login, new in logins.make(url, wanted):
            if new:
                own = url.set(username=login.name, password=login.password)
                typer.echo(logins.url_with_password(own))
            else:
                typer.echo(f"{login.name} exists: it has {login.group} and keeps its password")
