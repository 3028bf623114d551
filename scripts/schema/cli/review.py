"""`schema review`: write the page of a pull request."""

from pathlib import Path

import typer

from migrations.postgres import parse_url
from schema.cli.exits import exit_codes
from schema.cli.github_log import mask
from schema.cli.output import progress
from schema.review import page as pages


def run(page: Path) -> None:
    """Try the new revisions, and write the page."""
    with exit_codes(), progress() as show:
        url = pages.given_url()
        if url:
            mask(parse_url(url).password)
        base = pages.find_base()
        revisions = pages.new_revisions(base)
        tried = pages.try_on(url, revisions, show) if url and revisions else []
        checked = pages.check(show)
        text, ok = pages.markdown(revisions, tried, checked, pages.schema_difference(base))
        page.write_text(text, encoding="utf-8")
    typer.echo(f"Wrote {page.name}.")
    if not ok:
        raise typer.Exit(1)
