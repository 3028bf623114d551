"""The base class of Better Auth's tables: a random uuid key, and access for Better Auth's role.

Better Auth needs all rows, because it reads them before it knows the user. Its policy allows every
row; row security excludes the other roles.
"""

from uuid import UUID

from sqlalchemy import Connection, MetaData, Uuid, event, text
from sqlmodel import Field

from .base import Base, mappings, metadata
from .roles import BETTER_AUTH, grant_rows


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


@event.listens_for(metadata, "after_create")
def grant_better_auth(_metadata: MetaData, connection: Connection, **_options: object) -> None:
    """Grant Better Auth's role all rows of its tables."""
    for mapper in mappings.mappers:
        if issubclass(mapper.class_, BetterAuthTable):
            name = str(mapper.class_.__tablename__)
            grant_rows(connection, name, f"{name}_auth", BETTER_AUTH, "true")
