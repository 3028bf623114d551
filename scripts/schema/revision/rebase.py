"""Put this branch's revisions behind the main branch's head, and write the generated files anew.

Two people who each added a revision to the same head meet when the second one merges: the history
then has two heads, and git conflicts in the generated files. The revisions that are not merged yet
move; the merged ones stay as they are.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from schema.errors import CannotRunError
from schema.generate import files, models_readme
from schema.postgres.scratch import Server
from schema.project import (
    FINGERPRINTS,
    MODELS_README,
    REVISIONS_DIR,
    ROOT,
    SNAPSHOT,
    VERSION,
)
from schema.revision.files import NAME, later
from schema.revisions.history import identifiers, place_of_parent
from schema.revisions.merged import NotComparableError, git, main_branches

_CONFLICT = re.compile(r"^(<{7}|>{7})( |$)", re.MULTILINE)


@dataclass(frozen=True)
class _Own:
    """A revision of this branch."""

    path: Path
    revision: str
    parent: str


def rebase(server: Server) -> str:
    """Move the unmerged revisions, write the generated files, and say what was done.

    Nothing is changed if it is refused.

    Raises:
        CannotRunError: git cannot tell what is merged, the main branch was not merged into this
            one, a file that people write has conflicts, or the history does not build.

    """
    try:
        branch, *others = main_branches()
        names = [
            name
            for one in (branch, *others)
            for name in git("ls-tree", "--name-only", one, f"{REVISIONS_DIR}/").splitlines()
            if one == branch or (REVISIONS_DIR / Path(name).name).exists()
        ]
    except NotComparableError as error:
        raise CannotRunError(f"The merged revisions cannot be found: {error}.") from error
    merged = {Path(name).name for name in names if name.endswith(".py")}
    _refuse_conflicts(branch, merged)
    own = [path for path in sorted(REVISIONS_DIR.glob("*.py")) if path.name not in merged]
    head = _head([REVISIONS_DIR / name for name in merged], branch)
    before = {
        path: path.read_bytes() for path in (*own, SNAPSHOT, FINGERPRINTS, VERSION, MODELS_README)
    }
    try:
        return _rebase(server, branch, _in_order(own), head, max(merged, default=""))
    except BaseException:
        for path in REVISIONS_DIR.glob("*.py"):
            if path.name not in merged and path not in before:
                path.unlink()  # one of these, by its new name
        for path, content in before.items():
            path.write_bytes(content)
        raise


def _rebase(server: Server, branch: str, own: list[_Own], head: str | None, last: str) -> str:
    moved = list(_move(own, head, last))
    for path in (SNAPSHOT, FINGERPRINTS, VERSION):
        if _CONFLICT.search(files.read(path)):
            text = git("show", f"{branch}:{files.name(path)}")
            path.write_text(text, encoding="utf-8")
            moved.append(f"{files.name(path)}: the conflict is resolved; it is written anew.")
    if _CONFLICT.search(files.read(MODELS_README)):
        moved.append(f"{files.name(MODELS_README)}: the generated part is written anew.")
    changed = files.rewrite(server)
    said = "".join(f"{line}\n" for line in moved)
    if not said and not changed:
        return f"Nothing to do: the revisions follow {branch}, and every file is up to date.\n"
    return (
        f"{said}{changed}Run scripts/check, then git add and commit. A development database that"
        " has run these revisions must be built anew: restart schema serve.\n"
    )


def _refuse_conflicts(branch: str, merged: set[str]) -> None:
    """Refuse what only a person can resolve."""
    written = files.read(MODELS_README).partition(models_readme.BEGIN)[0]
    conflicts = [
        files.name(path)
        for path in (*sorted(REVISIONS_DIR.glob("*.py")), *sorted((ROOT / "models").glob("*.py")))
        if path != VERSION and _CONFLICT.search(files.read(path))
    ]
    if _CONFLICT.search(written):
        conflicts.append(f"{files.name(MODELS_README)}, above the generated part")
    if conflicts:
        raise CannotRunError(
            f"Resolve the conflicts in {', '.join(conflicts)} first: people have written them."
        )
    missing = sorted(name for name in merged if not (REVISIONS_DIR / name).exists())
    if missing:
        raise CannotRunError(
            f"{branch} has revisions that this branch has not ({', '.join(missing)}); merge it"
            f" first: git merge {branch}."
        )


def _head(paths: Sequence[Path], branch: str) -> str | None:
    """Return the head of the merged revisions; None if there is none."""
    found = [identifiers(path) for path in paths]
    parents = {parent for _, above in found for parent in above}
    heads = [revision for revision, _ in found if revision not in parents]
    if len(heads) > 1:
        raise CannotRunError(
            f"{branch} itself has {len(heads)} heads ({', '.join(sorted(heads))}); fix it there."
        )
    return heads[0] if heads else None


def _in_order(paths: Sequence[Path]) -> list[_Own]:
    """Sort this branch's revisions: a revision after its parent, otherwise by name."""
    left = []
    for path in paths:
        try:
            revision, parents = identifiers(path)
        except (SyntaxError, ValueError) as error:
            raise CannotRunError(f"{path.name} cannot be read ({error}); fix it first.") from error
        if len(parents) > 1:
            raise CannotRunError(
                f"{path.name} merges two lines of history; delete it: after a rebase there is one."
            )
        left.append(_Own(path, revision, parents[0] if parents else ""))
    ordered: list[_Own] = []
    while left:
        waiting = {one.revision for one in left}
        ready = next((one for one in left if one.parent not in waiting), None)
        if ready is None:
            raise CannotRunError("The revisions of this branch follow each other in a circle.")
        ordered.append(ready)
        left.remove(ready)
    return ordered


def _move(own: Sequence[_Own], parent: str | None, last: str) -> Iterator[str]:
    """Give each revision its new parent, and a name that sorts after it; say so."""
    for one in own:
        if one.parent != (parent or ""):
            _set_parent(one.path, "None" if parent is None else f'"{parent}"')
            yield f"{one.path.name} follows {parent} now, and no longer {one.parent or 'nothing'}."
        path = one.path
        match = NAME.fullmatch(path.name)
        if match is not None and path.name < last:
            path = path.with_name(f"{later(last)}_{match['rest']}")
            one.path.rename(path)
            yield f"{one.path.name} is called {path.name} now."
        last = max(last, path.name)
        parent = one.revision


def _set_parent(path: Path, value: str) -> None:
    """Replace the value of `down_revision`, and nothing else."""
    start, end = place_of_parent(path)
    text = path.read_bytes()
    path.write_bytes(text[:start] + value.encode() + text[end:])
