"""Objects outside the history that give away the rows of its tables.

Row security belongs to the tables. A view, a function or a rule with its owner's rights goes around
it if the owner does, and a publication sends every row.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Row, text

from schema.live.difference import Difference, Severity

# The history's tables; the roles that row security does not limit anyway.
_COMMON = """
    ours AS (
      SELECT c.oid, c.relname, c.relowner, c.relforcerowsecurity
      FROM pg_class AS c
      WHERE c.relkind IN ('r', 'p') AND 'table ' || c.oid::regclass = ANY (:owned)
    ),
    trusted AS (
      SELECT r.oid FROM pg_roles AS r, pg_database AS d
      WHERE d.datname = current_database()
        AND (r.rolsuper OR r.rolbypassrls OR r.oid = d.datdba)
    )
"""

# Rewrite rules make views too: a view's rule is ON SELECT (ev_type 1). A view of a view counts.
_RELATIONS = text(
    f"""
    WITH RECURSIVE {_COMMON},
    reading AS (
      SELECT w.ev_class, w.oid AS rule, o.oid AS source
      FROM ours AS o
      JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = o.oid
      JOIN pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
      WHERE w.ev_class <> o.oid
      UNION
      SELECT w.ev_class, w.oid, r.source
      FROM reading AS r
      JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = r.ev_class
      JOIN pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
      WHERE w.ev_class <> r.ev_class
    ),
    granted AS (
      SELECT c.oid, c.relowner, g.grantee, g.privilege_type
      FROM pg_class AS c, aclexplode(c.relacl) AS g
      UNION
      SELECT c.oid, c.relowner, g.grantee, g.privilege_type
      FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid, aclexplode(a.attacl) AS g
    )
    SELECT
      CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'table' END
        AS kind,
      c.oid::regclass::text AS name,
      CASE WHEN w.ev_type <> '1' THEN quote_ident(w.rulename) END AS rule,
      quote_ident(pg_get_userbyid(c.relowner)) AS owner,
      string_agg(DISTINCT r.source::regclass::text, ', ') AS sources,
      (
        SELECT string_agg(DISTINCT CASE g.grantee WHEN 0 THEN 'PUBLIC'
                                   ELSE quote_ident(pg_get_userbyid(g.grantee)) END, ', ')
        FROM granted AS g
        WHERE g.oid = c.oid AND g.grantee <> g.relowner
          AND g.grantee NOT IN (SELECT oid FROM trusted)
          AND g.privilege_type = ANY (CASE w.ev_type
            WHEN '1' THEN ARRAY['SELECT'] ELSE ARRAY['INSERT', 'UPDATE', 'DELETE'] END)
      ) AS grantees
    FROM reading AS r
    JOIN pg_rewrite AS w ON w.oid = r.rule
    JOIN pg_class AS c ON c.oid = r.ev_class
    WHERE NOT EXISTS (
      SELECT FROM unnest(c.reloptions) AS o
      WHERE c.relkind = 'v' AND o ~* '^security_invoker=(true|t|on|yes|y|1)$'
    )
    GROUP BY c.oid, c.relkind, c.relowner, w.oid, w.ev_type, w.rulename
    ORDER BY 1, 2, 3
    """
)

# What superusers made in an extension, or on a platform in a schema of theirs, is left out, unless
# it names one of the tables.
_FUNCTIONS = text(
    f"""
    WITH {_COMMON}
    SELECT
      CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind,
      p.oid::regprocedure::text AS name,
      quote_ident(o.rolname) AS owner,
      coalesce(
        string_agg(DISTINCT CASE g.grantee WHEN 0 THEN 'PUBLIC'
                            ELSE quote_ident(pg_get_userbyid(g.grantee)) END, ', ')
          FILTER (WHERE g.grantee <> p.proowner AND g.grantee NOT IN (SELECT oid FROM trusted)),
        'who uses ' || min(u.used_by)
      ) AS grantees
    FROM pg_proc AS p
    -- An aggregate or a trigger calls its function without the privilege to execute it.
    LEFT JOIN LATERAL (
      SELECT coalesce(
        (SELECT 'aggregate ' || a.aggfnoid::regprocedure FROM pg_aggregate AS a
         WHERE p.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn) LIMIT 1),
        (SELECT format('trigger %I on %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger AS t
         WHERE t.tgfoid = p.oid AND NOT t.tgisinternal LIMIT 1)
      ) AS used_by
    ) AS u ON true
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    JOIN pg_roles AS o ON o.oid = p.proowner
    JOIN pg_roles AS s ON s.oid = n.nspowner
    JOIN pg_database AS d ON d.datname = current_database()
    JOIN pg_roles AS b ON b.oid = d.datdba
    CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS g
    WHERE p.oid >= 16384 AND p.prosecdef
      AND (
        u.used_by IS NOT NULL
        OR (g.grantee <> p.proowner AND g.grantee NOT IN (SELECT oid FROM trusted))
      )
      AND (o.rolsuper OR o.rolbypassrls OR EXISTS (
        SELECT FROM ours AS t WHERE t.relowner = p.proowner AND NOT t.relforcerowsecurity
      ))
      AND (
        NOT o.rolsuper
        OR (
          NOT EXISTS (
            SELECT FROM pg_depend AS e
            WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e'
          )
          AND (b.rolsuper OR NOT s.rolsuper OR n.nspname = 'public')
        )
        OR EXISTS (
          SELECT FROM ours AS t
          WHERE p.prosrc ~ ('\\m' || regexp_replace(t.relname, '\\W', '\\\\\\&', 'g') || '\\M')
        )
      )
    GROUP BY p.oid, p.prokind, o.rolname
    ORDER BY 1, 2
    """
)

_PARAMETERS = text(
    """
    SELECT p.parname AS name, g.privilege_type AS privilege,
      CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END AS role
    FROM pg_parameter_acl AS p CROSS JOIN aclexplode(p.paracl) AS g
    LEFT JOIN pg_roles AS r ON r.oid = g.grantee
    WHERE p.parname IN ('session_replication_role', 'row_security') AND r.rolsuper IS NOT TRUE
    ORDER BY 1, 3, 2
    """
)

_PUBLICATIONS = text(
    f"""
    WITH {_COMMON}
    SELECT
      quote_ident(p.pubname) AS name,
      quote_ident(pg_get_userbyid(p.pubowner)) AS owner,
      p.puballtables AS everything,
      string_agg(t.oid::regclass::text, ', ' ORDER BY t.oid::regclass::text) AS sources,
      coalesce(bool_and(r.oid IS NOT NULL), false) AS named
    FROM pg_publication AS p
    CROSS JOIN LATERAL pg_get_publication_tables(p.pubname) AS x
    JOIN ours AS t ON t.oid = x.relid
    LEFT JOIN pg_publication_rel AS r ON r.prpubid = p.oid AND r.prrelid = t.oid
    GROUP BY p.oid, p.pubname, p.pubowner, p.puballtables
    ORDER BY 1
    """
)


@contextmanager
def names_of_snapshot(connection: Connection) -> Iterator[None]:
    """Print names in this block as a snapshot does; the caller's transaction goes on after it."""
    with connection.begin_nested() as savepoint:
        connection.exec_driver_sql("SET LOCAL search_path = public, pg_temp")
        yield
        savepoint.rollback()


