"""The metadata that every table belongs to, and what every column of a kind shares.

The naming convention repeats PostgreSQL's own default names, which are also Better Auth's, so
that a constraint has the same name whoever created it. It must exist before any table does.
"""

from sqlalchemy import DateTime, MetaData, text
from sqlalchemy.orm import registry
from sqlmodel import SQLModel

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
"""The server default of a creation time: the start of the transaction."""

TIMESTAMPTZ = DateTime(timezone=True)
"""The only type for a point in time: `timestamp` reads wrongly across time zones."""


class Base(SQLModel, registry=mappings):
    """What every model derives from: SQLModel with this schema's metadata."""
