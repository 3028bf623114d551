"""How what each role can see and do changes: two readings of one database, compared.

The rows that were there before count: which of them a role reaches now, and could not, or the
reverse. A new table gives nothing of those away; but what every role may do on one, PUBLIC, is
told, and one whose rows belong to users, and reach a role for any user, that is limited elsewhere.
"""

from collections.abc import Iterator

from schema.review.access.attempts import SAMPLE
from schema.review.access.functions import UNDECIDED
from schema.review.access.trial import STRANGER, TO_ANOTHER, Access
from schema.review.result import AccessChange

PUBLIC = "PUBLIC"

_COMMANDS = ("SELECT", "INSERT", "UPDATE", "DELETE")

_USERS = {"user", "users"}


def changes(before: Access, after: Access) -> tuple[AccessChange, ...]:
    """Compare two readings: what is wider, then what is narrower.

    What a statement on rows showed stands for what the catalogs say of it, and what PUBLIC gains or
    loses for what each role does by that.
    """
    tried = [*_of_rows(before, after), *_of_given(before, after), *_of_new_tables(before, after)]
    shown = {_place(one) for one in tried}
    read = [*_of_privileges(before, after), *_of_others(before, after)]
    found = [*tried, *(one for one in read if _place(one) not in shown)]
    public = {_place(one)[1:] for one in found if one.role == PUBLIC}
    kept = [one for one in found if one.role == PUBLIC or _place(one)[1:] not in public]
    return tuple(sorted(kept, key=lambda one: (not one.widened, one.object, one.role, one.command)))


def _place(one: AccessChange) -> tuple[str, str, str, bool]:
    return one.role, one.object, one.command, one.widened


def _roles(before: Access, after: Access) -> Iterator[tuple[str, str, str]]:
    """Yield each role's name, and who it was before and after: a new one was a stranger."""
    for role in sorted({*before.roles, *after.roles}):
        yield (
            PUBLIC if role == STRANGER else role,
            role if role in before.roles else STRANGER,
            role if role in after.roles else STRANGER,
        )


def _of_rows(before: Access, after: Access) -> Iterator[AccessChange]:
    """Compare which of the rows of before each role reaches."""
    for role, then, now in _roles(before, after):
        for oid in sorted(before.rows.keys() & after.rows.keys()):
            both = before.rows[oid] & after.rows[oid]
            off = oid in before.secured - after.secured
            unsecured = ", without row security" if off else ""
            for command in (*_COMMANDS, *((TO_ANOTHER,) if oid in before.owners else ())):
                old = _known(before.reached.get((then, oid, command), frozenset()), both)
                new = _known(after.reached.get((now, oid, command), frozenset()), both)
                of = min(len(both), SAMPLE) if command == "INSERT" else len(both)
                for changed, widened in ((new - old, True), (old - new, False)):
                    if changed:
                        yield AccessChange(
                            role=role,
                            object=after.names[oid],
                            command=command,
                            before=_number(old, of),
                            after=_number(new, of) + unsecured,
                            widened=widened,
                            tried=True,
                        )


def _known(reached: frozenset[str], both: frozenset[str]) -> frozenset[str]:
    """Leave the rows that exist in both; those of which only the number is known, too."""
    return frozenset(row for row in reached if row in both or row.startswith("#"))


def _number(reached: frozenset[str], of: int) -> str:
    if not reached:
        return "no rows"
    return "all rows" if len(reached) >= of else f"{len(reached)} of {of} rows"


def _of_privileges(before: Access, after: Access) -> Iterator[AccessChange]:
    """Compare privileges on relations and columns that exist in both; PUBLIC's on new ones too."""
    for role, then, now in _roles(before, after):
        old = {(oid, number, what) for who, oid, number, what in before.privileges if who == then}
        new = {(oid, number, what) for who, oid, number, what in after.privileges if who == now}
        gained = {
            (oid, number, what)
            for oid, number, what in new - old
            if _existed(before, oid, number) or (role == PUBLIC and oid not in before.names)
        }
        lost = {
            (oid, number, what) for oid, number, what in old - new if _existed(after, oid, number)
        }
        yield from _told(role, gained, after, widened=True)
        yield from _told(role, lost, before, widened=False)


