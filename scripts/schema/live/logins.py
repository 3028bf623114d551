"""Whether the logins of a live server leave row security in force.

Row security limits a login of the application only as far as its attributes, memberships and
settings let it. They belong to the server, so the history does not have them.

A role is a login of the application, or of Better Auth, if it can use the privileges of a group
role, directly or through another role. The database's owner is none. A role that only administers
a group role is none either: CREATE ROLE gives its creator ADMIN without INHERIT and SET.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, TextClause, text

from schema.live.difference import Difference, Severity
from schema.postgres import login_risks
from schema.postgres.login_risks import Risk
from schema.roles import GROUPS

EVERY_ROLE = "ALL"
"""In ALTER ROLE ALL, and here: settings of every role that has none of its own."""

_MEMBERS = text(
    """
    WITH RECURSIVE owner AS (
      SELECT datdba AS oid FROM pg_database WHERE datname = current_database()
    ),
    reached (member, group_role) AS (
      SELECT m.member, m.roleid
      FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid
      WHERE g.rolname = ANY (:groups) AND (m.inherit_option OR m.set_option)
        AND m.member NOT IN (SELECT oid FROM owner)
      UNION
      SELECT m.member, r.group_role
      FROM reached AS r JOIN pg_auth_members AS m ON m.roleid = r.member
      WHERE (m.inherit_option OR m.set_option) AND m.member NOT IN (SELECT oid FROM owner)
    )
    SELECT r.rolname, array_agg(g.rolname::text ORDER BY g.rolname)
    FROM reached AS m
    JOIN pg_roles AS r ON r.oid = m.member
    JOIN pg_roles AS g ON g.oid = m.group_role
    WHERE r.rolname <> ALL (:groups)
    GROUP BY r.rolname
    ORDER BY 1
    """
)

# Of a role that may create roles, ADMIN alone says that it made the group role.
_ADMINISTRATORS = text(
    """
    SELECT r.rolname, g.rolname
    FROM pg_auth_members AS m
    JOIN pg_roles AS g ON g.oid = m.roleid
    JOIN pg_roles AS r ON r.oid = m.member
    JOIN pg_database AS d ON d.datname = current_database()
    WHERE g.rolname = ANY (:groups) AND m.admin_option AND r.oid <> d.datdba
      AND (r.rolname = ANY (:members) OR NOT (r.rolsuper OR r.rolcreaterole))
    GROUP BY 1, 2
    ORDER BY 1, 2
    """
)

# REVOKE without GRANTED BY does nothing if another role granted the membership.
_GRANTORS = text(
    """
    SELECT format('REVOKE %s%I FROM %I GRANTED BY %I', CAST(:option AS text), g.rolname, r.rolname,
                  pg_get_userbyid(m.grantor))
    FROM pg_auth_members AS m
    JOIN pg_roles AS g ON g.oid = m.roleid
    JOIN pg_roles AS r ON r.oid = m.member
    WHERE r.rolname = :member AND g.rolname = :role AND (m.admin_option OR :option = '')
    ORDER BY 1
    """
)

# Settings apply to the role that logs in, not to its members. ALTER DATABASE … SET is a fact of the
# snapshot: it is the row with this database and no role.
_SETTINGS = text(
    """
    SELECT coalesce(r.rolname, 'ALL'), r.oid IS NOT DISTINCT FROM d.datdba,
      CASE WHEN s.setdatabase <> 0 THEN d.datname END,
      split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
    FROM pg_db_role_setting AS s
    JOIN pg_database AS d ON d.datname = current_database() AND s.setdatabase IN (0, d.oid)
    LEFT JOIN pg_roles AS r ON r.oid = s.setrole
    CROSS JOIN unnest(s.setconfig) AS c
    WHERE (s.setrole = 0 AND s.setdatabase = 0) OR r.oid = d.datdba
      OR (r.rolname = ANY (:members) AND r.rolcanlogin)
    ORDER BY 1, 3 NULLS FIRST, 4
    """
)

_QUOTE = text("SELECT quote_ident(:name)")

_ATTRIBUTES = {
    "SUPERUSER": "so PostgreSQL limits it in nothing",
    "BYPASSRLS": "so row security does not limit it",
    "CREATEROLE": "so it can make roles with more rights",
    "REPLICATION": "so it can read every row through replication",
}

# A setting is harmful unless it has the harmless value, where there is one.
_FOR_LOGINS = {
    "app.user_id": (Severity.ISOLATION, "so its sessions act as a user before they name one"),
    "role": (Severity.ISOLATION, "so its sessions begin with another role's rights"),
    "search_path": (Severity.ISOLATION, "so a name can mean another schema's table or function"),
    "session_preload_libraries": (Severity.ISOLATION, "so its sessions run the library's code"),
    "local_preload_libraries": (Severity.ISOLATION, "so its sessions run the library's code"),
    "standard_conforming_strings": (Severity.ISOLATION, "so quoted values can end their quotes"),
    "session_replication_role": (
        Severity.DATA,
        "so neither foreign keys nor triggers apply to what it writes",
    ),
    "row_security": (Severity.BEHAVIOUR, "so its statements fail where row security limits them"),
    "default_transaction_read_only": (Severity.BEHAVIOUR, "so its writes fail"),
    "default_transaction_isolation": (
        Severity.BEHAVIOUR,
        "so its transactions can fail where others change the same rows",
    ),
}

# A deploy sets search_path itself.
_FOR_DEPLOYS = {
    "role": (Severity.BEHAVIOUR, "so what a deploy makes belongs to another role"),
    "session_replication_role": (
        Severity.DATA,
        "so neither foreign keys nor triggers apply to what a deploy writes",
    ),
    "row_security": (Severity.BEHAVIOUR, "so a deploy cannot add some foreign keys"),
    "default_transaction_read_only": (Severity.BEHAVIOUR, "so a deploy fails"),
    "default_transaction_isolation": (Severity.BEHAVIOUR, "so a deploy sees older rows"),
    "session_preload_libraries": (Severity.BEHAVIOUR, "so a deploy runs the library's code"),
    "local_preload_libraries": (Severity.BEHAVIOUR, "so a deploy runs the library's code"),
}

_ON = {"on", "true", "yes", "1"}
_OFF = {"off", "false", "no", "0"}

_HARMLESS = {
    "app.user_id": {""},
    "role": {"none"},
    "session_preload_libraries": {"", '""'},
    "local_preload_libraries": {"", '""'},
    "standard_conforming_strings": _ON,
    "session_replication_role": {"origin", "local"},
    "row_security": _ON,
    "default_transaction_read_only": _OFF,
    "default_transaction_isolation": {"read committed"},
}


@dataclass(frozen=True)
class _Setting:
    """What a role's sessions begin with."""

    role: str
    deploys: bool
    """Whether the role is the database's owner."""
    database: str | None
    """The database that it is limited to."""
    name: str
    value: str


