"""The `account` table: a user's ways to sign in. Only Better Auth can read it: it has secrets."""

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Index, Text, UniqueConstraint, Uuid
from sqlmodel import Field, Relationship

from .base import NOW, TIMESTAMPTZ
from .better_auth import BetterAuthTable

if TYPE_CHECKING:
    from .user import User


class Account(BetterAuthTable, table=True):
    """A user's password, or a user's identity at another provider."""

    __tablename__ = "account"
    __table_args__ = (
        # Better Auth raises an error if two accounts share an identity.
        UniqueConstraint("providerId", "accountId"),
        Index(None, "userId"),
        {"comment": "One way to sign in: a password or a provider; Better Auth's alone"},
    )

    account_id: str = Field(
        sa_type=Text,
        sa_column_kwargs={
            "name": "accountId",
            "comment": "PERSONAL: the user's id at the provider",
        },
    )
    provider_id: str = Field(
        sa_type=Text,
        sa_column_kwargs={"name": "providerId", "comment": "credential, or the provider's name"},
    )
    user_id: UUID = Field(
        foreign_key="user.id",
        ondelete="CASCADE",
        sa_type=Uuid,
        sa_column_kwargs={"name": "userId", "comment": "Who signs in with it"},
    )
    access_token: str | None = Field(
        default=None,
        sa_type=Text,
        sa_column_kwargs={"name": "accessToken", "comment": "SECRET: the provider's access token"},
    )
    refresh_token: str | None = Field(
        default=None,
        sa_type=Text,
        sa_column_kwargs={
            "name": "refreshToken",
            "comment": "SECRET: the provider's refresh token",
        },
    )
    id_token: str | None = Field(
        default=None,
        sa_type=Text,
        sa_column_kwargs={"name": "idToken", "comment": "SECRET: the provider's identity token"},
    )
    access_token_expires_at: datetime | None = Field(
        default=None,
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={
            "name": "accessTokenExpiresAt",
            "comment": "From then on accessToken is void",
        },
    )
    refresh_token_expires_at: datetime | None = Field(
        default=None,
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={
            "name": "refreshTokenExpiresAt",
            "comment": "From then on refreshToken is void",
        },
    )
    scope: str | None = Field(
        default=None,
        sa_type=Text,
        sa_column_kwargs={"comment": "What the provider's tokens allow"},
    )
    password: str | None = Field(
        default=None, sa_type=Text, sa_column_kwargs={"comment": "SECRET: the password's hash"}
    )
    created_at: datetime = Field(
        default=None,
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={"name": "createdAt", "server_default": NOW, "comment": "First sign-in"},
    )
    updated_at: datetime = Field(
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={"name": "updatedAt", "comment": "Last change, kept by Better Auth"},
    )

    user: "User" = Relationship(back_populates="accounts")
