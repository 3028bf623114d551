"""Make, reset and delete a branch of ours, whatever a crashed or repeated run has left.

A change whose answer was lost is looked for by name before it is sent again.
"""

import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import quote

from schema.branch import masking
from schema.branch.branches import (
    RESTORE_POINT,
    Branch,
    Kind,
    find,
    kind_of,
    parent_of_new,
    read,
    require_ours,
    require_parent,
)
from schema.branch.database import database_and_owner, database_url
from schema.branch.neon import Answer, Neon, NeonError, Show, UnknownOutcomeError
from schema.errors import CannotRunError

_TRIES = 5


@dataclass(frozen=True)
class Wanted:
    """What a branch should be."""

    name: str
    parent: str | None = None
    """The name or id of its parent; without one, the parent that the branch has."""
    kind: Kind | None = None
    """Without one, what the branch is; a new one needs it."""
    days: int = 7
    database: str | None = None
    """The database that the branch must have; without one, it must have one only."""


class _Request(NamedTuple):
    """The request that creates a branch, and what it is to be."""

    kind: Kind
    parent: Branch
    path: str
    body: Answer


@dataclass(frozen=True)
class Made:
    """A branch that was made or reset."""

    branch: Branch
    kind: Kind
    parent: Branch
    """What it is a copy of; Neon forgets it for a schema-only branch."""


def create(neon: Neon, wanted: Wanted, show: Show) -> Made:
    """Make a branch, or bring the one of that name to its parent's state, as a new one has it.

    One that cannot be reset, or has another parent or kind, is deleted and made anew.

    Raises:
        CannotRunError: the branch is not ours, or Neon refuses; the message says what is left.

    """
    if wanted.name.startswith(RESTORE_POINT):
        raise CannotRunError(
            f"{wanted.name} is a restore point: it has no compute, and is not reset."
        )
    for _ in range(_TRIES):
        try:
            return _create(neon, wanted, show)
        except NeonError as error:
            if error.status != 404:
                raise
            neon.get("branches", limit=1)  # raises if it is the project that is unknown
    raise CannotRunError(f"Another run changes {wanted.name} at the same time; run this again.")


def _create(neon: Neon, wanted: Wanted, show: Show) -> Made:
    show(f"looking for {wanted.name}")
    found = find(neon, wanted.name)
    if found is None:
        if wanted.kind is None:
            # It may be a masked one that another run has taken away a moment ago.
            raise CannotRunError(
                f"There is no branch {wanted.name}. Say what it shall be: --copy, which holds every"
                " row of its parent, --anonymised or --schema-only."
            )
        if wanted.parent is None and wanted.kind == "copy":
            raise CannotRunError(
                "Name the parent with --parent: a copy holds every row of it, and a pull request's"
                " code can read them."
            )
        parent = parent_of_new(neon, wanted.parent)
        require_parent(parent, wanted.name)
        return _make(neon, wanted, _request(neon, wanted, wanted.kind, parent, show), show)
    require_ours(found)
    is_now = kind_of(neon, found)
    kind = wanted.kind or is_now
    if wanted.parent is None and not found.parent:
        raise CannotRunError(
            f"Name the parent of {found.name} again, with --parent: Neon does not keep the parent"
            " of a schema-only branch."
        )
    parent = parent_of_new(neon, wanted.parent or found.parent)
    require_parent(parent, wanted.name)
    wanted = replace(wanted, kind=kind, parent=parent.id)  # whatever other runs do meanwhile
    # A reset of a masked branch would bring its parent's rows back, unmasked.
    if kind == is_now == "copy" and parent.id == found.parent:
        database_and_owner(neon, found, wanted.database)
        return Made(_restore(neon, found, wanted, show), kind, parent)
    request = _request(neon, wanted, kind, parent, show)  # what cannot be asked for deletes nothing
    _remove(neon, found, show)
    try:
        return _make(neon, wanted, request, show)
    except NeonError as error:
        if error.status == 404:
            raise
        raise CannotRunError(
            f"{error} Branch {found.name} was deleted and not made anew; it was: {is_now}."
        ) from error


def reset(neon: Neon, wanted: Wanted, show: Show) -> Made:
    """Bring a branch back to its parent's state; what was done on it is gone.

    Raises:
        CannotRunError: there is no such branch, it is not ours, or Neon refuses.

    """
    if find(neon, wanted.name) is None:
        raise CannotRunError(f"There is no branch {wanted.name}; make it: schema branch create.")
    return create(neon, wanted, show)


def create_restore_point(neon: Neon, parent: str | None, days: int, show: Show) -> Made:
    """Keep the state of a branch as it is now, as a branch without a compute.

    Raises:
        CannotRunError: Neon refuses.

    """
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    # Two in one second must not meet.
    wanted = Wanted(f"{RESTORE_POINT}{now}-{secrets.token_hex(2)}", parent, "restore point", days)
    of = parent_of_new(neon, parent)
    require_parent(of, wanted.name)
    request = _request(neon, wanted, "restore point", of, show)
    return _make(neon, wanted, request, show)


def delete(neon: Neon, name: str, show: Show) -> bool:
    """Delete a branch; return whether there was one.

    Raises:
        CannotRunError: it is not ours, or Neon refuses.

    """
    found = find(neon, name)
    if found is None:
        return False
    require_ours(found)
    _remove(neon, found, show)
    return True


