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
    # A command is one line, and the log is UTF-8.
    plain = secret.strip().encode("utf-8", "replace").decode()
    for text in {*plain.splitlines(), quote(plain, safe="")}:
        if text.strip():
            typer.echo(f"::add-mask::{text.replace('%', '%25')}", err=True)
