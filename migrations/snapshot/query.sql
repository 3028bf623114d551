-- The schema of one database as sorted rows: object, part, definition.
--
-- Two schemas are equal if and only if these rows are equal. So a row does not depend on object ids, on the order of
-- columns or grants, on the server's major version (16 to 18) or on the owner's name.
-- An object is a heading ('table todo'), a part is one fact below it ('column due_at').
-- Run it through migrations/snapshot, which sets search_path and every setting that changes how PostgreSQL prints a
-- definition. It reads only what a role without superuser rights may read, and takes no lock stronger than
-- ACCESS SHARE (through pg_get_viewdef and pg_get_expr).
--
-- Not included: rows of tables, sequence positions, whether a materialised view is populated; passwords and
-- connection strings; members of group roles; encoding and locale; the platform's own schemas, with what it owns there.
-- Values that may be secrets are hashed: a change shows, the value does not.

with
-- ---------------------------------------------------------------------------------------------------------------------
-- Names and scope
-- ---------------------------------------------------------------------------------------------------------------------
this_database as materialized (
    select * from pg_database
    where datname = current_database()
),

-- The role that runs the migrations differs between environments. pg_database_owner is the same role: it has
-- exactly one member. The owner of schema public depends only on how the database was created.
role_name as materialized (
    select
        r.oid,
        case
            when r.oid = d.datdba or r.rolname = 'pg_database_owner' then '<owner>'
            else quote_ident(r.rolname)
        end as name
    from pg_roles as r cross join this_database as d
    union all
    select
        0 as oid,
        'PUBLIC' as name
),

-- Neon makes two roles that are no superusers: neon_superuser can read and write everything, neon_auth owns the schema
-- of that name. Other roles can take such a name: CREATE ROLE gives a creator who is no superuser the ADMIN option.
neon_role as materialized (
    select
        r.oid,
        r.rolname
    from pg_roles as r
    where
        r.rolname in ('neon_superuser', 'neon_auth')
        and not exists (
            select from pg_auth_members as m inner join pg_roles as a on m.member = a.oid
            where m.roleid = r.oid and m.admin_option and not a.rolsuper
        )
),

neon_superuser as materialized (
    select oid from neon_role
    where rolname = 'neon_superuser'
),

-- On a platform, the owner of the database is no superuser: what superusers own in schemas of their own is the
-- platform's. Where the owner is a superuser, other superusers are its colleagues, and nothing of theirs is left out.
platform_role as materialized (
    select
        r.oid,
        '^' as schemas
    from pg_roles as r
    cross join this_database as d
    inner join pg_roles as o on d.datdba = o.oid
    where r.rolsuper and not o.rolsuper
    union all
    select
        oid,
        '^neon_auth$' as schemas
    from neon_role
    where rolname = 'neon_auth'
),

-- An extension's members follow from its version, a range's functions and casts from the range. classid is needed:
-- object ids are unique only within a catalog.
member as materialized (
    select
        classid,
        objid
    from pg_depend
    where deptype = 'e' or (deptype = 'i' and classid in ('pg_proc'::regclass, 'pg_cast'::regclass))
),

-- left_out: the owners whose objects in the schema are left out. They are the platform's roles, in a schema of theirs:
-- what another role makes there shows.
schema as materialized (
    select
        n.*,
        case when n.nspname = 'public' then '' else quote_ident(n.nspname) || '.' end as prefix,
        case
            when p.oid is null or n.nspname = 'public' then '{}'
            else array(select oid from platform_role)
        end as left_out
    from pg_namespace as n
    left join platform_role as p on n.nspowner = p.oid and n.nspname ~ p.schemas
    where
        n.nspname !~ '^pg_'
        and n.nspname <> 'information_schema'
        and not exists (
            select from member as m
            where m.classid = 'pg_namespace'::regclass and m.objid = n.oid
        )
),

extension as (
    select e.*
    from pg_extension as e left join schema as s on e.extnamespace = s.oid
    where s.oid is null or e.extowner <> all(s.left_out)
),

relation as materialized (
    select
        c.*,
        case c.relkind
            when 'v' then 'view '
            when 'm' then 'materialized view '
            when 'S' then 'sequence '
            when 'f' then 'foreign table '
            when 'c' then 'type '
            else 'table '
        end || c.oid::regclass as object
    from pg_class as c
    inner join schema as s on c.relnamespace = s.oid and c.relowner <> all(s.left_out)
    where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c')
    -- Alembic's own table; metadata.create_all does not make it.
    and c.oid is distinct from to_regclass('public.alembic_version')
    and not exists (
        select from member as m
        where m.classid = 'pg_class'::regclass and m.objid = c.oid
    )
),

type_of_ours as materialized (
    select
        t.*,
        case t.typtype when 'd' then 'domain ' else 'type ' end || t.oid::regtype as object
    from pg_type as t
    inner join schema as s on t.typnamespace = s.oid and t.typowner <> all(s.left_out)
    where (t.typrelid = 0 or t.typrelid in (
        select oid from relation
        where relkind = 'c'
    ))
    -- PostgreSQL makes and renames array types itself.
    and not exists (
        select from pg_type as e
        where e.typarray = t.oid
    )
    and not exists (
        select from member as m
        where m.classid = 'pg_type'::regclass and m.objid = t.oid
    )
),

routine as materialized (
    select
        p.*,
        case p.prokind when 'p' then 'procedure ' when 'a' then 'aggregate ' else 'function ' end
        || p.oid::regprocedure as object
    from pg_proc as p
    inner join schema as s on p.pronamespace = s.oid and p.proowner <> all(s.left_out)
    where not exists (
        select from member as m
        where m.classid = 'pg_proc'::regclass and m.objid = p.oid
    )
),

