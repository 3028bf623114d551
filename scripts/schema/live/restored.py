"""A database that was restored without its own privileges.

pg_dump writes the privileges and settings of the database itself only with --create, and pg_restore
applies them only with --create.
"""

from collections.abc import Iterator

from migrations.snapshot import Snapshot
from schema.ddl.definition import privileges
from schema.live.difference import Difference, Severity

_DATABASE = "database"
_TO = "grant to "
_PUBLIC = "PUBLIC"
_DEFAULT = {"CONNECT", "TEMPORARY"}
"""PUBLIC's privileges on a new database."""


def restored_without_acl(expected: Snapshot, found: Snapshot, database: str) -> Difference | None:
    """Recognise that the database has nothing of its own that `expected` has, but defaults.

    `database` is its name, without quotes. None if it has other facts of its own too, or if
    `expected` has the defaults.
    """
    before, after = (_facts(snapshot) for snapshot in (expected, found))
    public = _privileges(before, _PUBLIC)
    if _privileges(after, _PUBLIC) != _DEFAULT or len(after) != 1 or public == _DEFAULT:
        return None
    return Difference(
        object=_DATABASE,
        part=f"{_TO}{_PUBLIC}",
        was=before.get(f"{_TO}{_PUBLIC}"),
        found=after[f"{_TO}{_PUBLIC}"],
        severity=Severity.ISOLATION,
        sentence="the database was probably restored without its own privileges"
        " (pg_restore without --create loses them)",
        sql="; ".join(_statements(before, database)),
    )


def _facts(snapshot: Snapshot) -> dict[str, str]:
    return {fact.part: fact.definition for fact in snapshot if fact.object == _DATABASE}


def _privileges(facts: dict[str, str], grantee: str) -> set[str]:
    return privileges(facts.get(f"{_TO}{grantee}"))


def _statements(before: dict[str, str], database: str) -> Iterator[str]:
    """Yield statements that bring the privileges back."""
    quoted = '"{}"'.format(database.replace('"', '""'))
    revoked = ", ".join(sorted(_DEFAULT - _privileges(before, _PUBLIC)))
    if revoked:
        yield f"REVOKE {revoked} ON DATABASE {quoted} FROM PUBLIC"
    for part in before:
        grantee = part.removeprefix(_TO)
        granted = _privileges(before, grantee) - (_DEFAULT if grantee == _PUBLIC else set())
        # Grants with the grant option or by other roles are written in another form.
        if part.startswith(_TO) and granted and all(one.isalpha() for one in granted):
            yield f"GRANT {', '.join(sorted(granted))} ON DATABASE {quoted} TO {grantee}"
