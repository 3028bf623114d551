"""What the roles of the corpus may do and see, tried on its rows."""

from dataclasses import dataclass
from typing import Any

import psycopg

from tests.review.labels import script, statements

APPLICATION = "review_app"
ROLES = [APPLICATION, "review_support", "review_stranger"]
"""The last one has no privileges of its own, and stands for PUBLIC."""

type Session = psycopg.Connection[tuple[Any, ...]]
type Privilege = tuple[str, int, int, str]
"""A role, a relation, the number of a column or 0, and the privilege."""

_PRIVILEGES = """
SELECT r.name, c.oid, 0, p.name
FROM unnest(%(roles)s::text[]) AS r(name), pg_class AS c,
  unnest('{DELETE,TRUNCATE,TRIGGER}'::text[]) AS p(name)
WHERE c.oid = ANY (%(oids)s::oid[]) AND c.relkind IN ('r', 'p', 'v', 'm')
  AND has_table_privilege(r.name, c.oid, p.name)
UNION ALL
SELECT r.name, a.attrelid, a.attnum, p.name
FROM unnest(%(roles)s::text[]) AS r(name), pg_attribute AS a, pg_class AS c,
  unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) AS p(name)
WHERE c.oid = ANY (%(oids)s::oid[]) AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attrelid = c.oid
  AND a.attnum > 0 AND NOT a.attisdropped AND has_column_privilege(r.name, c.oid, a.attnum, p.name)
"""
_COLUMNS = """
SELECT attrelid, attnum FROM pg_attribute
WHERE attrelid = ANY (%(oids)s::oid[]) AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT oid, 0 FROM pg_class WHERE oid = ANY (%(oids)s::oid[])
"""
_NEW_VIEWS = """
SELECT oid::regclass::text, pg_get_viewdef(oid) FROM pg_class
WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace AND oid <> ALL (%s::oid[])
"""
_NEW_FUNCTIONS = """
SELECT p.oid::regproc::text FROM pg_proc AS p
WHERE p.pronamespace = 'public'::regnamespace AND p.pronargs = 0 AND p.proretset AND p.prosecdef
"""


@dataclass(frozen=True)
class Access:
    """What the roles may do with the relations that existed before, and see of them."""

    columns: frozenset[tuple[int, int]]
    """The columns that exist; 0 stands for the relation."""
    privileges: frozenset[Privilege]
    visible: dict[tuple[str, int], int]
    """For each role and relation: 0 for no rows, 1 for some of them, 2 for all."""


def read(opened: Session, oids: list[int]) -> Access:
    """Read the privileges on these relations, and try which rows are visible."""
    parameters = {"roles": ROLES, "oids": oids}
    names = opened.execute(
        "SELECT oid, oid::regclass::text FROM pg_class"
        " WHERE oid = ANY (%s::oid[]) AND relkind IN ('r', 'p', 'v', 'm')",
        [oids],
    ).fetchall()
    visible = {}
    for oid, name in names:
        query = f"SELECT count(*) FROM {name}"
        total = _count(opened, query, None)
        for role in ROLES:
            seen = _count(opened, query, role)
            visible[role, oid] = 0 if seen <= 0 else 1 if seen < total else 2
    return Access(
        columns=frozenset(opened.execute(_COLUMNS, parameters).fetchall()),
        privileges=frozenset(opened.execute(_PRIVILEGES, parameters).fetchall()),
        visible=visible,
    )


def changes(opened: Session, before: Access, oids: list[int]) -> frozenset[str]:
    """Return `widened` and `narrowed`, if it was, compared with before."""
    after = read(opened, oids)
    gained = {one for one in after.privileges - before.privileges if one[1:3] in before.columns}
    lost = {one for one in before.privileges - after.privileges if one[1:3] in after.columns}
    both = [(before.visible[one], seen) for one, seen in after.visible.items()]
    found = set()
    if gained or any(seen > was for was, seen in both) or _given_away(opened, oids):
        found.add("widened")
    if lost or any(seen < was for was, seen in both):
        found.add("narrowed")
    return frozenset(found)


def broken(opened: Session) -> list[str]:
    """Return the statements of application.sql that fail."""
    return [sql for sql in statements(script("application.sql")) if _fails(opened, sql)]


def _fails(opened: Session, sql: str) -> bool:
    with opened.transaction(force_rollback=True):
        opened.execute(f"SET LOCAL ROLE {APPLICATION}; SET LOCAL app.account = '1'".encode())
        try:
            opened.execute(sql.encode())
        except psycopg.Error:
            return True
    return False


def _count(opened: Session, query: str, role: str | None) -> int:
    """Run a query that counts as a role, or as the owner; -1 if the role may not."""
    with opened.transaction(force_rollback=True):
        if role:
            opened.execute(f"SET LOCAL ROLE {role}; SET LOCAL app.account = '1'".encode())
        try:
            return int(opened.execute(query.encode()).fetchall()[0][0])
        except psycopg.Error:
            return -1


def _given_away(opened: Session, oids: list[int]) -> bool:
    """Whether a new view or function shows more than its reader sees without it."""
    for name, definition in opened.execute(_NEW_VIEWS, [oids]).fetchall():
        itself = f"SELECT count(*) FROM {name}"
        direct = f"SELECT count(*) FROM ({definition.rstrip(';')}) AS it"
        if any(_count(opened, itself, role) > _count(opened, direct, role) for role in ROLES):
            return True
    for (name,) in opened.execute(_NEW_FUNCTIONS).fetchall():
        query = f"SELECT count(*) FROM {name}()"
        definer = [_count(opened, query, role) for role in ROLES]
        opened.execute(f"ALTER FUNCTION {name}() SECURITY INVOKER".encode())
        invoker = [_count(opened, query, role) for role in ROLES]
        if any(seen > own for seen, own in zip(definer, invoker, strict=True)):
            return True
    return False
