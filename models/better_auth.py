"""The base class of Better Auth's tables: a random uuid key, and access for Better Auth's role.

Better Auth needs all rows, because it reads them before it knows the user. Its policy allows every
row; row security excludes the other roles.
"""

from uuid import UUID

from sqlalchemy import Uuid, text
from sqlmodel import Field

from .access import Access, Rule
from .base import Base
from .roles import BETTER_AUTH


class BetterAuthTable(Base):
    """The base class of Better Auth's tables.

    With `advanced.database.generateId: "uuid"` Better Auth's INSERT has no `id`: the database
    generates it.
    """

    id: UUID = Field(
        default=None,
        primary_key=True,
        sa_type=Uuid,
        sa_column_kwargs={
            "server_default": text("gen_random_uuid()"),
            "comment": "Random, so that it cannot be guessed",
        },
    )

    @classmethod
    def declare_access(cls, table: str) -> Access:
        """Give Better Auth's role all rows."""
        return Access("Better Auth", (Rule(f"{table}_auth", BETTER_AUTH, "true"),))
