"""How what each role can see and do changes: two readings of one database, compared.

The rows that were there before count: which of them a role reaches now, and could not, or the
reverse. What belongs to a new table gives nothing of those away; but what every role may do on one,
PUBLIC, is told.
"""

from collections.abc import Iterator

from schema.review.access.trial import SAMPLE, STRANGER, Access
from schema.review.result import AccessChange

PUBLIC = "PUBLIC"

_COMMANDS = ("SELECT", "INSERT", "UPDATE", "DELETE")


def changes(before: Access, after: Access) -> tuple[AccessChange, ...]:
    """Compare two readings: what is wider, then what is narrower.

    What a statement on rows showed stands for what the catalogs say of it, and what PUBLIC gains or
    loses for what each role does by that.
    """
    tried = [*_of_rows(before, after), *_of_given(before, after)]
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
            for command in _COMMANDS:
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
                            after=_number(new, of),
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
    for role, thing in sorted({*before.given, *after.given}):
        was, now = before.given.get((role, thing), ""), after.given.get((role, thing), "")
        if bool(was) != bool(now):
            yield AccessChange(
                role=PUBLIC if role == STRANGER else role,
                object=thing,
                command="SELECT" if thing.startswith("view ") else "EXECUTE",
                before=was or "nothing",
                after=now or "nothing",
                widened=bool(now),
                tried=True,
            )
