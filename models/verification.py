"""The `verification` table: pending verifications (e-mail, password reset). Better Auth's only."""

from datetime import datetime

from sqlalchemy import Index, Text
from sqlmodel import Field

from .base import NOW, TIMESTAMPTZ
from .better_auth import BetterAuthTable


class Verification(BetterAuthTable, table=True):
    """A secret that was sent to someone, and must be returned before it expires."""

    __tablename__ = "verification"
    __table_args__ = (
        Index(None, "identifier"),
        Index(None, "expiresAt"),  # for the clean-up of expired rows
        {"comment": "A secret sent to someone, to be shown back in time; Better Auth's alone"},
    )

    identifier: str = Field(
        sa_type=Text, sa_column_kwargs={"comment": "SECRET: what is proven, and by whom"}
    )
    value: str = Field(
        sa_type=Text, sa_column_kwargs={"comment": "SECRET: what must be shown back"}
    )
    expires_at: datetime = Field(
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={"name": "expiresAt", "comment": "From then on the proof is void"},
    )
    created_at: datetime = Field(
        default=None,
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={"name": "createdAt", "server_default": NOW, "comment": "Sent"},
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
