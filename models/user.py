"""The `user` table. Better Auth writes it; the application can read the acting user's row."""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, Text, text
from sqlmodel import Field, Relationship

from .access import Access, Rule
from .base import NOW, TIMESTAMPTZ
from .better_auth import BetterAuthTable
from .roles import APPLICATION

if TYPE_CHECKING:
    from .account import Account
    from .session import Session
    from .tag import Tag
    from .todo import Todo


class User(BetterAuthTable, table=True):
    """A person who can sign in."""

    __tablename__ = "user"
    __table_args__ = (
        # Better Auth searches for the e-mail in lower case: a user stored otherwise cannot sign in.
        CheckConstraint("email = lower(email)", name="email_lower"),
        {"comment": "A person who can sign in; written by Better Auth"},
    )

    name: str = Field(
        sa_type=Text, sa_column_kwargs={"comment": "PERSONAL: the name shown to others"}
    )
    email: str = Field(
        unique=True,
        sa_type=Text,
        sa_column_kwargs={"comment": "PERSONAL: lower case; what the user signs in with"},
    )
    email_verified: bool = Field(
        default=None,
        sa_column_kwargs={
            "name": "emailVerified",
            "server_default": text("false"),
            "comment": "Whether the user has proven to receive mail at email",
        },
    )
    image: str | None = Field(
        default=None,
        sa_type=Text,
        sa_column_kwargs={"comment": "PERSONAL: the address of a picture"},
    )
    created_at: datetime = Field(
        default=None,
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={"name": "createdAt", "server_default": NOW, "comment": "Sign-up"},
    )
    updated_at: datetime = Field(
        default=None,
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={
            "name": "updatedAt",
            "server_default": NOW,
            "comment": "Last change, kept by Better Auth",
        },
    )

    # The database cascades: the ORM need not load the children to delete them one by one.
    sessions: list["Session"] = Relationship(back_populates="user", passive_deletes="all")
    accounts: list["Account"] = Relationship(back_populates="user", passive_deletes="all")
    todos: list["Todo"] = Relationship(back_populates="user", passive_deletes="all")
    tags: list["Tag"] = Relationship(back_populates="user", passive_deletes="all")

    @classmethod
    def declare_access(cls, table: str) -> Access:
        """Give Better Auth's role all rows, and the application the acting user's row to read."""
        access = super().declare_access(table)
        own = Rule("user_self", APPLICATION, "id = {me}", "SELECT")
        return replace(access, rules=(*access.rules, own))
