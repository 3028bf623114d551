"""The branches of a project that this command made; it never changes another one."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from schema.branch.neon import Answer, Neon, NeonError, understood
from schema.errors import CannotRunError

PREFIX = "schema-"
"""What the names of our branches begin with. Every other branch belongs to somebody else."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,50}")
_PULL_REQUEST = re.compile(rf"{PREFIX}pr-([1-9][0-9]*)")

type Kind = Literal["copy", "schema-only", "anonymised", "restore point"]
"""A copy of its parent; its schema without rows; a copy with masked secrets; a copy to keep."""

RESTORE_POINT = f"{PREFIX}restore-"


@dataclass(frozen=True)
class Branch:
    """A branch, as Neon describes it."""

    id: str
    name: str
    parent: str
    """The id of its parent; "" for a root, as a schema-only branch is."""
    state: str
    default: bool
    protected: bool
    expires_at: datetime | None
    created_at: datetime
    lsn: str
    """The place in its parent's log at which it was made; "" if Neon does not say."""
    kind: Kind

    @property
    def pull_request(self) -> int | None:
        """The number of the pull request that it is for."""
        found = _PULL_REQUEST.fullmatch(self.name)
        return int(found[1]) if found else None


def branch_name(name: str | None, pull_request: int | None) -> str:
    """Return the full name of a branch of ours: for a pull request, or a name of one's own.

    Raises:
        CannotRunError: both or neither is given, or the name cannot be one.

    """
    if name is None and pull_request is None:
        raise CannotRunError("Give the branch a name, or the number of a pull request with --pr.")
    if name is None:
        return f"{PREFIX}pr-{pull_request}"
    if pull_request is not None:
        raise CannotRunError("Give the branch a name or --pr, not both.")
    if name.isdecimal():
        raise CannotRunError(f"A number is a pull request's: --pr {name}.")
    short = name.removeprefix(PREFIX)
    if not _NAME.fullmatch(short):
        raise CannotRunError(
            "A branch's name has lower-case letters, digits and hyphens, 51 at most."
        )
    return PREFIX + short


def all_branches(neon: Neon) -> list[Branch]:
    """List the project's branches, by name."""
    found = (_read(one) for one in neon.pages("branches", "branches"))
    return sorted(found, key=lambda one: one.name)


def find(neon: Neon, name: str) -> Branch | None:
    """Return the branch of that name or id; None if there is none.

    Raises:
        CannotRunError: several have that name.

    """
    branches = (_read(one) for one in neon.pages("branches", "branches", search=name))
    # One that another run touches may be listed on two pages.
    found = list({one.id: one for one in branches if name in {one.name, one.id}}.values())
    if len(found) > 1:
        raise CannotRunError(f"Several branches are called {name}; rename one in the console.")
    return found[0] if found else None


def read(neon: Neon, branch_id: str) -> Branch:
    """Read a branch as it is now."""
    return _read(neon.get(f"branches/{branch_id}")["branch"])


def parent_of_new(neon: Neon, name: str | None) -> Branch:
    """Return the branch of that name or id, or without one the project's default branch.

    Raises:
        CannotRunError: there is no such branch.

    """
    if name is not None:
        require_no_url(name)
        found = find(neon, name)
        if found is None:
            names = ", ".join(sorted(one.name for one in all_branches(neon)))
            raise CannotRunError(
                f"The project has no branch {printable(name)} to be the parent; it has"
                f" {printable(names)}."
            )
        return found
    for branch in all_branches(neon):
        if branch.default:
            return branch
    raise CannotRunError("The project names no default branch; name a parent with --parent.")


def require_no_url(name: str) -> None:
    """Raise CannotRunError for a database URL, which may hold a password, in a name's place."""
    if "://" in name:
        raise CannotRunError("A database URL stands where a name belongs; nothing was done.")


def printable(name: str) -> str:
    """Return a name that anybody may have chosen, without what a terminal would obey."""
    return "".join(one if one.isprintable() else "\ufffd" for one in name)


def require_ours(branch: Branch) -> None:
    """Raise CannotRunError unless the branch is ours, and neither default nor protected."""
    why = (
        "it was not made by this command"
        if not branch.name.startswith(PREFIX)
        else "it is the project's default branch"
        if branch.default
        else "it is protected"
        if branch.protected
        else ""
    )
    if why:
        raise CannotRunError(f"Branch {branch.name} stays as it is: {why}.")


def require_parent(parent: Branch, name: str) -> None:
    """Raise CannotRunError if Neon would refuse the parent: before anything is deleted."""
    if parent.name == name:
        raise CannotRunError(f"Branch {name} cannot be its own parent.")
    if parent.expires_at is not None:
        raise CannotRunError(
            f"Branch {parent.name} expires itself and cannot be a parent; choose one that does not."
        )


def kind_of(neon: Neon, branch: Branch) -> Kind:
    """Return the kind of a branch, and ask Neon whether a copy is masked."""
    if branch.kind != "copy":
        return branch.kind
    try:
        neon.get(f"branches/{branch.id}/anonymized_status")
    except NeonError as error:
        if error.status != 404:
            raise
        return "copy"
    return "anonymised"


def _read(answer: Answer) -> Branch:
    """Read a branch; `understood` says what happens to an answer that is none."""
    with understood():
        return _branch(answer)


def _branch(answer: Answer) -> Branch:
    expires = answer.get("expires_at")
    return Branch(
        id=answer["id"],
        name=answer["name"],
        parent=answer.get("parent_id") or "",
        state=answer["current_state"],
        default=answer["default"],
        protected=answer["protected"],
        expires_at=datetime.fromisoformat(expires) if expires else None,
        created_at=datetime.fromisoformat(answer["created_at"]),
        lsn=answer.get("parent_lsn") or "",
        kind=_kind(answer),
    )


def _kind(answer: Answer) -> Kind:
    """Tell the kind from what Neon lists: it restricts the restore of a masked branch."""
    if answer["name"].startswith(RESTORE_POINT):
        return "restore point"
    if answer.get("init_source") == "schema-only":
        return "schema-only"
    restricted = {one.get("name", "") for one in answer.get("restricted_actions") or ()}
    return "anonymised" if "restore" in restricted else "copy"