def _existed(access: Access, oid: int, number: int) -> bool:
    return (oid, number) in access.columns if number else oid in access.names


def _told(
    role: str, changed: set[tuple[int, int, str]], access: Access, *, widened: bool
) -> Iterator[AccessChange]:
    """Tell a privilege once for a relation, with its columns if it is not on all."""
    for oid, what in sorted({(oid, what) for oid, _, what in changed}):
        numbers = {number for there, number, each in changed if (there, each) == (oid, what)}
        everything = {number for there, number in access.columns if there == oid}
        columns = [access.columns[oid, number] for number in sorted(numbers - {0})]
        of = "" if numbers in ({0}, everything) else f" of {', '.join(columns)}"
        yield _by_catalog(role, access.names[oid], what + of, widened=widened)


def _of_others(before: Access, after: Access) -> Iterator[AccessChange]:
    for role, then, now in _roles(before, after):
        old = {(thing, what) for who, thing, what in before.others if who == then}
        new = {(thing, what) for who, thing, what in after.others if who == now}
        for thing, what in sorted(new - old):
            yield _by_catalog(role, thing, what, widened=True)
        for thing, what in sorted(old - new):
            yield _by_catalog(role, thing, what, widened=False)


def _by_catalog(role: str, name: str, command: str, *, widened: bool) -> AccessChange:
    was, now = ("no", "yes") if widened else ("yes", "no")
    return AccessChange(role, name, command, was, now, widened, tried=False)


def _of_given(before: Access, after: Access) -> Iterator[AccessChange]:
    """Compare what views and functions give beyond what their caller reaches."""
    for place in sorted({*before.given, *after.given}):
        was, now = before.given.get(place, ""), after.given.get(place, "")
        if _weight(was) != _weight(now):
            role, thing, command = place
            yield AccessChange(
                role=PUBLIC if role == STRANGER else role,
                object=thing,
                command=command,
                before=was or "nothing",
                after=now or "nothing",
                widened=_weight(now) > _weight(was),
                tried=True,
            )


def _weight(words: str) -> int:
    """Order what is given: nothing, what is not known, something."""
    return 0 if not words else 1 if words == UNDECIDED else 2


def _of_new_tables(before: Access, after: Access) -> Iterator[AccessChange]:
    """Tell new tables with rows of users that a role reaches for any user.

    Only for a role that is limited elsewhere: others work on everybody's rows anyway.
    """
    for role, then, now in _roles(before, after):
        limited = {oid for who, oid in before.limited if who == then}
        for oid in sorted(after.rows.keys() - before.names.keys()) if limited else ():
            if not _of_users(after, oid, limited):
                continue
            may = {what for who, there, _, what in after.privileges if (who, there) == (now, oid)}
            for command in _COMMANDS:
                secured = oid in after.secured
                if command in may and (not secured or (now, oid, command) in after.shared):
                    yield AccessChange(
                        role, after.names[oid], command, "no table", "all users' rows", True, True
                    )


def _of_users(access: Access, oid: int, limited: set[int]) -> bool:
    """Whether rows belong to users: by a column, a foreign key, or as a copy of such a table."""
    if access.owners.get(oid) == "user_id":  # a name after another setting may mean less
        return True
    targets = {target for source, target in access.references if source == oid}
    if targets & limited or any(access.names.get(target) in _USERS for target in targets):
        return True
    mine = _column_names(access, oid)
    return any(mine >= (theirs := _column_names(access, other)) and theirs for other in limited)


def _column_names(access: Access, oid: int) -> set[str]:
    return {name for (there, _), name in access.columns.items() if there == oid}
