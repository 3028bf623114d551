"""What the trial of access asks the catalogs: roles, relations, privileges, functions."""

from schema.rows.tables import OWN_SCHEMAS

# Every role that a privilege, a policy, a default or a membership of this database names.
ROLES = """
WITH granted (oid) AS (
  SELECT x.grantee FROM pg_class AS c, aclexplode(c.relacl) AS x
  UNION SELECT x.grantee FROM pg_attribute AS a, aclexplode(a.attacl) AS x
  UNION SELECT x.grantee FROM pg_proc AS p, aclexplode(p.proacl) AS x
  UNION SELECT x.grantee FROM pg_namespace AS n, aclexplode(n.nspacl) AS x
  UNION SELECT x.grantee FROM pg_default_acl AS d, aclexplode(d.defaclacl) AS x
  UNION SELECT unnest(polroles) FROM pg_policy
), ours (oid) AS (
  SELECT oid FROM granted
  UNION
  SELECT m.member FROM pg_auth_members AS m JOIN granted AS g ON m.roleid = g.oid
)
SELECT r.rolname::text FROM pg_roles AS r JOIN ours USING (oid)
WHERE NOT r.rolsuper AND r.rolname !~ '^pg_' AND r.rolname <> ALL (%(platform)s::text[])
ORDER BY 1
"""

PLATFORM = "SELECT rolname::text FROM pg_roles WHERE rolsuper OR rolcreaterole"

RELATIONS = f"""
SELECT c.oid, CASE n.nspname WHEN 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END,
  c.oid::regclass::text, c.relkind::text,
  CASE WHEN c.relkind IN ('v', 'm') THEN rtrim(pg_get_viewdef(c.oid), '; ') END,
  ARRAY(
    SELECT a.attname::text FROM pg_constraint AS k
    JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
    WHERE k.conrelid = c.oid AND k.contype = 'p' ORDER BY a.attnum
  ),
  c.relrowsecurity
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm') AND {OWN_SCHEMAS} AND c.relname <> 'alembic_version'
ORDER BY 2
"""

COLUMNS = """
SELECT attrelid, attnum, attname::text, attgenerated = '' AND attidentity <> 'a'
FROM pg_attribute
WHERE attrelid = ANY (%s::oid[]) AND attnum > 0 AND NOT attisdropped
ORDER BY attrelid, attnum
"""

# What the rows of a table belong to.
REFERENCES = """
SELECT conrelid, confrelid FROM pg_constraint WHERE contype = 'f' AND conrelid = ANY (%s::oid[])
"""

# Where a setting can be read that decides what somebody reaches.
BODIES = f"""
SELECT concat_ws(' ', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
FROM pg_policy
UNION ALL
SELECT CASE WHEN p.prosqlbody IS NULL THEN p.prosrc ELSE pg_get_functiondef(p.oid) END
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE {OWN_SCHEMAS}
UNION ALL
SELECT pg_get_viewdef(c.oid)
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'v' AND {OWN_SCHEMAS}
"""

# As they work out: granted to the role, to PUBLIC, or through a membership.
PRIVILEGES = """
SELECT r.name, c.oid, 0, p.name
FROM unnest(%(roles)s::text[]) AS r (name), pg_class AS c,
  unnest(
    '{DELETE,TRUNCATE,TRIGGER}'::text[] || CASE
      WHEN current_setting('server_version_num')::int >= 170000 THEN '{MAINTAIN}'::text[]
    END
  ) AS p (name)
WHERE c.oid = ANY (%(oids)s::oid[]) AND has_table_privilege(r.name, c.oid, p.name)
UNION ALL
SELECT r.name, a.attrelid, a.attnum, p.name
FROM unnest(%(roles)s::text[]) AS r (name), pg_attribute AS a,
  unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) AS p (name)
WHERE a.attrelid = ANY (%(oids)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
  AND has_column_privilege(r.name, a.attrelid, a.attnum, p.name)
"""

# What rows cannot show: who may make objects, become another role, or gets what is made later.
OTHERS = f"""
SELECT r.name, 'schema ' || n.nspname, p.name
FROM unnest(%(roles)s::text[]) AS r (name), pg_namespace AS n,
  unnest('{{USAGE,CREATE}}'::text[]) AS p (name)
WHERE {OWN_SCHEMAS} AND has_schema_privilege(r.name, n.oid, p.name)
UNION ALL
SELECT r.name, 'role ' || b.rolname, 'membership'
FROM unnest(%(roles)s::text[]) AS r (name), pg_roles AS b
WHERE r.name <> b.rolname AND pg_has_role(r.name, b.oid, 'MEMBER')
UNION ALL
SELECT r.rolname, 'all rows', 'BYPASSRLS'
FROM pg_roles AS r WHERE r.rolname = ANY (%(roles)s::text[]) AND r.rolbypassrls
UNION ALL
SELECT r.rolname, 'all roles', 'CREATEROLE'
FROM pg_roles AS r WHERE r.rolname = ANY (%(roles)s::text[]) AND r.rolcreaterole
UNION ALL
SELECT CASE x.grantee WHEN 0 THEN %(stranger)s ELSE pg_get_userbyid(x.grantee)::text END,
  'later ' || CASE d.defaclobjtype
    WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions'
    WHEN 'T' THEN 'types' ELSE 'schemas' END || coalesce(' in ' || n.nspname, ''),
  x.privilege_type
FROM pg_default_acl AS d
LEFT JOIN pg_namespace AS n ON n.oid = d.defaclnamespace
CROSS JOIN aclexplode(d.defaclacl) AS x
WHERE x.grantee <> d.defaclrole
"""

# Those that run with their owner's rights, and that a statement can call.
DEFINERS = f"""
SELECT p.oid, p.oid::regprocedure::text, format('%%I.%%I', n.nspname, p.proname),
  ARRAY(
    SELECT t.oid::regtype::text FROM unnest(p.proargtypes) WITH ORDINALITY AS t (oid, place)
    ORDER BY place
  ),
  p.prokind::text,
  coalesce(array_to_string(p.proconfig, ', '), '') LIKE '%%search_path=%%',
  p.prorettype = 'void'::regtype
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE {OWN_SCHEMAS} AND p.prosecdef
  AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
  AND NOT EXISTS (
    SELECT FROM pg_depend AS d
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  )
ORDER BY 2
"""

# Columns whose values may be arguments of a function.
OF_TYPE = f"""
SELECT a.attrelid::regclass::text, quote_ident(a.attname)
FROM pg_attribute AS a
JOIN pg_class AS c ON c.oid = a.attrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND {OWN_SCHEMAS} AND a.attnum > 0 AND NOT a.attisdropped
  AND a.atttypid = %(kind)s::regtype
ORDER BY 1, 2 LIMIT 6
"""

TYPE = """
SELECT typcategory::text, ARRAY(
  SELECT quote_literal(e.enumlabel) FROM pg_enum AS e WHERE e.enumtypid = t.oid
  ORDER BY e.enumsortorder LIMIT 4
)
FROM pg_type AS t WHERE t.oid = %(kind)s::regtype
"""