-- ---------------------------------------------------------------------------------------------------------------------
-- Objects: everything that can have an owner, a comment or grants of its own
-- ---------------------------------------------------------------------------------------------------------------------
-- Objects with an oid below 16384 (FirstNormalObjectId in access/transam.h) are initdb's. Only catalogs without a
-- schema need this condition: schemas of the platform are excluded above.
-- acl_type is the letter of the object's kind for acldefault(), null for a kind without privileges.
candidate (classid, objid, object, owner, acl, acl_type) as (
    select
        'pg_namespace'::regclass,
        oid,
        'schema ' || quote_ident(nspname),
        nspowner,
        nspacl,
        'n'
    from schema
    where nspowner <> all(left_out)
    union all
    select
        'pg_class'::regclass,
        oid,
        object,
        relowner,
        relacl,
        case relkind when 'S' then 's' else 'r' end
    from relation
    where relkind <> 'c'
    union all
    -- A multirange has its range's owner and privileges, but ALTER TYPE does not always store them with it.
    select
        'pg_type'::regclass,
        oid,
        object,
        case when typtype <> 'm' then typowner end,
        typacl,
        case when typtype <> 'm' then 'T' end
    from type_of_ours
    union all
    select
        'pg_proc'::regclass,
        oid,
        object,
        proowner,
        proacl,
        'f'
    from routine
    union all
    select
        'pg_operator'::regclass,
        o.oid,
        'operator ' || o.oid::regoperator,
        o.oprowner,
        null,
        null
    from pg_operator as o inner join schema as s on o.oprnamespace = s.oid and o.oprowner <> all(s.left_out)
    union all
    select
        'pg_opfamily'::regclass,
        f.oid,
        format('operator family %s%I using %I', s.prefix, f.opfname, a.amname),
        f.opfowner,
        null,
        null
    from pg_opfamily as f
    inner join schema as s on f.opfnamespace = s.oid and f.opfowner <> all(s.left_out)
    inner join pg_am as a on f.opfmethod = a.oid
    union all
    select
        'pg_opclass'::regclass,
        c.oid,
        format('operator class %s%I using %I', s.prefix, c.opcname, a.amname),
        c.opcowner,
        null,
        null
    from pg_opclass as c
    inner join schema as s on c.opcnamespace = s.oid and c.opcowner <> all(s.left_out)
    inner join pg_am as a on c.opcmethod = a.oid
    union all
    select
        'pg_collation'::regclass,
        c.oid,
        'collation ' || c.oid::regcollation,
        c.collowner,
        null,
        null
    from pg_collation as c inner join schema as s on c.collnamespace = s.oid and c.collowner <> all(s.left_out)
    union all
    select
        'pg_conversion'::regclass,
        c.oid,
        format('conversion %s%I', s.prefix, c.conname),
        c.conowner,
        null,
        null
    from pg_conversion as c inner join schema as s on c.connamespace = s.oid and c.conowner <> all(s.left_out)
    union all
    select
        'pg_statistic_ext'::regclass,
        x.oid,
        format('statistics %s%I', s.prefix, x.stxname),
        x.stxowner,
        null,
        null
    from pg_statistic_ext as x inner join schema as s on x.stxnamespace = s.oid and x.stxowner <> all(s.left_out)
    union all
    select
        'pg_ts_parser'::regclass,
        p.oid,
        format('text search parser %s%I', s.prefix, p.prsname),
        null,
        null,
        null
    from pg_ts_parser as p inner join schema as s on p.prsnamespace = s.oid and s.left_out = '{}'
    union all
    select
        'pg_ts_template'::regclass,
        t.oid,
        format('text search template %s%I', s.prefix, t.tmplname),
        null,
        null,
        null
    from pg_ts_template as t inner join schema as s on t.tmplnamespace = s.oid and s.left_out = '{}'
    union all
    select
        'pg_ts_dict'::regclass,
        d.oid,
        'text search dictionary ' || d.oid::regdictionary,
        d.dictowner,
        null,
        null
    from pg_ts_dict as d inner join schema as s on d.dictnamespace = s.oid and d.dictowner <> all(s.left_out)
    union all
    select
        'pg_ts_config'::regclass,
        c.oid,
        'text search configuration ' || c.oid::regconfig,
        c.cfgowner,
        null,
        null
    from pg_ts_config as c inner join schema as s on c.cfgnamespace = s.oid and c.cfgowner <> all(s.left_out)
    union all
    select
        'pg_cast'::regclass,
        oid,
        format('cast from %s to %s', castsource::regtype, casttarget::regtype),
        null,
        null,
        null
    from pg_cast
    where oid >= 16384
    union all
    select
        'pg_language'::regclass,
        oid,
        'language ' || quote_ident(lanname),
        lanowner,
        lanacl,
        'l'
    from pg_language
    where oid >= 16384
    union all
    select
        'pg_transform'::regclass,
        t.oid,
        format('transform for %s language %I', t.trftype::regtype, l.lanname),
        null,
        null,
        null
    from pg_transform as t inner join pg_language as l on t.trflang = l.oid
    union all
    select
        'pg_am'::regclass,
        oid,
        'access method ' || quote_ident(amname),
        null,
        null,
        null
    from pg_am
    where oid >= 16384
    union all
    select
        'pg_foreign_data_wrapper'::regclass,
        oid,
        'foreign-data wrapper ' || quote_ident(fdwname),
        fdwowner,
        fdwacl,
        'F'
    from pg_foreign_data_wrapper
    union all
    select
        'pg_foreign_server'::regclass,
        oid,
        'server ' || quote_ident(srvname),
        srvowner,
        srvacl,
        'S'
    from pg_foreign_server
    union all
    select
        'pg_event_trigger'::regclass,
        oid,
        'event trigger ' || quote_ident(evtname),
        evtowner,
        null,
        null
    from pg_event_trigger
    union all
    select
        'pg_publication'::regclass,
        oid,
        'publication ' || quote_ident(pubname),
        pubowner,
        null,
        null
    from pg_publication
    union all
    select
        'pg_subscription'::regclass,
        s.oid,
        'subscription ' || quote_ident(s.subname),
        s.subowner,
        null,
        null
    from pg_subscription as s inner join this_database as d on s.subdbid = d.oid
    union all
    -- The classid of comments on large objects is pg_largeobject's, not that of the catalog with owner and grants.
    select
        'pg_largeobject'::regclass,
        oid,
        'large object ' || oid,
        lomowner,
        lomacl,
        'L'
    from pg_largeobject_metadata
    union all
    select
        'pg_extension'::regclass,
        oid,
        'extension ' || quote_ident(extname),
        null,
        null,
        null
    from extension
    union all
    select
        'pg_database'::regclass,
        oid,
        'database',
        datdba,
        datacl,
        'd'
    from this_database
),

object as materialized (
    select
        c.*,
        acldefault(c.acl_type::"char", c.owner) as default_acl
    from candidate as c
    where not exists (
        select from member as m
        where m.classid = c.classid and m.objid = c.objid
    )
),

