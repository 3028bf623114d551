"""Merged revisions are immutable: a database that ran the old text will not run it again."""

import os
from collections.abc import Iterator
from pathlib import Path

from schema.checks.result import Failure
from schema.project import REVISIONS_DIR
from schema.revisions.merged import NotComparableError, git, merge_base


def check() -> tuple[list[Failure], str]:
    """Compare the revision files with the merged ones.

    Returns the failures, and the reason why nothing could be compared ("" if it could). If nothing
    could be compared, the check fails only if CI is set.
    """
    try:
        return list(_changed(merge_base())), ""
    except NotComparableError as error:
        if not os.environ.get("CI"):
            return [], str(error)
        message = f"Merged revisions cannot be compared: {error}."
        remedy = "Give the job the whole history: fetch-depth: 0 in actions/checkout."
        return [Failure(message, remedy)], str(error)


def _changed(base: str) -> Iterator[Failure]:
    changes = git("diff", "--name-status", "--no-renames", base, "--", str(REVISIONS_DIR))
    for line in changes.splitlines():
        status, _, name = line.partition("\t")
        if status != "A" and name.endswith(".py"):
            verb = "was deleted" if status == "D" else "has changed"
            yield Failure(
                f"{Path(name).name} {verb} since it was merged ({base[:10]}).",
                f"Restore it (git checkout {base[:10]} -- {name}) and write a new revision:"
                " databases that ran the old text will not run it again.",
            )