def renew_password(neon: Neon, branch: Branch, database: str | None, show: Show) -> None:
    """Give the database's owner another password on this branch.

    A branch of a parent that is not protected has the parent's passwords.

    Raises:
        CannotRunError: Neon refuses.

    """
    show("a password of its own")
    _, owner = database_and_owner(neon, branch, database)
    path = f"branches/{branch.id}/roles/{quote(owner, safe='')}/reset_password"
    neon.wait(neon.change("POST", path, repeatable=True), show)


def expiry(days: int) -> str:
    """Return the time so many days from now, as Neon reads it."""
    # Neon allows 30 days by its own clock.
    then = datetime.now(UTC) + min(timedelta(days=days), timedelta(days=30, minutes=-5))
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def _remove(neon: Neon, branch: Branch, show: Show) -> None:
    """Delete the branch; one that is gone already is no error."""
    show(f"deleting {branch.name}")
    try:
        neon.wait(neon.change("DELETE", f"branches/{branch.id}", repeatable=True), show)
    except NeonError as error:
        if error.status != 404:
            raise


def _make(neon: Neon, wanted: Wanted, request: _Request, show: Show) -> Made:
    """Create the branch, which did not exist a moment ago."""
    kind = request.kind
    for _ in range(_TRIES):
        show(f"creating {wanted.name}")
        try:
            answer = neon.change("POST", request.path, request.body)
        except UnknownOutcomeError:
            made = find(neon, wanted.name)
            if made is None:
                continue
            if kind != "restore point" and kind_of(neon, made) != kind:  # another run's
                return create(neon, wanted, show)
            answer = {"branch": {"id": made.id}, "operations": _operations(neon, made)}
        except NeonError as error:
            # Another run may have made it in the meantime.
            if error.status not in {409, 422} or find(neon, wanted.name) is None:
                raise
            return create(neon, wanted, show)
        return Made(_finished(neon, answer, wanted, show), kind, request.parent)
    raise CannotRunError(
        f"Neon did not say whether it made {wanted.name}, and it cannot be found; run this again."
    )


def _request(neon: Neon, wanted: Wanted, kind: Kind, parent: Branch, show: Show) -> _Request:
    """Return the request that creates the branch.

    What would be refused later is refused here, before anything is changed.
    """
    branch = {"name": wanted.name, "parent_id": parent.id, "expires_at": expiry(wanted.days)}
    compute: Answer = {} if kind == "restore point" else {"endpoints": [{"type": "read_write"}]}
    if kind == "schema-only":
        branch["init_source"] = "schema-only"
    body: Answer = {"branch": branch} | compute
    plain = _Request(kind, parent, "branches", body)
    if kind == "restore point":
        return plain
    database, _ = database_and_owner(neon, parent, wanted.database)
    if kind == "schema-only":  # its stamp is read there
        database_url(neon, parent, database)
    if kind != "anonymised":
        return plain
    masking.require_declared(database_url(neon, parent, database), show)
    masked = {
        "branch_create": body,
        "masking_rules": masking.rules(database),
        "start_anonymization": True,
    }
    return _Request(kind, parent, "branch_anonymized", masked)


def _finished(neon: Neon, answer: Answer, wanted: Wanted, show: Show) -> Branch:
    """Wait until a new branch is ready, and its rows are masked if that was asked for.

    One whose rows could not be masked is deleted: it holds what its parent holds.
    """
    name, identity = wanted.name, answer["branch"]["id"]
    try:
        neon.wait(answer, show)
        if wanted.kind == "anonymised":
            masking.wait(neon, identity, show)
    except NeonError:  # another run has taken it away
        raise
    except CannotRunError as error:
        left = f"Branch {name} is left; delete it: schema branch delete {name}."
        if isinstance(error, masking.NotMaskedError):
            with suppress(CannotRunError):
                _remove(neon, read(neon, identity), show)
                left = "It was deleted."
        raise CannotRunError(f"{error} {left}") from error
    return read(neon, identity)


def _restore(neon: Neon, branch: Branch, wanted: Wanted, show: Show) -> Branch:
    """Bring the branch to the state that its parent has now."""
    show(f"resetting {branch.name}")
    # Twice is once: it ends at the parent's newest state.
    answer = neon.change(
        "POST",
        f"branches/{branch.id}/restore",
        {"source_branch_id": branch.parent},
        repeatable=True,
    )
    neon.wait(answer, show)
    body = {"branch": {"expires_at": expiry(wanted.days)}}
    neon.wait(neon.change("PATCH", f"branches/{branch.id}", body, repeatable=True), show)
    _require_compute(neon, branch, show)
    return read(neon, branch.id)


def _require_compute(neon: Neon, branch: Branch, show: Show) -> None:
    """Give the branch a compute unless it has one: somebody may have deleted it."""
    for _ in range(_TRIES):
        endpoints = neon.get(f"branches/{branch.id}/endpoints")["endpoints"]
        if any(one["type"] == "read_write" for one in endpoints):
            return
        body = {"endpoint": {"branch_id": branch.id, "type": "read_write"}}
        try:
            neon.wait(neon.change("POST", "endpoints", body), show)
        except UnknownOutcomeError:
            continue
        return


def _operations(neon: Neon, branch: Branch) -> list[Answer]:
    """List a new branch's operations: the answer that named them was lost."""
    return [
        one for one in neon.pages("operations", "operations") if one.get("branch_id") == branch.id
    ]
