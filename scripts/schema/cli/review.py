"""`schema review`: what this branch's revisions do to the schema, on one page."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import typer
from sqlalchemy import URL

from migrations.postgres import is_pooled, parse_url
from schema.cli.exits import exit_codes
from schema.cli.github_log import mask
from schema.cli.output import json_document, progress
from schema.errors import CannotRunError
from schema.review.pages.document import document
from schema.review.pages.html import html
from schema.review.pages.markdown import markdown
from schema.review.result import Review
from schema.review.runner import Options, review

type Format = Literal["markdown", "html", "json"]

_FIELDS = ("error", "ok", *(one.name for one in fields(Review)), "deployment")


def run(
    options: Options,
    database_url: str | None,
    form: Format,
    output: Path | None,
    *,
    disposable: bool,
) -> None:
    """Review the new revisions, and print the page or write it to a file."""
    with exit_codes(_error if form == "json" else None), progress() as show:
        _check_output(output)
        given = _given(database_url, disposable=disposable)
        found = review(replace(options, given=given), show)
    page = _page(found, form)
    if output is None:
        typer.echo(page)
    else:
        output.write_text(f"{page}\n", encoding="utf-8")
        typer.echo(f"{output.name}: {' '.join(found.sentences)}")
    if not found.ok:
        raise typer.Exit(1)


def _page(found: Review, form: Format) -> str:
    if form == "json":
        return json_document(_FIELDS, **document(found))
    return (markdown if form == "markdown" else html)(found).rstrip("\n")


def _check_output(output: Path | None) -> None:
    """Refuse a file that cannot be written, before anything runs.

    Raises:
        CannotRunError: there is no such folder, or it is one.

    """
    if output is not None and (output.is_dir() or not output.resolve().parent.is_dir()):
        raise CannotRunError(f"--output must name a file in an existing folder, not {output}.")


def _error(message: str) -> str:
    return json_document(_FIELDS, error=message)


def _given(database_url: str | None, *, disposable: bool) -> URL | None:
    """Return the database to run on, if one is named.

    GitHub drops an output that contains a masked secret, so that a job's URL comes in hexadecimal,
    in DATABASE_URL_HEX: a branch that was made to be thrown away.

    Raises:
        CannotRunError: it may not be changed, or no session can be kept on its host.

    """
    in_hex = os.environ.get("DATABASE_URL_HEX", "").strip()
    if database_url is None and in_hex:
        try:
            database_url = bytes.fromhex(in_hex).decode()
        except ValueError:
            raise CannotRunError("DATABASE_URL_HEX is no URL in hexadecimal.") from None
        disposable = True
    if database_url is None:
        return None
    url = parse_url(database_url)
    mask(url.password)
    if not disposable:
        raise CannotRunError(
            "A review changes the database that it is given; add --disposable if it may be thrown"
            " away, or leave --database-url out, and one is made."
        )
    if is_pooled(url):
        raise CannotRunError(
            "The URL names Neon's pooled host, which keeps no session; use the direct host, whose"
            " name has no -pooler."
        )
    return url
