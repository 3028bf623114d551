"""What makes a table Better Auth's: a random uuid key, and its role's access to all rows.

Better Auth reads and writes the rows of all users, before it knows who is asking: its policy lets
every row through, and row security is there for everyone else.
"""

from uuid import UUID

from sqlalchemy import Connection, MetaData, Uuid, event, text
from sqlmodel import Field

from .base import Base, mappings, metadata
from .roles import BETTER_AUTH, open_rows


class BetterAuthTable(Base):
    """The primary key of a Better Auth table.

    With `advanced.database.generateId: "uuid"` Better Auth leaves `id` out of its INSERT: the
    database must make it.
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
    """Give Better Auth's role its tables, and every other role none of their rows."""
    for mapper in mappings.mappers:
        if issubclass(mapper.class_, BetterAuthTable):
            name = str(mapper.class_.__tablename__)
            open_rows(connection, name, f"{name}_auth", BETTER_AUTH, "true")