def judge(connection: Connection) -> list[Difference]:
    """Find what is wrong with the logins, and with the settings of deploys and of every role.

    Any role can read this. The result is sorted by severity, then by role.

    Raises:
        DBAPIError: the catalogs could not be read.

    """
    members = {name: list(groups) for name, groups in _rows(connection, _MEMBERS)}
    found = [
        *_risks(connection, members),
        *_in_both(connection, members),
        *_administrators(connection, members),
        *_settings(connection, members),
    ]
    order = list(Severity)
    return sorted(found, key=lambda one: (order.index(one.severity), one.object))


def _rows(
    connection: Connection, query: TextClause, **values: object
) -> Sequence[Row[*tuple[Any, ...]]]:
    return connection.execute(query, {"groups": list(GROUPS), **values}).all()


def _risks(connection: Connection, members: dict[str, list[str]]) -> Iterator[Difference]:
    """Report attributes, and memberships in roles with too many rights.

    What a login has through another member, or through a group role, is reported there.
    """
    risks = login_risks.find(connection, list(members))
    for (login, first), group in groupby(risks, key=lambda risk: (risk.login, risk.first)):
        if first is None:
            yield from (_own_risk(connection, risk) for risk in group)
        elif first not in {*members, *GROUPS}:
            yield _membership(connection, login, first, list(group))


