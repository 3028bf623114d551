"""The `todo_tag` table: the tags of the todos. Owned."""

from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, Uuid
from sqlmodel import Field

from .ownership import OwnedLink


class TodoTag(OwnedLink, table=True):
    """A todo filed under a tag, both of one user."""

    __tablename__ = "todo_tag"
    __table_args__ = (
        ForeignKeyConstraint(
            ["user_id", "todo_id"], ["todo.user_id", "todo.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["user_id", "tag_id"], ["tag.user_id", "tag.id"], ondelete="CASCADE"),
        # For a tag's todos, newest first, and for the deletion of a tag.
        Index(None, "user_id", "tag_id", "todo_id"),
        {"comment": "A todo filed under a tag of the same user"},
    )

    todo_id: UUID = Field(
        primary_key=True, sa_type=Uuid, sa_column_kwargs={"comment": "What is filed"}
    )
    tag_id: UUID = Field(
        primary_key=True, sa_type=Uuid, sa_column_kwargs={"comment": "What it is filed under"}
    )
