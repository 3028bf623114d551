"""What GitHub's runner understands in a job's output."""

import os
from urllib.parse import quote

import typer


def mask(secret: str | None) -> None:
    """Tell GitHub's log to show *** instead: as it is, and as it stands in a URL.

    The runner reads such commands on standard error too, and standard output may be captured.
    """
    if os.environ.get("GITHUB_ACTIONS") != "true" or not secret:
        return
    for text in {secret.strip(), quote(secret.strip(), safe="")}:
        typer.echo(f"::add-mask::{text.replace('%', '%25')}", err=True)
