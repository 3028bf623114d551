"""The `session` table: sign-ins. Only Better Auth can read it: `token` is a secret."""

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Index, Text, Uuid
from sqlmodel import Field, Relationship

from .base import NOW, TIMESTAMPTZ
from .better_auth import BetterAuthTable

if TYPE_CHECKING:
    from .user import User


class Session(BetterAuthTable, table=True):
    """A signed-in browser or device."""

    __tablename__ = "session"
    __table_args__ = (
        Index(None, "userId"),
        Index(None, "expiresAt"),  # for the clean-up of expired sessions
        {"comment": "A signed-in browser or device; Better Auth's alone"},
    )

    expires_at: datetime = Field(
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={"name": "expiresAt", "comment": "From then on the session is void"},
    )
    token: str = Field(
        unique=True,
        sa_type=Text,
        sa_column_kwargs={"comment": "SECRET: whoever holds it is signed in"},
    )
    created_at: datetime = Field(
        default=None,
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={"name": "createdAt", "server_default": NOW, "comment": "Sign-in"},
    )
    updated_at: datetime = Field(
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={"name": "updatedAt", "comment": "Last change, kept by Better Auth"},
    )
    ip_address: str | None = Field(
        default=None,
        sa_type=Text,
        sa_column_kwargs={"name": "ipAddress", "comment": "PERSONAL: where the sign-in came from"},
    )
    user_agent: str | None = Field(
        default=None,
        sa_type=Text,
        sa_column_kwargs={"name": "userAgent", "comment": "PERSONAL: the browser's own name"},
    )
    user_id: UUID = Field(
        foreign_key="user.id",
        ondelete="CASCADE",
        sa_type=Uuid,
        sa_column_kwargs={"name": "userId", "comment": "Who is signed in"},
    )

    user: "User" = Relationship(back_populates="sessions")
