"""What a pull request adds: its revisions, and the commit that it is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alembic.script import Script, ScriptDirectory

from schema.errors import CannotRunError
from schema.project import REVISIONS_DIR, ROOT, scripts
from schema.review.declarations import EXAMPLES, declared
from schema.revisions.history import is_linear, revisions_oldest_first
from schema.revisions.merged import NotComparableError, git, merge_base


@dataclass(frozen=True)
class PullRequest:
    """The revisions of this checkout that its base does not have."""

    base: str
    """The commit."""
    scripts: ScriptDirectory
    merged: Sequence[Script]
    """The revisions that the base has, oldest first."""
    new: Sequence[Script]
    """The others, oldest first; they stand behind the merged ones."""

    @property
    def below(self) -> str | None:
        """The revision before the new ones."""
        return self.merged[-1].revision if self.merged else None


def read_pull_request(ref: str | None) -> PullRequest:
    """Find the new revisions: those whose files are not in the merge base with `ref`.

    Without `ref`, the main branch is meant. Files that git does not know yet count.

    Raises:
        CannotRunError: git cannot tell, or the new revisions do not stand behind the others.

    """
    if ref is not None and ref.startswith("-"):
        raise CannotRunError("--base must name a branch, a tag or a commit.")
    try:
        base = merge_base() if ref is None else git("merge-base", "HEAD", ref).strip()
        listed = git("ls-tree", "--name-only", base, "--", f"{_relative(REVISIONS_DIR)}/")
    except NotComparableError as error:
        what = "the main branch" if ref is None else "--base"
        raise CannotRunError(
            f"The commit to compare with cannot be found from {what}: {error}."
        ) from error
    directory = scripts()
    if not is_linear(directory):
        raise CannotRunError(
            "The revisions cannot be read as one line; run schema check, which says why."
        )
    merged_files = {Path(line).name for line in listed.splitlines()}
    ordered = revisions_oldest_first(directory)
    new = [one for one in ordered if Path(one.path).name not in merged_files]
    merged = ordered[: len(ordered) - len(new)]
    if new and ordered[len(merged) :] != new:
        raise CannotRunError(
            "A new revision stands before one that the base has; run schema rebase."
        )
    for revision in new:
        for what in EXAMPLES:  # refused before anything runs
            declared(revision, what)
    return PullRequest(base, directory, merged, new)


def text_at(commit: str, path: Path) -> str | None:
    """Return a file as the commit has it; None if it has none."""
    try:
        return git("show", f"{commit}:{_relative(path)}")
    except NotComparableError:
        return None


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
