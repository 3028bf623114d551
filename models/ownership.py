"""The base classes of tables whose rows belong to a user.

`class Note(Owned, table=True)` defines an owned table. A table that links two owned tables derives
from OwnedLink and defines its own key. A table that its user shares with others derives from
Shared, and names the table of the members, which derives from Membership.
"""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from sqlalchemy import Connection, FetchedValue, MetaData, Uuid, event, text
from sqlmodel import Field

from .access import Access, Members, Rule
from .base import NOW, TIMESTAMPTZ, Base, mappings, metadata
from .roles import APPLICATION

_ACTING = text("app_user_id()")
"""The acting user: an INSERT need not name the owner."""


class _UsersOwn(Base):
    """The access that owned tables have in common."""

    @classmethod
    def declare_access(cls, table: str) -> Access:
        """Give the application's role the acting user's rows."""
        return Access("owned", (_owner(table),))


class OwnedLink(_UsersOwn):
    """A row that belongs to one user and references rows of the same user.

    Its foreign keys contain `user_id` and the parent's id, so that no role, not even a superuser,
    can reference another user's row. They cascade when the user is deleted.
    """

    user_id: UUID = Field(
        default=None,
        primary_key=True,
        sa_type=Uuid,
        sa_column_kwargs={"server_default": _ACTING, "comment": "The user who owns this row"},
    )


class Owned(_UsersOwn):
    """A row that belongs to one user, with the primary key `(user_id, id)`.

    Children reference `(user_id, id)`, and a unique index cannot reveal another user's ids. `id` is
    ordered by time, so that the primary key returns a user's newest rows first.
    """

    # What the trigger sets comes back with the UPDATE, so that an object has it after its session.
    __mapper_args__: ClassVar[dict[str, bool]] = {"eager_defaults": True}

    user_id: UUID = Field(
        default=None,
        primary_key=True,
        foreign_key="user.id",
        ondelete="CASCADE",
        sa_type=Uuid,
        sa_column_kwargs={"server_default": _ACTING, "comment": "The user who owns this row"},
    )
    id: UUID = Field(
        default=None,
        primary_key=True,
        sa_type=Uuid,
        sa_column_kwargs={
            "server_default": text("uuid_v7()"),
            "comment": "Ordered by time of creation; unique within its user",
        },
    )
    created_at: datetime = Field(
        default=None,
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={"server_default": NOW, "comment": "When it was written down"},
    )
    updated_at: datetime = Field(
        default=None,
        sa_type=TIMESTAMPTZ,
        sa_column_kwargs={
            "server_default": NOW,
            "server_onupdate": FetchedValue(),
            "comment": "Last change, kept by a trigger",
        },
    )


class Shared(Owned):
    """A row that belongs to one user, who shares it with the members of a membership.

    A model names the path to the membership, and what its members may do, in `shared_with`. Row
    security shows a member their own membership, and not the other members: a policy on the
    membership that read it again would be infinite recursion.
    """

    shared_with: ClassVar[Members]

    @classmethod
    def declare_access(cls, table: str) -> Access:
        """Give the application's role the acting user's rows, and those shared with them."""
        rules = [_owner(table)]
        if cls.shared_with.can_write is not True:
            condition = cls.shared_with.condition(table, write=False)
            rules.append(Rule(f"{table}_member", APPLICATION, condition, "SELECT"))
        if cls.shared_with.can_write:
            condition = cls.shared_with.condition(table, write=True)
            rules.append(Rule(f"{table}_writer", APPLICATION, condition))
        return Access("shared", tuple(rules), cls.shared_with)


class Membership(OwnedLink):
    """A user's membership in what another user owns: `user_id` is the owner.

    The owner writes it; the member can read their own.
    """

    member_id: UUID = Field(
        primary_key=True,
        foreign_key="user.id",
        ondelete="CASCADE",
        sa_type=Uuid,
        sa_column_kwargs={"comment": "The user with whom the owner shares"},
    )

    @classmethod
    def declare_access(cls, table: str) -> Access:
        """Give the application's role the acting user's rows, and their own memberships to read."""
        member = Rule(f"{table}_member", APPLICATION, "member_id = {me}", "SELECT")
        return Access("membership", (_owner(table), member))


def _owner(table: str) -> Rule:
    return Rule(f"{table}_owner", APPLICATION, "user_id = {me}")


@event.listens_for(metadata, "after_create")
def create_triggers(_metadata: MetaData, connection: Connection, **_options: object) -> None:
    """Let a trigger set `updated_at`, so that no UPDATE can omit or forge it.

    An INSERT may say both times, as an import does.
    """
    for mapper in mappings.mappers:
        if issubclass(mapper.class_, Owned):
            name = mapper.class_.__tablename__
            connection.execute(
                text(
                    f'CREATE TRIGGER "{name}_set_updated_at" BEFORE UPDATE ON "{name}"'
                    " FOR EACH ROW EXECUTE FUNCTION set_updated_at()"
                )
            )