-- ---------------------------------------------------------------------------------------------------------------------
-- Privileges of each role, granted or by PostgreSQL's default
-- ---------------------------------------------------------------------------------------------------------------------
-- always: PUBLIC's privileges on an object are listed even if they are the default, because a reviewer must see them.
acl_holder (object, part, owner, acl, default_acl, all_count, always) as (
    select
        o.object,
        'grant to ',
        o.owner,
        coalesce(o.acl, o.default_acl),
        o.default_acl,
        (
            select count(*) from aclexplode(o.default_acl) as e
            where e.grantee = o.owner
        ),
        true
    from object as o
    where o.acl_type is not null
    union all
    -- Columns have four privileges: SELECT, INSERT, UPDATE, REFERENCES.
    select
        r.object,
        format('grant on column %I to ', a.attname),
        r.relowner,
        a.attacl,
        null,
        4,
        true
    from pg_attribute as a inner join relation as r on a.attrelid = r.oid
    where a.attacl is not null and not a.attisdropped
    union all
    -- initdb makes the languages, but a change of their privileges belongs to our schema.
    select
        'language ' || quote_ident(l.lanname),
        'grant to ',
        l.lanowner,
        l.lanacl,
        acldefault('l', l.lanowner),
        1,
        false
    from pg_language as l
    where
        l.lanacl is not null
        and not exists (
            select from object as o
            where o.classid = 'pg_language'::regclass and o.objid = l.oid
        )
    union all
    -- Default privileges of a database replace PostgreSQL's; those of a schema are added to them.
    select
        'default privileges of ' || r.name,
        case d.defaclobjtype
            when 'r' then 'tables'
            when 'S' then 'sequences'
            when 'f' then 'functions'
            when 'T' then 'types'
            when 'n' then 'schemas'
            when 'L' then 'large objects'
            else d.defaclobjtype::text
        end || coalesce(' in schema ' || quote_ident(s.nspname), '') || ' to ',
        d.defaclrole,
        d.defaclacl,
        case when d.defaclnamespace = 0 then t.default_acl end,
        (
            select count(*) from aclexplode(t.default_acl) as e
            where e.grantee = d.defaclrole
        ),
        false
    from pg_default_acl as d
    inner join role_name as r on d.defaclrole = r.oid
    left join schema as s on d.defaclnamespace = s.oid
    cross join
        acldefault(case d.defaclobjtype when 'S' then 's' else d.defaclobjtype end, d.defaclrole) as t (default_acl)
    where d.defaclnamespace = 0 or d.defaclrole <> all(s.left_out)
),

acl_entry as (
    select
        h.object,
        h.part,
        h.owner,
        h.always,
        h.all_count,
        x.is_actual,
        e.grantee,
        e.grantor,
        e.privilege_type,
        e.is_grantable
    from acl_holder as h
    cross join lateral (values (true, h.acl), (false, h.default_acl)) as x (is_actual, acl)
    cross join lateral aclexplode(x.acl) as e
),

-- ALL: version 17 has one more privilege on tables (MAINTAIN), and GRANT ALL must give the same row on 16.
privilege_by_grantor as (
    select
        object,
        part,
        owner,
        always,
        is_actual,
        grantee,
        grantor,
        case
            when all_count > 1 and count(*) = all_count and bool_and(is_grantable) then 'ALL*'
            when all_count > 1 and count(*) = all_count and not bool_or(is_grantable) then 'ALL'
            else string_agg(privilege_type || case when is_grantable then '*' else '' end, ', ' order by privilege_type)
        end as privileges
    from acl_entry
    group by object, part, owner, always, is_actual, grantee, grantor, all_count
),

privilege as (
    select
        p.object,
        p.part,
        p.owner,
        p.always,
        p.grantee,
        string_agg(
            p.privileges || case when p.grantor = p.owner then '' else ' by ' || coalesce(g.name, p.grantor::text) end,
            '; ' order by g.name collate "C"
        ) filter (where p.is_actual) as actual,
        string_agg(p.privileges, '; ') filter (where not p.is_actual) as by_default
    from privilege_by_grantor as p
    left join role_name as g on p.grantor = g.oid
    group by p.object, p.part, p.owner, p.always, p.grantee
),

-- Neon grants everything to its neon_superuser. An owner's privilege on its own object gets a row only if it was
-- revoked.
granted as materialized (
    select
        p.object,
        p.part,
        p.owner,
        p.grantee,
        coalesce(p.actual, 'none') as privileges
    from privilege as p
    where
        p.grantee not in (select oid from neon_superuser)
        and (p.actual is distinct from p.by_default or (p.always and p.grantee <> p.owner))
),

-- ---------------------------------------------------------------------------------------------------------------------
-- Roles: the attributes of every role named above, which row security depends on
-- ---------------------------------------------------------------------------------------------------------------------
named_role as (
    select grantee as oid from granted
    union
    select owner from granted
    union
    select owner from object
    union
    select unnest(p.polroles) from pg_policy as p inner join relation as r on p.polrelid = r.oid
    union
    select umuser from pg_user_mappings
),

group_role as materialized (
    select
        r.*,
        n.name,
        'role ' || n.name as object
    from pg_roles as r
    inner join named_role as u on r.oid = u.oid
    inner join role_name as n on r.oid = n.oid
    where
        n.name <> '<owner>' and r.rolname !~ '^pg_'
        and r.oid not in (select oid from neon_superuser)
),

-- ---------------------------------------------------------------------------------------------------------------------
-- Secrets: of a value that may be one, the first bits of its hash show. They are too few to search for the value.
-- ---------------------------------------------------------------------------------------------------------------------
-- Options of foreign data; of a column, subid is its number. Those of user mappings are not read: not every role may.
option (classid, objid, subid, options) as (
    select
        'pg_foreign_data_wrapper'::regclass,
        oid,
        0,
        fdwoptions
    from pg_foreign_data_wrapper
    union all
    select
        'pg_foreign_server'::regclass,
        oid,
        0,
        srvoptions
    from pg_foreign_server
    union all
    select
        'pg_foreign_table'::regclass,
        ftrelid,
        0,
        ftoptions
    from pg_foreign_table
    union all
    select
        'pg_attribute'::regclass,
        attrelid,
        attnum,
        attfdwoptions
    from pg_attribute
    where attfdwoptions is not null
),

masked_option as materialized (
    select
        o.classid,
        o.objid,
        o.subid,
        split_part(x, '=', 1) || '=#'
        || left(encode(sha256(convert_to(substr(x, strpos(x, '=') + 1), 'UTF8')), 'hex'), 4) as masked
    from option as o
    cross join lateral unnest(o.options) as x
),

-- Settings of roles and of the database. Custom ones have a dot in their names.
setting as (
    select
        s.setdatabase,
        s.setrole,
        split_part(c, '=', 1) as name,
        case
            when
                c ~* '^[^=]*[.][^=]*(pass|pwd|secret|token|key|cred|auth|jwt|dsn|salt|sign|cookie|session|conn|ur[il])'
                or c ~ '://[^/?#]*:[^/?#]*@'
                then '#' || left(encode(sha256(convert_to(substr(c, strpos(c, '=') + 1), 'UTF8')), 'hex'), 4)
            else substr(c, strpos(c, '=') + 1)
        end as value
    from pg_db_role_setting as s
    cross join lateral unnest(s.setconfig) as c
),

