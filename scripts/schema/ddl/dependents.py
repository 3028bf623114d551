"""What depends on a changed object and stands in the way of its change: views, policies, triggers.

PostgreSQL changes no type of a column that a view shows, and drops no function that a policy calls.
Such a dependent object is dropped first; the comparison with the target then makes it again.
"""

from collections.abc import Iterator, Mapping, Sequence

import psycopg
from psycopg.errors import (
    DependentObjectsStillExist,
    FeatureNotSupported,
    InvalidFunctionDefinition,
    InvalidTableDefinition,
)
from sqlalchemy import Connection

from migrations import snapshot
from schema.ddl import objects, tables
from schema.ddl.definition import Names, by_part
from schema.ddl.steps import Step
from schema.postgres.connection import driver_of

_BLOCKED = (
    DependentObjectsStillExist,
    FeatureNotSupported,
    InvalidFunctionDefinition,
    InvalidTableDefinition,
)

_CATALOGS = {
    "table": ("pg_class", "regclass"),
    "view": ("pg_class", "regclass"),
    "materialized view": ("pg_class", "regclass"),
    "sequence": ("pg_class", "regclass"),
    "function": ("pg_proc", "regprocedure"),
    "procedure": ("pg_proc", "regprocedure"),
    "type": ("pg_type", "regtype"),
    "domain": ("pg_type", "regtype"),
}

_DEPENDENTS = """
WITH RECURSIVE dependent (classid, objid, depth) AS (
  SELECT d.classid, d.objid, 1
  FROM pg_depend AS d
  WHERE d.refclassid = %(catalog)s::regclass AND d.refobjid = {oid} AND d.deptype = 'n'
    AND (%(column)s::text IS NULL OR d.refobjsubid = (
      SELECT a.attnum FROM pg_attribute AS a
      WHERE a.attrelid = d.refobjid AND quote_ident(a.attname) = %(column)s))
  UNION
  SELECT d.classid, d.objid, p.depth + 1
  FROM dependent AS p
  LEFT JOIN pg_rewrite AS w ON p.classid = 'pg_rewrite'::regclass AND p.objid = w.oid
  JOIN pg_depend AS d
    ON d.refclassid = CASE WHEN w.oid IS NULL THEN p.classid ELSE 'pg_class'::regclass END
    AND d.refobjid = coalesce(w.ev_class, p.objid) AND d.deptype = 'n'
  WHERE p.depth < 50 AND NOT (d.classid = p.classid AND d.objid = p.objid)
)
SELECT x.object, x.part
FROM (SELECT classid, objid, max(depth) AS depth FROM dependent GROUP BY 1, 2) AS p
CROSS JOIN LATERAL (
  SELECT CASE c.relkind WHEN 'm' THEN 'materialized view ' ELSE 'view ' END || c.oid::regclass, ''
  FROM pg_rewrite AS w JOIN pg_class AS c ON w.ev_class = c.oid
  WHERE p.classid = 'pg_rewrite'::regclass AND w.oid = p.objid AND c.relkind IN ('v', 'm')
  UNION ALL
  SELECT 'table ' || l.polrelid::regclass, 'policy ' || quote_ident(l.polname)
  FROM pg_policy AS l WHERE p.classid = 'pg_policy'::regclass AND l.oid = p.objid
  UNION ALL
  SELECT 'table ' || t.tgrelid::regclass, 'trigger ' || quote_ident(t.tgname)
  FROM pg_trigger AS t
  WHERE p.classid = 'pg_trigger'::regclass AND t.oid = p.objid AND NOT t.tgisinternal
  UNION ALL
  SELECT 'table ' || k.conrelid::regclass, 'constraint ' || quote_ident(k.conname)
  FROM pg_constraint AS k
  WHERE p.classid = 'pg_constraint'::regclass AND k.oid = p.objid AND k.conrelid <> 0
  UNION ALL
  SELECT 'table ' || a.attrelid::regclass, 'default of ' || quote_ident(a.attname)
  FROM pg_attrdef AS t
  JOIN pg_attribute AS a ON t.adrelid = a.attrelid AND t.adnum = a.attnum AND a.attgenerated = ''
  WHERE p.classid = 'pg_attrdef'::regclass AND t.oid = p.objid
  UNION ALL
  SELECT CASE f.prokind WHEN 'p' THEN 'procedure ' ELSE 'function ' END || f.oid::regprocedure, ''
  FROM pg_proc AS f
  WHERE p.classid = 'pg_proc'::regclass AND f.oid = p.objid AND f.prokind IN ('f', 'p')
) AS x (object, part)
ORDER BY p.depth DESC, 1, 2
"""


def in_the_way(
    connection: Connection, errors: Mapping[Step, psycopg.Error], names: Names
) -> Sequence[Step]:
    """Return the steps that drop what stands in the way of the steps that failed."""
    found: dict[Step, None] = {}
    for step, error in errors.items():
        if isinstance(error, _BLOCKED):
            found |= dict.fromkeys(_clearing(connection, step, error, names))
    return list(found)


def _clearing(
    connection: Connection, step: Step, error: psycopg.Error, names: Names
) -> Iterator[Step]:
    kind, name = objects.split_heading(step.object)
    if kind not in _CATALOGS:
        return
    catalog, cast = _CATALOGS[kind]
    query = _DEPENDENTS.format(oid=f"to_{cast}(%(name)s)")
    column = step.part.removeprefix("column ") if step.part.startswith("column ") else None
    parameters = {"catalog": catalog, "name": name, "column": column}
    facts = by_part(snapshot.read(connection))
    for heading, part in driver_of(connection).execute(query.encode(), parameters).fetchall():
        yield _drop(heading, part, facts, names)
    # Another result or other parameter names; columns of a view that are gone.
    if isinstance(error, InvalidFunctionDefinition) or (
        kind == "view" and isinstance(error, InvalidTableDefinition)
    ):
        yield _drop(step.object, "", facts, names)


def _drop(heading: str, part: str, facts: Mapping[tuple[str, str], str], names: Names) -> Step:
    kind, name = objects.split_heading(heading)
    if part.startswith("default of "):
        alter = f"ALTER TABLE {name} ALTER COLUMN {part.removeprefix('default of ')} DROP DEFAULT"
        return Step(heading, part, (alter,))
    if not part:
        parts = {own: one for (of, own), one in facts.items() if of == heading}
        return Step(heading, "", tuple(objects.drop(kind, name, parts, names)))
    made = tables.change((kind, name, part), facts.get((heading, part), ""), None, names)
    return Step(heading, part, tuple(made))
