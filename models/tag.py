"""`tag`: a word that a user files todos under. Owned: each user has tags of their own."""

from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, Computed, Text, UniqueConstraint
from sqlmodel import Field, Relationship

from .ownership import Owned
from .todo_tag import TodoTag

if TYPE_CHECKING:
    from .todo import Todo
    from .user import User


class Tag(Owned, table=True):
    """A word that its user files todos under."""

    __tablename__ = "tag"
    __table_args__ = (
        # A column, not an index on an expression: lower() is not leakproof, and would be
        # evaluated row by row under row security.
        UniqueConstraint("user_id", "name_lower"),
        CheckConstraint(r"name ~ '\S'", name="name_not_blank"),
        CheckConstraint("char_length(name) <= 50", name="name_length"),
        {"comment": "A word that its user files todos under"},
    )

    name: str = Field(
        sa_type=Text,
        sa_column_kwargs={"comment": "As the user spells it, in 1 to 50 characters, not all blank"},
    )
    name_lower: str = Field(
        default=None,
        sa_type=Text,
        sa_column_args=[Computed("lower(name)", persisted=True)],
        sa_column_kwargs={"comment": "Lower case; unique within its user, and what to search by"},
    )

    user: "User" = Relationship(back_populates="tags")
    todos: list["Todo"] = Relationship(back_populates="tags", link_model=TodoTag)
