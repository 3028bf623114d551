"""The metadata of all tables, and shared column types and defaults.

The naming convention is the same as PostgreSQL's and Better Auth's default names. It must exist
before any table is defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import Column, DateTime, MetaData, text
from sqlalchemy.orm import registry
from sqlmodel import SQLModel

if TYPE_CHECKING:
    from .access import Access

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

mappings = registry(metadata=metadata)

NOW = text("CURRENT_TIMESTAMP")
"""The server default of creation times: the start of the transaction."""

TIMESTAMPTZ = DateTime(timezone=True)
"""The type of every point in time: a `timestamp` has no time zone, so clients may misread it."""


class Base(SQLModel, registry=mappings):
    """The base class of all models: SQLModel with this schema's metadata."""

    retiring: ClassVar[Sequence[Column[Any]]] = ()
    """Columns that the table still has and that this release no longer uses: see "A rename" in
    migrations/README.md. They are not attributes."""

    @classmethod
    def declare_access(cls, table: str) -> Access | None:  # noqa: ARG003  # a base class uses the name
        """Return who may access the table's rows; None where no base class declares it."""
        return None
