"""`schema roles`: create the logins, or print the SQL that creates them."""

import typer
from sqlalchemy import URL

from schema.cli import database_url as urls
from schema.cli.exits import exit_codes
from schema.postgres import logins


def run(application: str, better_auth: str, database_url: str | None, *, apply: bool) -> None:
    """Create both logins, or neither; print the SQL unless a URL or `apply` says to create them."""
    with exit_codes():
        wanted = logins.pair(application, better_auth)
        if database_url is None and not apply:
            for login in wanted:
                typer.echo(f"-- {login.name}: its password is {login.password}")
                typer.echo(f"{login.statement()};")
            return
        url = urls.target(database_url)
        for login, new in logins.make(url, wanted):
            if new:
                own = url.set(username=login.name, password=login.password)
                typer.echo(logins.url_with_password(own))
            else:
                typer.echo(f"{login.name} exists: it has {login.group}{_what_it_keeps(url, login)}")


def _what_it_keeps(url: URL, login: logins.Login) -> str:
    obstacles = logins.obstacles(url, login.name)
    if not obstacles:
        return " and keeps its password"
    return f", but cannot log in: {'; '.join(obstacles)}"
