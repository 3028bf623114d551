"""One issue about drift: opened, brought up to date, or closed."""

from typing import Any

from schema.github.api import GitHub

LABEL = "schema-drift"
TITLE = "The database differs from the committed history"


def report(github: GitHub, body: str | None) -> str:
    """Open the issue or bring it up to date; with None, close it. Return what was done.

    Raises:
        CannotRunError: GitHub cannot be reached, or refuses.

    """
    known = _open_issue(github)
    if body is None:
        if known is None:
            return "There is no drift, and no issue about it."
        github.change("PATCH", f"issues/{known['number']}", {"state": "closed"})
        return f"There is no drift any more; closed {known['html_url']}."
    if known is None:
        made = github.change("POST", "issues", {"title": TITLE, "body": body, "labels": [LABEL]})
        return f"Opened {made['html_url']}."
    if known["body"] != body:
        github.change("PATCH", f"issues/{known['number']}", {"body": body})
        return f"Brought {known['html_url']} up to date."
    return f"{known['html_url']} says it already."


def _open_issue(github: GitHub) -> dict[str, Any] | None:
    found = github.get("issues", state="open", labels=LABEL, per_page=100)
    return next((one for one in found if "pull_request" not in one), None)