-- ---------------------------------------------------------------------------------------------------------------------
-- Parts: facts that can have a comment; classid, objid and subid find it
-- ---------------------------------------------------------------------------------------------------------------------
part (classid, objid, subid, object, part, definition) as (
    select
        'pg_class'::regclass,
        r.oid,
        a.attnum::int,
        r.object,
        'column ' || quote_ident(a.attname),
        concat_ws(
            '  ',
            format_type(a.atttypid, a.atttypmod),
            'collation ' || nullif(a.attcollation, t.typcollation)::regcollation,
            case when a.attnotnull then 'not null' end,
            case a.attgenerated
                when 's' then 'generated ' || pg_get_expr(d.adbin, d.adrelid, true) || ' stored'
                when 'v' then 'generated ' || pg_get_expr(d.adbin, d.adrelid, true) || ' virtual'
                else 'default ' || pg_get_expr(d.adbin, d.adrelid, true)
            end,
            case a.attidentity when 'a' then 'identity always' when 'd' then 'identity by default' end,
            case
                when a.attstorage <> t.typstorage
                    then 'storage ' || case a.attstorage
                        when 'p' then 'plain' when 'e' then 'external' when 'x' then 'extended' else 'main'
                    end
            end,
            case a.attcompression when 'p' then 'compression pglz' when 'l' then 'compression lz4' end,
            'statistics ' || nullif(a.attstattarget, -1),
            'options ' || (select string_agg(o, ', ' order by o collate "C") from unnest(a.attoptions) as o),
            'foreign options ' || (
                select string_agg(x.masked, ', ' order by x.masked collate "C") from masked_option as x
                where x.classid = 'pg_attribute'::regclass and x.objid = a.attrelid and x.subid = a.attnum
            ),
            case when a.attinhcount > 0 then case when a.attislocal then 'inherited and local' else 'inherited' end end
        )
    from pg_attribute as a
    inner join relation as r on a.attrelid = r.oid
    inner join pg_type as t on a.atttypid = t.oid
    left join pg_attrdef as d on a.attrelid = d.adrelid and a.attnum = d.adnum
    where a.attnum > 0 and not a.attisdropped and r.relkind <> 'S'
    union all
    -- 18 lists NOT NULL constraints (16 does not, and a rename leaves their old names): the column shows them, and only
    -- the rest gets a row here. A constraint trigger is shown by its trigger.
    select
        'pg_constraint'::regclass,
        c.oid,
        0,
        coalesce(r.object, t.object),
        'constraint ' || quote_ident(c.conname),
        concat_ws(
            '  ',
            pg_get_constraintdef(c.oid, true),
            case when c.coninhcount > 0 then case when c.conislocal then 'inherited and local' else 'inherited' end end
        )
    from pg_constraint as c
    left join relation as r on c.conrelid = r.oid
    left join type_of_ours as t on c.contypid = t.oid
    where
        (r.oid is not null or t.oid is not null)
        and (
            c.contype not in ('n', 't') or (c.contype = 'n' and (c.connoinherit or not c.convalidated))
            or exists (
                select from pg_description as d
                where d.classoid = 'pg_constraint'::regclass and d.objoid = c.oid
            )
        )
    union all
    -- A key's index is shown by its constraint; it gets a row only for what the constraint does not show.
    select
        'pg_class'::regclass,
        i.indexrelid,
        0,
        r.object,
        'index ' || quote_ident(x.relname),
        concat_ws(
            '  ',
            case when k.oid is null then pg_get_indexdef(i.indexrelid, 0, true) end,
            case when k.oid is not null then 'with ' || nullif(array_to_string(x.reloptions, ', '), '') end,
            case when not i.indisvalid then 'INVALID' end,
            case when not i.indislive then 'not live' end,
            case when i.indisclustered then 'clustered' end,
            'tablespace ' || quote_ident(s.spcname),
            'partition of ' || (
                select h.inhparent::regclass from pg_inherits as h
                where h.inhrelid = i.indexrelid
            ),
            'statistics ' || (
                select string_agg(a.attnum || ' to ' || a.attstattarget, ', ' order by a.attnum)
                from pg_attribute as a
                where a.attrelid = i.indexrelid and a.attstattarget >= 0
            )
        )
    from pg_index as i
    inner join relation as r on i.indrelid = r.oid
    inner join pg_class as x on i.indexrelid = x.oid
    left join pg_tablespace as s on x.reltablespace = s.oid
    left join pg_constraint as k
        on i.indexrelid = k.conindid and i.indrelid = k.conrelid and k.contype in ('p', 'u', 'x')
    union all
    select
        'pg_trigger'::regclass,
        g.oid,
        0,
        r.object,
        'trigger ' || quote_ident(g.tgname),
        concat_ws(
            '  ',
            pg_get_triggerdef(g.oid, true),
            case g.tgenabled
                when 'D' then 'disabled' when 'R' then 'enabled replica' when 'A' then 'enabled always'
            end
        )
    from pg_trigger as g inner join relation as r on g.tgrelid = r.oid
    where not g.tgisinternal
    union all
    select
        'pg_rewrite'::regclass,
        w.oid,
        0,
        r.object,
        'rule ' || quote_ident(w.rulename),
        concat_ws(
            '  ',
            case when w.rulename <> '_RETURN' then pg_get_ruledef(w.oid, true) end,
            case w.ev_enabled
                when 'D' then 'disabled' when 'R' then 'enabled replica' when 'A' then 'enabled always'
            end
        )
    from pg_rewrite as w inner join relation as r on w.ev_class = r.oid
    union all
    select
        'pg_policy'::regclass,
        p.oid,
        0,
        r.object,
        'policy ' || quote_ident(p.polname),
        concat_ws(
            '  ',
            case when p.polpermissive then 'permissive' else 'restrictive' end,
            'for ' || case p.polcmd
                when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all'
            end,
            'to ' || (
                select string_agg(n.name, ', ' order by n.name collate "C")
                from role_name as n
                where n.oid = any(p.polroles)
            ),
            'using ' || pg_get_expr(p.polqual, p.polrelid, true),
            'with check ' || pg_get_expr(p.polwithcheck, p.polrelid, true)
        )
    from pg_policy as p inner join relation as r on p.polrelid = r.oid
    union all
    select
        'pg_authid'::regclass,
        oid,
        0,
        object,
        'attributes',
        concat_ws(
            ', ',
            case when rolcanlogin then 'login' else 'nologin' end,
            case when rolinherit then 'inherit' else 'noinherit' end,
            case when rolsuper then 'superuser' end,
            case when rolcreaterole then 'createrole' end,
            case when rolcreatedb then 'createdb' end,
            case when rolreplication then 'replication' end,
            case when rolbypassrls then 'bypassrls' end,
            'connection limit ' || nullif(rolconnlimit, -1),
            'valid until ' || rolvaliduntil
        )
    from group_role
),