def _own_risk(connection: Connection, risk: Risk) -> Difference:
    name = _quoted(connection, risk.login)
    if risk.what in _ATTRIBUTES:
        why, sql = _ATTRIBUTES[risk.what], f"ALTER ROLE {name} NO{risk.what}"
        part = f"attribute {risk.what.lower()}"
    else:
        why, sql = "so row security may not limit it, and it can change them", None
        part = "owner of objects in schema public"
    return Difference(
        object=f"role {name}",
        part=part,
        was=None,
        found=risk.what,
        severity=Severity.ISOLATION,
        sentence=f"the login {name} has {risk.what}, {why}",
        sql=sql,
    )


def _membership(connection: Connection, login: str, first: str, risks: list[Risk]) -> Difference:
    name, through = _quoted(connection, login), _quoted(connection, first)
    rights = ", ".join(
        risk.what if risk.role == first else str(risk)
        for risk in sorted(risks, key=lambda risk: risk.role != first)
    )
    return Difference(
        object=f"role {name}",
        part=f"member of {through}",
        was=None,
        found=rights,
        severity=Severity.ISOLATION,
        sentence=(
            f"the login {name} is a member of {through}, so it has {rights}, and can see more than"
            " its user's rows"
        ),
        sql=_revoke(connection, login, first),
    )


def _in_both(connection: Connection, members: dict[str, list[str]]) -> Iterator[Difference]:
    for login, groups in members.items():
        if len(groups) == len(GROUPS):
            name = _quoted(connection, login)
            yield Difference(
                object=f"role {name}",
                part=f"member of {' and of '.join(groups)}",
                was=None,
                found=", ".join(groups),
                severity=Severity.ISOLATION,
                sentence=(
                    f"the login {name} has the rights of {' and of '.join(groups)}, so the"
                    " application can see every user's sessions; make a login for each"
                ),
            )


def _administrators(connection: Connection, members: dict[str, list[str]]) -> Iterator[Difference]:
    for login, group in _rows(connection, _ADMINISTRATORS, members=list(members)):
        name = _quoted(connection, login)
        yield Difference(
            object=f"role {name}",
            part=f"admin of {group}",
            was=None,
            found="ADMIN OPTION",
            severity=Severity.ISOLATION,
            sentence=f"the role {name} can make any role a member of {group}, itself included",
            sql=_revoke(connection, login, group, option="ADMIN OPTION FOR "),
        )


def _settings(connection: Connection, members: dict[str, list[str]]) -> Iterator[Difference]:
    for row in _rows(connection, _SETTINGS, members=list(members)):
        setting = _Setting(*row)
        harmful = (_FOR_DEPLOYS if setting.deploys else _FOR_LOGINS).get(setting.name.lower())
        if harmful is None or _is_harmless(setting):
            continue
        every = setting.role == EVERY_ROLE
        name = EVERY_ROLE if every else _quoted(connection, setting.role)
        where = "" if setting.database is None else " in this database"
        database = _quoted(connection, setting.database or "")
        severity, why = harmful
        whose = "every role" if every else f"the role {name}"
        yield Difference(
            object=f"role {name}",
            part=f"setting {setting.name}{where}",
            was=None,
            found=setting.value,
            severity=severity,
            sentence=f"{whose} has {setting.name} = {setting.value}{where}, {why}",
            sql=(
                f"ALTER ROLE {name}{f' IN DATABASE {database}' if where else ''}"
                f" RESET {setting.name}"
            ),
        )


def _is_harmless(setting: _Setting) -> bool:
    name, value = setting.name.lower(), setting.value.lower()
    if name == "search_path":
        schemas = [one.strip().strip('"') for one in value.split(",")]
        # Temporary tables are found first unless pg_temp comes last, and functions never.
        rest = schemas[schemas[0] == "pg_catalog" : len(schemas) - (schemas[-1] == "pg_temp")]
        return "public" in rest and set(rest) <= {"public", "$user"}
    return value in _HARMLESS[name]


def _revoke(connection: Connection, login: str, role: str, *, option: str = "") -> str | None:
    statements = connection.execute(_GRANTORS, {"member": login, "role": role, "option": option})
    return "; ".join(statements.scalars()) or None


def _quoted(connection: Connection, name: str) -> str:
    quoted: str = connection.execute(_QUOTE, {"name": name}).scalar_one()
    return quoted
