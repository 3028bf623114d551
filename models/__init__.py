"""The schema as SQLModel models: what an application imports.

The migrations are the source of truth. These models are checked against them, down to the last
policy and grant: `metadata.create_all` on an empty database builds the same schema.
"""

from .account import Account
from .base import metadata
from .session import Session
from .tag import Tag
from .todo import Todo
from .todo_tag import TodoTag
from .user import User
from .verification import Verification

__all__ = ["Account", "Session", "Tag", "Todo", "TodoTag", "User", "Verification", "metadata"]
