"""The schema as SQLModel models, for applications.

The migrations are the source of truth. `schema check` compares the models with them:
`metadata.create_all` builds the same schema, with all policies and grants.

`from todo_schema import *` leaves Better Auth's `Session` out: SQLModel has a class of that name.
"""

from .account import Account
from .base import metadata
from .identity import acting_as
from .identity_psycopg import IdentityError
from .session import Session as Session
from .startup import (
    IncompatibleDatabaseError,
    NotIsolatedError,
    assert_compatible,
    assert_isolated,
)
from .tag import Tag
from .todo import Todo
from .todo_tag import TodoTag
from .user import User
from .verification import Verification
from .version import __version__

__all__ = [
    "Account",
    "IdentityError",
    "IncompatibleDatabaseError",
    "NotIsolatedError",
    "Tag",
    "Todo",
    "TodoTag",
    "User",
    "Verification",
    "__version__",
    "acting_as",
    "assert_compatible",
    "assert_isolated",
    "metadata",
]