-- ---------------------------------------------------------------------------------------------------------------------
-- Properties of a whole object
-- ---------------------------------------------------------------------------------------------------------------------
-- A null definition is not a fact; an empty one is a fact without details.
property (object, part, definition) as (
    -- Relations
    select
        r.object,
        p.part,
        p.definition
    from relation as r
    left join pg_tablespace as s on r.reltablespace = s.oid
    left join pg_am as m on r.relam = m.oid
    left join pg_class as toast on r.reltoastrelid = toast.oid
    cross join
        lateral (
            values
            ('persistence', case r.relpersistence when 'u' then 'unlogged' when 't' then 'temporary' end),
            (
                'row security',
                case
                    when r.relkind in ('r', 'p')
                        then
                            case when r.relrowsecurity then 'enabled' else 'disabled' end
                            || case when r.relforcerowsecurity then ', forced' else '' end
                end
            ),
            -- Views store their options (security_invoker, check_option) in reloptions too.
            ('options', (select string_agg(o, ', ' order by o collate "C") from unnest(r.reloptions) as o)),
            ('toast options', (select string_agg(o, ', ' order by o collate "C") from unnest(toast.reloptions) as o)),
            ('of type', nullif(r.reloftype, 0)::regtype::text),
            ('tablespace', quote_ident(s.spcname)),
            ('access method', case when m.amname <> 'heap' or r.relkind = 'p' then quote_ident(m.amname) end),
            ('partitioned by', pg_get_partkeydef(r.oid)),
            ('definition', case when r.relkind in ('v', 'm') then pg_get_viewdef(r.oid, true) end),
            (
                'replica identity',
                case r.relreplident
                    when 'f' then 'full'
                    when 'n' then case when r.relkind in ('r', 'p') then 'nothing' end
                    when 'i' then coalesce(
                        (
                            select 'index ' || quote_ident(x.relname)
                            from pg_index as i inner join pg_class as x on i.indexrelid = x.oid
                            where i.indrelid = r.oid and i.indisreplident
                        ), 'index that was dropped'
                    )
                end
            )
        ) as p (part, definition)
    union all
    -- The order of parents decides which definition of a merged column is used.
    select
        r.object,
        case when r.relispartition then 'partition of ' else 'inherits ' end || i.inhparent::regclass,
        concat_ws(
            '  ',
            pg_get_expr(r.relpartbound, r.oid),
            case when i.inhseqno > 1 then 'parent ' || i.inhseqno end,
            case when i.inhdetachpending then 'detach pending' end
        )
    from pg_inherits as i inner join relation as r on i.inhrelid = r.oid
    union all
    -- Triggers with object ids in their names enforce foreign keys. DISABLE TRIGGER ALL disables them, and
    -- only tgenabled shows it.
    select
        r.object,
        format('constraint %I of %s', c.conname, c.conrelid::regclass),
        string_agg(
            g.tgfoid::regproc || case g.tgenabled
                when 'D' then ' disabled' when 'R' then ' enabled replica' else ' enabled always'
            end,
            ', ' order by g.tgfoid::regproc::text collate "C"
        )
    from pg_trigger as g
    inner join relation as r on g.tgrelid = r.oid
    inner join pg_constraint as c on g.tgconstraint = c.oid
    where g.tgisinternal and g.tgenabled <> 'O'
    group by r.object, c.conname, c.conrelid
    union all
    select
        r.object,
        'parameters',
        concat_ws(
            '  ',
            q.seqtypid::regtype, 'start ' || q.seqstart, 'increment ' || q.seqincrement,
            'minimum ' || q.seqmin, 'maximum ' || q.seqmax, 'cache ' || q.seqcache,
            case when q.seqcycle then 'cycle' end
        )
    from pg_sequence as q inner join relation as r on q.seqrelid = r.oid
    union all
    select
        r.object,
        case d.deptype when 'i' then 'identity of' else 'owned by' end,
        format('%s.%I', d.refobjid::regclass, a.attname)
    from pg_depend as d
    inner join relation as r on d.objid = r.oid and r.relkind = 'S'
    inner join pg_attribute as a on d.refobjid = a.attrelid and d.refobjsubid = a.attnum
    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
    union all
    select
        r.object,
        'server',
        concat_ws(
            '  ', quote_ident(s.srvname),
            'options ' || (
                select string_agg(x.masked, ', ' order by x.masked collate "C") from masked_option as x
                where x.classid = 'pg_foreign_table'::regclass and x.objid = f.ftrelid
            )
        )
    from pg_foreign_table as f
    inner join relation as r on f.ftrelid = r.oid
    inner join pg_foreign_server as s on f.ftserver = s.oid
    union all
    select
        o.object,
        'definition',
        concat_ws('  ', pg_get_statisticsobjdef(x.oid), 'statistics ' || nullif(x.stxstattarget, -1))
    from pg_statistic_ext as x
    inner join object as o on o.classid = 'pg_statistic_ext'::regclass and x.oid = o.objid
    union all
    -- Routines
    select
        object,
        'definition',
        rtrim(pg_get_functiondef(oid), E'\n')
    from routine
    where prokind <> 'a'
    union all
    select
        r.object,
        'definition',
        concat_ws(
            '  ',
            '(' || pg_get_function_arguments(r.oid) || ')',
            case a.aggkind when 'o' then 'ordered-set' when 'h' then 'hypothetical-set' end,
            'direct arguments ' || nullif(a.aggnumdirectargs, 0),
            'sfunc ' || a.aggtransfn::regprocedure,
            'stype ' || a.aggtranstype::regtype,
            'sspace ' || nullif(a.aggtransspace, 0),
            'finalfunc ' || nullif(a.aggfinalfn::oid, 0)::regprocedure,
            case when a.aggfinalextra then 'finalfunc_extra' end,
            'finalfunc_modify ' || case a.aggfinalmodify when 's' then 'shareable' when 'w' then 'read_write' end,
            'combinefunc ' || nullif(a.aggcombinefn::oid, 0)::regprocedure,
            'serialfunc ' || nullif(a.aggserialfn::oid, 0)::regprocedure,
            'deserialfunc ' || nullif(a.aggdeserialfn::oid, 0)::regprocedure,
            'initcond ' || quote_literal(a.agginitval),
            'msfunc ' || nullif(a.aggmtransfn::oid, 0)::regprocedure,
            'minvfunc ' || nullif(a.aggminvtransfn::oid, 0)::regprocedure,
            'mstype ' || nullif(a.aggmtranstype, 0)::regtype,
            'msspace ' || nullif(a.aggmtransspace, 0),
            'mfinalfunc ' || nullif(a.aggmfinalfn::oid, 0)::regprocedure,
            case when a.aggmfinalextra then 'mfinalfunc_extra' end,
            'mfinalfunc_modify ' || case a.aggmfinalmodify when 's' then 'shareable' when 'w' then 'read_write' end,
            'minitcond ' || quote_literal(a.aggminitval),
            'sortop ' || nullif(a.aggsortop, 0)::regoperator,
            'parallel ' || case r.proparallel when 's' then 'safe' when 'r' then 'restricted' end
        )
    from routine as r inner join pg_aggregate as a on r.oid = a.aggfnoid
    union all
    -- Types
    select
        t.object,
        'definition',
        case t.typtype
            when 'e'
                then
                    'enum ' || (
                        select string_agg(quote_literal(l.enumlabel), ', ' order by l.enumsortorder)
                        from pg_enum as l
                        where l.enumtypid = t.oid
                    )
            when 'd'
                then
                    concat_ws(
                        '  ',
                        format_type(t.typbasetype, t.typtypmod),
                        'collation ' || nullif(t.typcollation, b.typcollation)::regcollation,
                        case when t.typnotnull then 'not null' end,
                        'default ' || coalesce(pg_get_expr(t.typdefaultbin, 0, true), t.typdefault)
                    )
            when 'r'
                then (
                    select
                        concat_ws(
                            '  ',
                            'range of ' || g.rngsubtype::regtype,
                            'collation ' || nullif(g.rngcollation, 0)::regcollation,
                            format('operator class %I.%I', n.nspname, c.opcname),
                            'canonical ' || nullif(g.rngcanonical::oid, 0)::regprocedure,
                            'subtype_diff ' || nullif(g.rngsubdiff::oid, 0)::regprocedure,
                            'multirange ' || g.rngmultitypid::regtype
                        )
                    from pg_range as g
                    inner join pg_opclass as c on g.rngsubopc = c.oid
                    inner join pg_namespace as n on c.opcnamespace = n.oid
                    where g.rngtypid = t.oid
                )
            when 'm' then 'multirange'
            -- In order: the values of a composite type are written by position.
            when 'c'
                then
                    'composite of ' || (
                        select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
                        from pg_attribute as a
                        where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
                    )
            when 'p' then 'shell'
            else concat_ws(
                '  ',
                'input ' || t.typinput::regprocedure, 'output ' || t.typoutput::regprocedure,
                'receive ' || nullif(t.typreceive::oid, 0)::regprocedure,
                'send ' || nullif(t.typsend::oid, 0)::regprocedure,
                'typmod_in ' || nullif(t.typmodin::oid, 0)::regprocedure,
                'typmod_out ' || nullif(t.typmodout::oid, 0)::regprocedure,
                'analyze ' || nullif(t.typanalyze::oid, 0)::regprocedure,
                'subscript ' || nullif(t.typsubscript::oid, 0)::regprocedure,
                'length ' || t.typlen, case when t.typbyval then 'passed by value' end,
                'alignment '
                || case t.typalign when 'c' then 'char' when 's' then 'int2' when 'i' then 'int4' else 'double' end,
                'storage ' || case t.typstorage
                    when 'p' then 'plain' when 'e' then 'external' when 'x' then 'extended' else 'main'
                end,
                format('category %L', t.typcategory),
                case when t.typispreferred then 'preferred' end, 'default ' || quote_literal(t.typdefault),
                'element ' || nullif(t.typelem, 0)::regtype, format('delimiter %L', t.typdelim),
                case when t.typcollation <> 0 then 'collatable' end
            )
        end
    from type_of_ours as t left join pg_type as b on t.typbasetype = b.oid
    union all
    -- Operators, casts, text search, languages
    select
        o.object,
        'definition',
        concat_ws(
            '  ',
            'function ' || p.oprcode::regprocedure,
            'commutator ' || nullif(p.oprcom, 0)::regoperator, 'negator ' || nullif(p.oprnegate, 0)::regoperator,
            'restrict ' || nullif(p.oprrest::oid, 0)::regprocedure,
            'join ' || nullif(p.oprjoin::oid, 0)::regprocedure,
            case when p.oprcanhash then 'hashes' end, case when p.oprcanmerge then 'merges' end
        )
    from pg_operator as p inner join object as o on o.classid = 'pg_operator'::regclass and p.oid = o.objid
    union all
    select
        o.object,
        'definition',
        concat_ws(
            '  ',
            'for ' || c.opcintype::regtype, format('family %I.%I', n.nspname, f.opfname),
            case when c.opcdefault then 'default' end, 'storage ' || nullif(c.opckeytype, 0)::regtype
        )
    from pg_opclass as c
    inner join object as o on o.classid = 'pg_opclass'::regclass and c.oid = o.objid
    inner join pg_opfamily as f on c.opcfamily = f.oid
    inner join pg_namespace as n on f.opfnamespace = n.oid
    union all
    select
        o.object,
        format('operator %s (%s, %s)', a.amopstrategy, a.amoplefttype::regtype, a.amoprighttype::regtype),
        concat_ws('  ', a.amopopr::regoperator, 'order by ' || quote_ident(n.nspname) || '.' || quote_ident(f.opfname))
    from pg_amop as a
    inner join object as o on o.classid = 'pg_opfamily'::regclass and a.amopfamily = o.objid
    left join pg_opfamily as f on a.amopsortfamily = f.oid
    left join pg_namespace as n on f.opfnamespace = n.oid
    union all
    select
        o.object,
        format('function %s (%s, %s)', a.amprocnum, a.amproclefttype::regtype, a.amprocrighttype::regtype),
        a.amproc::regprocedure::text
    from pg_amproc as a
    inner join object as o on o.classid = 'pg_opfamily'::regclass and a.amprocfamily = o.objid
    union all
    select
        o.object,
        'definition',
        concat_ws(
            '  ',
            case c.castmethod
                when 'f' then 'function ' || c.castfunc::regprocedure when 'i' then 'inout' else 'binary'
            end,
            case c.castcontext when 'i' then 'implicit' when 'a' then 'on assignment' else 'explicit' end
        )
    from pg_cast as c inner join object as o on o.classid = 'pg_cast'::regclass and c.oid = o.objid
    union all
    -- 17 renamed colliculocale to colllocale.
    select
        o.object,
        'definition',
        concat_ws(
            '  ',
            'provider '
            || case c.collprovider when 'c' then 'libc' when 'i' then 'icu' when 'b' then 'builtin' else 'default' end,
            'locale ' || coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale'),
            'collate ' || c.collcollate, 'ctype ' || c.collctype,
            case when not c.collisdeterministic then 'nondeterministic' end,
            'rules ' || quote_literal(c.collicurules)
        )
    from pg_collation as c inner join object as o on o.classid = 'pg_collation'::regclass and c.oid = o.objid
    union all
    select
        o.object,
        'definition',
        concat_ws(
            '  ',
            'from ' || pg_encoding_to_char(c.conforencoding), 'to ' || pg_encoding_to_char(c.contoencoding),
            'function ' || c.conproc::regprocedure, case when c.condefault then 'default' end
        )
    from pg_conversion as c inner join object as o on o.classid = 'pg_conversion'::regclass and c.oid = o.objid
    union all
    select
        o.object,
        'definition',
        concat_ws(
            '  ',
            'start ' || p.prsstart::regprocedure, 'gettoken ' || p.prstoken::regprocedure,
            'end ' || p.prsend::regprocedure,
            'headline ' || nullif(p.prsheadline::oid, 0)::regprocedure, 'lextypes ' || p.prslextype::regprocedure
        )
    from pg_ts_parser as p inner join object as o on o.classid = 'pg_ts_parser'::regclass and p.oid = o.objid
    union all
    select
        o.object,
        'definition',
        concat_ws('  ', 'init ' || nullif(t.tmplinit::oid, 0)::regprocedure, 'lexize ' || t.tmpllexize::regprocedure)
    from pg_ts_template as t inner join object as o on o.classid = 'pg_ts_template'::regclass and t.oid = o.objid
    union all
    select
        o.object,
        'definition',
        concat_ws('  ', format('template %I.%I', n.nspname, t.tmplname), d.dictinitoption)
    from pg_ts_dict as d
    inner join object as o on o.classid = 'pg_ts_dict'::regclass and d.oid = o.objid
    inner join pg_ts_template as t on d.dicttemplate = t.oid
    inner join pg_namespace as n on t.tmplnamespace = n.oid
    union all
    select
        o.object,
        'parser',
        format('%I.%I', n.nspname, p.prsname)
    from pg_ts_config as c
    inner join object as o on o.classid = 'pg_ts_config'::regclass and c.oid = o.objid
    inner join pg_ts_parser as p on c.cfgparser = p.oid
    inner join pg_namespace as n on p.prsnamespace = n.oid
    union all
    select
        o.object,
        'mapping for ' || k.alias,
        string_agg(m.mapdict::regdictionary::text, ', ' order by m.mapseqno)
    from pg_ts_config_map as m
    inner join object as o on o.classid = 'pg_ts_config'::regclass and m.mapcfg = o.objid
    inner join pg_ts_config as c on m.mapcfg = c.oid
    inner join lateral ts_token_type(c.cfgparser) as k on m.maptokentype = k.tokid
    group by o.object, k.alias
    union all
    select
        o.object,
        'definition',
        concat_ws(
            '  ',
            case when l.lanpltrusted then 'trusted' else 'untrusted' end,
            'handler ' || nullif(l.lanplcallfoid, 0)::regprocedure,
            'inline ' || nullif(l.laninline, 0)::regprocedure,
            'validator ' || nullif(l.lanvalidator, 0)::regprocedure
        )
    from pg_language as l inner join object as o on o.classid = 'pg_language'::regclass and l.oid = o.objid
    union all
    select
        o.object,
        'definition',
        concat_ws(
            '  ',
            'from sql ' || nullif(t.trffromsql::oid, 0)::regprocedure,
            'to sql ' || nullif(t.trftosql::oid, 0)::regprocedure
        )
    from pg_transform as t inner join object as o on o.classid = 'pg_transform'::regclass and t.oid = o.objid
    union all
    select
        o.object,
        'definition',
        concat_ws('  ', case m.amtype when 'i' then 'index' else 'table' end, 'handler ' || m.amhandler::regprocedure)
    from pg_am as m inner join object as o on o.classid = 'pg_am'::regclass and m.oid = o.objid
    union all
    -- Foreign data
    select
        o.object,
        'definition',
        concat_ws(
            '  ',
            'handler ' || nullif(w.fdwhandler, 0)::regprocedure,
            'validator ' || nullif(w.fdwvalidator, 0)::regprocedure,
            'options ' || (
                select string_agg(x.masked, ', ' order by x.masked collate "C") from masked_option as x
                where x.classid = 'pg_foreign_data_wrapper'::regclass and x.objid = w.oid
            )
        )
    from pg_foreign_data_wrapper as w
    inner join object as o on o.classid = 'pg_foreign_data_wrapper'::regclass and w.oid = o.objid
    union all
    select
        o.object,
        'definition',
        concat_ws(
            '  ',
            'wrapper ' || quote_ident(w.fdwname), 'type ' || quote_literal(s.srvtype),
            'version ' || quote_literal(s.srvversion),
            'options ' || (
                select string_agg(x.masked, ', ' order by x.masked collate "C") from masked_option as x
                where x.classid = 'pg_foreign_server'::regclass and x.objid = s.oid
            )
        )
    from pg_foreign_server as s
    inner join object as o on o.classid = 'pg_foreign_server'::regclass and s.oid = o.objid
    inner join pg_foreign_data_wrapper as w on s.srvfdw = w.oid
    union all
    select
        'server ' || quote_ident(m.srvname),
        'user mapping for ' || n.name,
        ''
    from pg_user_mappings as m inner join role_name as n on m.umuser = n.oid
    union all
    -- Replication and events
    select
        o.object,
        'definition',
        concat_ws(
            ', ',
            case when p.puballtables then 'all tables' end,
            case when p.pubinsert then 'insert' end, case when p.pubupdate then 'update' end,
            case when p.pubdelete then 'delete' end, case when p.pubtruncate then 'truncate' end,
            case when p.pubviaroot then 'via partition root' end,
            case to_jsonb(p) ->> 'pubgencols' when 's' then 'stored generated columns' end
        )
    from pg_publication as p inner join object as o on o.classid = 'pg_publication'::regclass and p.oid = o.objid
    union all
    select
        o.object,
        'table ' || p.prrelid::regclass,
        concat_ws(
            '  ',
            '(' || (
                select string_agg(quote_ident(a.attname), ', ' order by a.attname collate "C")
                from pg_attribute as a
                where a.attrelid = p.prrelid and a.attnum = any(p.prattrs)
            ) || ')',
            'where ' || pg_get_expr(p.prqual, p.prrelid, true)
        )
    from pg_publication_rel as p
    inner join object as o on o.classid = 'pg_publication'::regclass and p.prpubid = o.objid
    union all
    select
        o.object,
        'tables in schema ' || p.pnnspid::regnamespace,
        ''
    from pg_publication_namespace as p
    inner join object as o on o.classid = 'pg_publication'::regclass and p.pnpubid = o.objid
    union all
    select
        o.object,
        'definition',
        concat_ws(
            '  ',
            case when s.subenabled then 'enabled' else 'disabled' end,
            'publications '
            || array_to_string(array(
                select x from unnest(s.subpublications) as x
                order by x collate "C"
            ), ', '),
            'slot ' || quote_ident(s.subslotname), 'synchronous commit ' || s.subsynccommit,
            'origin ' || s.suborigin,
            'streaming ' || case s.substream when 't' then 'on' when 'p' then 'parallel' end,
            case when s.subbinary then 'binary' end,
            case when s.subtwophasestate <> 'd' then 'two-phase' end,
            case when s.subdisableonerr then 'disable on error' end,
            case when s.subpasswordrequired then 'password required' end,
            case when s.subrunasowner then 'run as owner' end
        )
    from pg_subscription as s inner join object as o on o.classid = 'pg_subscription'::regclass and s.oid = o.objid
    union all
    select
        o.object,
        'definition',
        concat_ws(
            '  ',
            'on ' || e.evtevent,
            'when tag in ' || (select string_agg(t, ', ' order by t collate "C") from unnest(e.evttags) as t),
            'execute ' || e.evtfoid::regprocedure,
            case e.evtenabled
                when 'D' then 'disabled' when 'R' then 'enabled replica' when 'A' then 'enabled always'
            end
        )
    from pg_event_trigger as e inner join object as o on o.classid = 'pg_event_trigger'::regclass and e.oid = o.objid
    union all
    -- Without the owner, which cannot be changed and depends on the role that created the database.
    select
        'extension ' || quote_ident(extname),
        'definition',
        format('version %s  schema %s', extversion, extnamespace::regnamespace)
    from extension
    union all
    -- The database and its roles. Connection strings and logins depend on the environment.
    select
        'database',
        'connection limit',
        nullif(datconnlimit, -1)::text
    from this_database
    union all
    select
        coalesce(r.object, 'database'),
        'setting ' || s.name
        || case when r.oid is not null and s.setdatabase <> 0 then ' in this database' else '' end,
        s.value
    from setting as s
    inner join this_database as d on s.setdatabase in (0, d.oid)
    left join group_role as r on s.setrole = r.oid
    where r.oid is not null or (s.setrole = 0 and s.setdatabase = d.oid)
    union all
    select
        r.object,
        'member of ' || n.name,
        string_agg(
            concat_ws(
                ', ',
                case when m.inherit_option then 'inherit' else 'noinherit' end,
                case when m.set_option then 'set' else 'noset' end,
                case when m.admin_option then 'admin' end
            ) || case when g.name = '<owner>' then '' else ' by ' || g.name end,
            '; ' order by g.name collate "C"
        )
    from pg_auth_members as m
    inner join group_role as r on m.member = r.oid
    inner join role_name as n on m.roleid = n.oid
    left join role_name as g on m.grantor = g.oid
    group by r.object, n.name
    union all
    -- Properties of any kind of object
    select
        o.object,
        'owner',
        n.name
    from object as o inner join role_name as n on o.owner = n.oid
    where o.object <> 'database'
    union all
    select
        g.object,
        g.part || coalesce(n.name, g.grantee::text),
        g.privileges
    from granted as g left join role_name as n on g.grantee = n.oid
),

