"""The `tag` table: words under which a user files todos. Owned: each user has their own tags."""

from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, Computed, Text, UniqueConstraint
from sqlmodel import Field, Relationship

from .ownership import Owned
from .todo_tag import TodoTag

if TYPE_CHECKING:
    from .todo import Todo
    from .user import User


class Tag(Owned, table=True):
    """A word under which its user files todos."""

    __tablename__ = "tag"
    __table_args__ = (
        # A column, because row security prevents an index on lower(name): lower() is not
        # leakproof.
        UniqueConstraint("user_id", "name_lower"),
        CheckConstraint(r"name ~ '\S'", name="name_not_blank"),
        CheckConstraint("char_length(name) <= 50", name="name_length"),
        {"comment": "A word that its user files todos under"},
    )

    name: str = Field(
        sa_type=Text,
        sa_column_kwargs={
            "comment": "PERSONAL: as the user spells it, in 1 to 50 characters, not all blank"
        },
    )
    name_lower: str = Field(
        default=None,
        sa_type=Text,
        sa_column_args=[Computed("lower(name)", persisted=True)],
        sa_column_kwargs={"comment": "Lower case; unique within its user, and what to search by"},
    )

    user: "User" = Relationship(back_populates="tags")
    todos: list["Todo"] = Relationship(back_populates="tags", link_model=TodoTag)
