"""What makes a table a user's own: its key, and the row security that follows from it.

One line does it: `class Note(Owned, table=True)`. A table that only links two owned tables derives
from OwnedLink and names its key itself.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, FetchedValue, MetaData, Uuid, event, text
from sqlmodel import Field

from .base import NOW, TIMESTAMPTZ, Base, mappings, metadata
from .functions import ACTING_USER
from .roles import APPLICATION, open_rows


class OwnedLink(Base):
    """A row that belongs to one user, and hangs below rows of the same user.

    Its foreign keys hold `user_id` and the parent's id, so that no role, not even a superuser,
    can hang one user's row below another's. Through them it cascades with its user.
    """

    user_id: UUID = Field(
        primary_key=True,
        sa_type=Uuid,
        sa_column_kwargs={"comment": "The user who owns this row"},
    )


class Owned(Base):
    """A row that belongs to one user, under the primary key `(user_id, id)`.

    Every access is scoped by its user, children reference their parent by owner too, and no
    unique index lets one user probe another's ids. `id` is ordered by time, so that the primary
    key alone serves a user's newest rows first.
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
def isolate(_metadata: MetaData, connection: Connection, **_options: object) -> None:
    """Let the application's role see and change only its own user's rows of every owned table.

    `updated_at` is kept by a trigger, so that no writer can forget it or lie about it.
    """
    for mapper in mappings.mappers:
        if not issubclass(mapper.class_, Owned | OwnedLink):
            continue
        name = str(mapper.class_.__tablename__)
        open_rows(connection, name, f"{name}_owner", APPLICATION, f"user_id = {ACTING_USER}")
        if issubclass(mapper.class_, Owned):
            connection.execute(
                text(
                    f'CREATE TRIGGER "{name}_set_updated_at" BEFORE UPDATE ON "{name}"'
                    " FOR EACH ROW EXECUTE FUNCTION set_updated_at()"
                )
            )
