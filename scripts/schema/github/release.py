"""A release on GitHub, with the wheel attached."""

import os
from pathlib import Path

from schema.errors import CannotRunError
from schema.github.api import GitHub


def publish(github: GitHub, tag: str, folder: Path) -> str:
    """Make the release of a tag, with the wheel and the notes of a folder; return its address.

    Raises:
        CannotRunError: something is missing, or GitHub refuses.

    """
    wheels = sorted(folder.glob("*.whl"))
    notes = folder / "notes.md"
    if len(wheels) != 1 or not notes.is_file():
        raise CannotRunError(f"{folder} does not hold one wheel and notes.md: schema release.")
    body = {"tag_name": tag, "name": tag, "body": notes.read_text(encoding="utf-8"), "draft": True}
    if commit := os.environ.get("GITHUB_SHA"):  # should the tag be gone by now, it is made there
        body["target_commitish"] = commit
    made = github.change("POST", "releases", body)
    upload = str(made["upload_url"]).partition("{")[0]
    github.upload(upload, wheels[0])
    # A draft until the wheel is there: no release is seen without it.
    return str(github.change("PATCH", f"releases/{made['id']}", {"draft": False})["html_url"])
