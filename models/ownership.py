"""What makes a table a user's own: its key, and the row security that follows from it."""

from uuid import UUID

from sqlalchemy import Connection, MetaData, Uuid, event, text
from sqlmodel import Field

from .base import Base, mappings, metadata
from .functions import ACTING_USER
from .roles import APPLICATION


class Owned(Base):
    """The primary key `(user_id, id)` of a table whose rows belong to one user each.

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


@event.listens_for(metadata, "after_create")
def isolate(_metadata: MetaData, connection: Connection, **_options: object) -> None:
    """Let the application's role see and change only its own user's rows of every owned table."""
    for mapper in mappings.mappers:
        if not issubclass(mapper.class_, Owned):
            continue
        name = mapper.class_.__tablename__
        for statement in (
            f'ALTER TABLE "{name}" ENABLE ROW LEVEL SECURITY',
            f'ALTER TABLE "{name}" FORCE ROW LEVEL SECURITY',
            f'CREATE POLICY "{name}_owner" ON "{name}" TO {APPLICATION}'
            f" USING (user_id = {ACTING_USER}) WITH CHECK (user_id = {ACTING_USER})",
            f'GRANT SELECT, INSERT, UPDATE, DELETE ON "{name}" TO {APPLICATION}',
        ):
            connection.execute(text(statement))