def find(connection: Connection, owned: Collection[str]) -> list[Difference]:
    """Find the objects; `owned` are the headings of the history's objects in a snapshot.

    Raises:
        DBAPIError: the catalogs could not be read.

    """
    values = {"owned": list(owned)}
    with names_of_snapshot(connection):
        relations = connection.execute(_RELATIONS, values).all()
        functions = connection.execute(_FUNCTIONS, values).all()
        publications = connection.execute(_PUBLICATIONS, values).all()
        parameters = connection.execute(_PARAMETERS).all()
    found = [
        *(_relation(row) for row in relations if row.grantees),
        *(_function(row) for row in functions),
        *(_publication(row) for row in publications),
        *(_parameter(row) for row in parameters),
    ]
    return [one for one in found if one.object not in owned]


def _relation(row: Row[*tuple[Any, ...]]) -> Difference:
    what = f"{row.kind} {row.name}"
    if row.rule is not None:
        return Difference(
            object=what,
            part=f"rule {row.rule}",
            was=None,
            found=f"reads {row.sources}; set off by {row.grantees}",
            severity=Severity.ISOLATION,
            sentence=(
                f"rule {row.rule} on {what} reads {row.sources} with the rights of its owner,"
                f" {row.owner}, and {row.grantees} can set it off"
            ),
            sql=f"REVOKE INSERT, UPDATE, DELETE ON {row.name} FROM {row.grantees}",
        )
    sql = f"ALTER VIEW {row.name} SET (security_invoker = true)"
    if row.kind != "view":
        sql = f"REVOKE SELECT ON {row.name} FROM {row.grantees}"
    return Difference(
        object=what,
        part="",
        was=None,
        found=f"reads {row.sources}; readable by {row.grantees}",
        severity=Severity.ISOLATION,
        sentence=(
            f"{what} shows rows of {row.sources} with the rights of its owner, {row.owner}, to"
            f" {row.grantees}"
        ),
        sql=sql,
    )


def _function(row: Row[*tuple[Any, ...]]) -> Difference:
    what = f"{row.kind} {row.name}"
    sql = f"REVOKE EXECUTE ON {row.kind.upper()} {row.name} FROM {row.grantees}"
    if row.grantees.startswith("who uses "):
        sql = f"ALTER {row.kind.upper()} {row.name} SECURITY INVOKER"
    return Difference(
        object=what,
        part="",
        was=None,
        found=f"security definer; executable by {row.grantees}",
        severity=Severity.ISOLATION,
        sentence=(
            f"{what} runs with the rights of its owner, {row.owner}, whom row security does not"
            f" limit, and {row.grantees} may execute it"
        ),
        sql=sql,
    )


def _parameter(row: Row[*tuple[Any, ...]]) -> Difference:
    return Difference(
        object=f"parameter {row.name}",
        part=f"grant to {row.role}",
        was=None,
        found=row.privilege,
        severity=Severity.ISOLATION,
        sentence=f"{row.role} may change {row.name}, which triggers, foreign keys or row security"
        " depend on",
        sql=f"REVOKE {row.privilege} ON PARAMETER {row.name} FROM {row.role}",
    )


def _publication(row: Row[*tuple[Any, ...]]) -> Difference:
    by_name = row.named and not row.everything
    return Difference(
        object=f"publication {row.name}",
        part="",
        was=None,
        found=f"publishes {row.sources}",
        severity=Severity.ISOLATION,
        sentence=(
            f"publication {row.name} sends every row of {row.sources} to its subscribers, whatever"
            " row security says"
        ),
        sql=f"ALTER PUBLICATION {row.name} DROP TABLE {row.sources}" if by_name else None,
    )
