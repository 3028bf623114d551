"""The `todo` table. Owned: each user can see and change only their own todos."""

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, ColumnElement, Index, Text, text
from sqlalchemy.ext.hybrid import hybrid_property
from sqlmodel import Field, Relationship, col

from .base import TIMESTAMPTZ
from .ownership import Owned
from .todo_tag import TodoTag

if TYPE_CHECKING:
    from .tag import Tag
    from .user import User


class Todo(Owned, table=True):
    """A thing to do."""

    model_config = {"ignored_types": (hybrid_property,)}  # noqa: RUF012  # pydantic's idiom

    __tablename__ = "todo"
    __table_args__ = (
        CheckConstraint(r"title ~ '\S'", name="title_not_blank"),
        CheckConstraint("char_length(title) <= 500", name="title_length"),
        CheckConstraint("char_length(description) <= 10000", name="description_length"),
        # A user's open todos, newest first.
        Index("todo_open_idx", "user_id", "id", postgresql_where=text("completed_at IS NULL")),
        # A user's open todos by due date; with id, the next page can start after the last row.
        Index(
            "todo_due_idx",
            "user_id",
            "due_at",
            "id",
            postgresql_where=text("completed_at IS NULL AND due_at IS NOT NULL"),
        ),
        {"comment": "A thing that its user means to do"},
    )

    title: str = Field(
        sa_type=Text,
        sa_column_kwargs={"comment": "PERSONAL: what to do, in 1 to 500 characters, not all blank"},
    )
    description: str | None = Field(
        default=None,
        sa_type=Text,
        sa_column_kwargs={"comment": "PERSONAL: more about it, in at most 10,000 characters"},
    )
    due_at: datetime | None = Field(
        default=None, sa_type=TIMESTAMPTZ, sa_column_kwargs={"comment": "When it should be done"}
    )
    completed_at: datetime | None = Field(
        default=None,
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={"comment": "When it was done; NULL while it is open"},
    )
    user: "User" = Relationship(back_populates="todos")
    tags: list["Tag"] = Relationship(
        back_populates="todos",
        link_model=TodoTag,
        # The database deletes the links, by ON DELETE CASCADE.
        sa_relationship_kwargs={"passive_deletes": True},
    )

    @hybrid_property
    def completed(self) -> bool:
        """Whether it is done; in a query, the condition of the partial indexes."""
        return self.completed_at is not None

    @completed.inplace.expression
    @classmethod
    def _completed(cls) -> ColumnElement[bool]:
        return col(cls.completed_at).is_not(None)