-- initdb makes thousands of comments; of its objects, only schema public belongs to our schema.
comment_text as materialized (
    select
        classoid,
        objoid,
        objsubid,
        description
    from pg_description
    where
        objoid >= 16384
        or classoid = 'pg_largeobject'::regclass
        or (classoid = 'pg_namespace'::regclass and description <> 'standard public schema')
    union all
    select
        classoid,
        objoid,
        0 as objsubid,
        description
    from pg_shdescription
),

security_label as materialized (
    select
        classoid,
        objoid,
        objsubid,
        provider,
        label
    from pg_seclabel
    union all
    select
        classoid,
        objoid,
        0 as objsubid,
        provider,
        label
    from pg_shseclabel
),

fact (object, part, definition) as (
    select
        object,
        part,
        definition
    from property
    where definition is not null
    union all
    -- As JSON, a comment of several lines stays on one line.
    select
        p.object,
        p.part,
        concat_ws('  ', nullif(p.definition, ''), 'comment ' || to_json(c.description))
    from part as p
    left join comment_text as c on p.classid = c.classoid and p.objid = c.objoid and p.subid = c.objsubid
    where p.definition <> '' or c.description is not null
    union all
    select
        o.object,
        'comment',
        to_json(c.description)::text
    from object as o
    inner join comment_text as c on o.classid = c.classoid and o.objid = c.objoid and c.objsubid = 0
    union all
    select
        d.object,
        concat_ws(' ', 'security label', l.provider, 'on ' || nullif(d.part, '')),
        l.label
    from (
        select
            classid,
            objid,
            0 as subid,
            object,
            '' as part
        from object
        union all
        select
            classid,
            objid,
            subid,
            object,
            part
        from part
    ) as d
    inner join security_label as l on d.classid = l.classoid and d.objid = l.objoid and d.subid = l.objsubid
    union all
    select
        d.object,
        concat_ws(' ', nullif(d.part, ''), 'depends on extension'),
        quote_ident(e.extname)
    from (
        select
            classid,
            objid,
            object,
            '' as part
        from object
        union all
        select
            classid,
            objid,
            object,
            part
        from part
        where subid = 0
    ) as d
    inner join pg_depend as x on d.classid = x.classid and d.objid = x.objid and x.deptype = 'x'
    inner join pg_extension as e on x.refclassid = 'pg_extension'::regclass and x.refobjid = e.oid
)

select
    object collate "C" as object,
    part collate "C" as part,
    definition collate "C" as definition
from fact
order by object, part, definition
