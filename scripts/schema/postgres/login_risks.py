"""What makes a login of the application or of Better Auth unsafe: attributes and memberships.

They bypass row security, or let the login grant itself more. `schema roles` refuses such a login,
and the commands that read an existing database report it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from schema.roles import GROUPS

# With both group roles the application could see every user's sessions. A membership counts even
# without INHERIT and SET: its ADMIN option is enough to get them.
_RISKS = text(
    """
    WITH RECURSIVE membership (login, first, oid) AS (
      SELECT oid, NULL::oid, oid FROM pg_roles WHERE rolname = ANY (:names)
      UNION
      SELECT s.login, coalesce(s.first, m.roleid), m.roleid
      FROM membership AS s JOIN pg_auth_members AS m ON m.member = s.oid
    )
    SELECT l.rolname, f.rolname, r.rolname, found.what
    FROM membership AS s
    JOIN pg_roles AS l ON l.oid = s.login
    LEFT JOIN pg_roles AS f ON f.oid = s.first
    JOIN pg_roles AS r ON r.oid = s.oid
    CROSS JOIN pg_database AS d
    CROSS JOIN LATERAL (VALUES
      ('SUPERUSER', r.rolsuper),
      ('BYPASSRLS', r.rolbypassrls),
      ('CREATEROLE', r.rolcreaterole),
      ('REPLICATION', r.rolreplication),
      ('the rights of ' || r.rolname, r.rolname ~ '^pg_' OR r.rolname = ANY (:groups)),
      ('the owner''s rights', r.oid = d.datdba OR EXISTS (
        SELECT FROM pg_class AS c
        WHERE c.relowner = r.oid AND c.relnamespace = to_regnamespace('public')
      ))
    ) AS found (what, holds)
    WHERE found.holds AND d.datname = current_database()
    ORDER BY 1, 2 NULLS FIRST, 3, 4
    """
)


@dataclass(frozen=True)
class Risk:
    """One thing that a login should not have."""

    login: str
    first: str | None
    """The role that the login is a member of, and has this through; None if it has it itself."""
    role: str
    """The role that has it: the login, `first`, or one that `first` is a member of."""
    what: str
    """An attribute (`BYPASSRLS`), or `the rights of` a role."""

    def __str__(self) -> str:
        """Describe it in a list: `BYPASSRLS through neon_superuser`."""
        return self.what if self.role == self.login else f"{self.what} through {self.role}"


def find(connection: Connection, names: Sequence[str]) -> list[Risk]:
    """Find what the roles should not have as logins; a group role's own rights are listed too."""
    rows = connection.execute(_RISKS, {"names": list(names), "groups": list(GROUPS)})
    return [Risk(*row) for row in rows]


def rights_of(role: str) -> str:
    """Return `Risk.what` of a membership in the role."""
    return f"the rights of {role}"
