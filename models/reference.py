"""The base class of reference tables: rows that come with revisions, and that every user reads."""

from .access import Access, Rule
from .base import Base
from .roles import APPLICATION


class Reference(Base):
    """A row that belongs to no user, such as a country or a plan.

    The application reads all rows and writes none; a revision inserts, changes and deletes them.
    """

    @classmethod
    def declare_access(cls, table: str) -> Access:
        """Give the application's role all rows to read."""
        return Access("reference", (Rule(f"{table}_all", APPLICATION, "true", "SELECT"),))
