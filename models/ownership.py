"""The base classes of owned tables, and their row security.

`class Note(Owned, table=True)` defines an owned table. A table that links two owned tables derives
from OwnedLink and defines its own key.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, FetchedValue, MetaData, Uuid, event, text
from sqlmodel import Field

from .base import NOW, TIMESTAMPTZ, Base, mappings, metadata
from .functions import ACTING_USER
from .roles import APPLICATION, grant_rows


class OwnedLink(Base):
    """A row that belongs to one user and references rows of the same user.

    Its foreign keys contain `user_id` and the parent's id, so that no role, not even a superuser,
    can reference another user's row. They cascade when the user is deleted.
    """

    user_id: UUID = Field(
        primary_key=True,
        sa_type=Uuid,
        sa_column_kwargs={"comment": "The user who owns this row"},
    )


class Owned(Base):
    """A row that belongs to one user, with the primary key `(user_id, id)`.

    Children reference `(user_id, id)`, and a unique index cannot reveal another user's ids. `id` is
    ordered by time, so that the primary key returns a user's newest rows first.
    """

    user_id: UUID = Field(
        primary_key=True,
        foreign_key="user.id",
        ondelete="CASCADE",
        sa_type=Uuid,
        sa_column_kwargs={"comment": "The user who owns this row"},
    )
    id: UUID = Field(
        default=None,
        primary_key=True,
        sa_type=Uuid,
        sa_column_kwargs={
            "server_default": text("uuid_v7()"),
            "comment": "Ordered by time of creation; unique within its user",
        },
    )
    created_at: datetime = Field(
        default=None,
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={"server_default": NOW, "comment": "When it was written down"},
    )
    updated_at: datetime = Field(
        default=None,
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={
            "server_default": NOW,
            "server_onupdate": FetchedValue(),
            "comment": "Last change, kept by a trigger",
        },
    )


@event.listens_for(metadata, "after_create")
def enable_row_security(_metadata: MetaData, connection: Connection, **_options: object) -> None:
    """Give the application's role access to the acting user's rows of every owned table.

    A trigger sets `updated_at`, so that no client can omit or forge it.
    """
    for mapper in mappings.mappers:
        if not issubclass(mapper.class_, Owned | OwnedLink):
            continue
        name = str(mapper.class_.__tablename__)
        grant_rows(connection, name, f"{name}_owner", APPLICATION, f"user_id = {ACTING_USER}")
        if issubclass(mapper.class_, Owned):
            connection.execute(
                text(
                    f'CREATE TRIGGER "{name}_set_updated_at" BEFORE UPDATE ON "{name}"'
                    " FOR EACH ROW EXECUTE FUNCTION set_updated_at()"
                )
            )
