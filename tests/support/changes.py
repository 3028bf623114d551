"""Changes of the schema, as an author makes them: a model, a revision, and nothing else.

Each is applied to a copy of the checkout. `schema snapshot` writes what else follows from it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import dedent, indent

import sqlfluff
from sqlfluff.core import FluffConfig

from schema.project import ROOT
from tests.support.repo_copy import Checkout, sql

OWNER = "user_id = (SELECT app_user_id())"


def row_security(table: str) -> list[str]:
    """Return the statements that enable row security."""
    return [f'ALTER TABLE "{table}" {word} ROW LEVEL SECURITY' for word in ("ENABLE", "FORCE")]


def policy(
    table: str, name: str, condition: str, *, role: str = "todo_app", reads: bool = False
) -> list[str]:
    """Return the statements that create a policy and its grant."""
    command = "SELECT" if reads else "ALL"
    check = "" if reads else f" WITH CHECK ({condition})"
    privileges = "SELECT" if reads else "SELECT, INSERT, UPDATE, DELETE"
    return [
        f'CREATE POLICY "{table}_{name}" ON "{table}" FOR {command} TO {role}'
        f" USING ({condition}){check}",
        f'GRANT {privileges} ON "{table}" TO {role}',
    ]


def owned(table: str, columns: str, comments: dict[str, str]) -> list[str]:
    """Return the statements that create an owned table."""
    return [
        f"""CREATE TABLE {table} (
            user_id uuid DEFAULT app_user_id() NOT NULL,
            id uuid DEFAULT uuid_v7() NOT NULL,
            created_at timestamptz DEFAULT CURRENT_TIMESTAMP NOT NULL,
            updated_at timestamptz DEFAULT CURRENT_TIMESTAMP NOT NULL,
            {columns},
            CONSTRAINT {table}_pkey PRIMARY KEY (user_id, id),
            CONSTRAINT {table}_user_id_fkey FOREIGN KEY (user_id) REFERENCES "user" (id)
                ON DELETE CASCADE
        )""",
        f"CREATE TRIGGER {table}_set_updated_at BEFORE UPDATE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION set_updated_at()",
        *row_security(table),
        *policy(table, "owner", OWNER),
        *commented(
            table,
            {
                "user_id": "The user who owns this row",
                "id": "Ordered by time of creation; unique within its user",
                "created_at": "When it was written down",
                "updated_at": "Last change, kept by a trigger",
                **comments,
            },
        ),
    ]


def commented(table: str, comments: dict[str, str]) -> list[str]:
    """Return the statements that comment columns, and with the key "" the table."""
    return [
        f'COMMENT ON COLUMN "{table}"."{column}" IS \'{comment}\''
        if column
        else f"COMMENT ON TABLE \"{table}\" IS '{comment}'"
        for column, comment in comments.items()
    ]


@dataclass(frozen=True)
class Change:
    """A change of the schema."""

    name: str
    upgrade: tuple[str, ...]
    downgrade: tuple[str, ...]
    models: tuple[tuple[str, str], ...] = ()
    """New model files, and their text."""
    edits: tuple[tuple[str, str, str], ...] = ()
    """Files, what is replaced there, and by what."""
    attributes: str = ""
    """What the revision says of itself, besides its identifiers."""
    allows: tuple[tuple[str, str], ...] = ()
    """What is in a statement, and the rule of the lint whose finding its author accepts."""
    after: "Change | None" = None
    """The change that is made before this one."""

    def apply(self, copy: Checkout, *, formatted: bool = False) -> None:
        """Make the change in a copy of the checkout, with SQL formatted as sqlfluff asks."""
        if self.after:
            self.after.apply(copy, formatted=formatted)
            place = {"revision": "b0b1c2d3e4f5", "parents": "a0b1c2d3e4f5"}
        else:
            place = {}
        bodies = [
            _formatted(statements, self.allows) if formatted else sql(*map(_flat, statements))
            for statements in (self.upgrade, self.downgrade)
        ]
        path = copy.add(*bodies, **place)
        if self.attributes:
            copy.edit(path, "\n\ndef upgrade", f"\n{self.attributes}\n\n\ndef upgrade")
        for name, text in self.models:
            (copy.root / "models" / f"{name}.py").write_text(dedent(text).lstrip(), "utf-8")
            classes = ", ".join(re.findall(r"class (\w+)\(", text))
            names = "".join(f'    "{one}",\n' for one in classes.split(", "))
            copy.edit(
                "models/__init__.py", "\n__all__", f"\nfrom .{name} import {classes}\n\n__all__"
            )
            copy.edit("models/__init__.py", "__all__ = [\n", f"__all__ = [\n{names}")
        for file, old, new in self.edits:
            copy.edit(file, old, new)


def _flat(statement: str) -> str:
    return " ".join(statement.split())


def _wrapped(statement: str) -> str:
    """Break a statement into lines, between words that are in no literal."""
    lines = [""]
    for word in re.findall(r"(?:'[^']*'|[^\s'])+", statement):
        if lines[-1] and len(lines[-1]) + len(word) > 86:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def _formatted(statements: Iterable[str], allows: Iterable[tuple[str, str]]) -> str:
    """Return the body of an upgrade or downgrade as an author writes it."""
    config = FluffConfig.from_path(str(ROOT / "pyproject.toml"))
    written = []
    for statement in statements:
        fixed = sqlfluff.fix(_wrapped(_flat(statement)) + "\n", config=config).strip()
        text = indent(fixed.replace("\\", "\\\\"), " " * 8)
        written += [
            f"# lint: allow {rule}: a test says so" for part, rule in allows if part in statement
        ]
        written.append(f'op.execute("""\n{text}\n    """)')
    return "\n    ".join(written)


def _field(name: str, annotation: str, arguments: str) -> tuple[str, str, str]:
    """Return the edit that adds a column to todo."""
    anchor = '    user: "User" = Relationship(back_populates="todos")'
    field = f"    {name}: {annotation} = Field(\n{indent(arguments, ' ' * 8)}\n    )\n"
    return ("models/todo.py", anchor, field + anchor)


def _imported(imports: str) -> tuple[str, str, str]:
    """Return the edit that adds imports to the model of todo."""
    line = "from sqlalchemy import CheckConstraint, ColumnElement, Index, Text, text"
    return ("models/todo.py", line, f"{line}\n{imports}")


COLUMN = 'sa_column_kwargs={"comment": "What a test adds"}'


def column(
    name: str,
    sql_type: str,
    annotation: str,
    arguments: str,
    edits: Sequence[tuple[str, str, str]] = (),
) -> Change:
    """Return the change that adds a column to todo, with 0 or its like in the rows that exist."""
    add = f"ALTER TABLE todo ADD COLUMN added {sql_type}"
    statements = [add]
    if " DEFAULT " in sql_type and "server_default" not in arguments:
        statements.append("ALTER TABLE todo ALTER COLUMN added DROP DEFAULT")
    return Change(
        name,
        (*statements, *commented("todo", {"added": "What a test adds"})),
        ("ALTER TABLE todo DROP COLUMN added",),
        edits=(
            _field("added", annotation, f"{arguments}\n{COLUMN},"),
            *edits,
        ),
        allows=(("varchar", "prefer-text-field"), ("DROP DEFAULT", "ban-drop-default")),
    )


REMINDER = '''
    """Reminders."""

    from datetime import datetime

    from sqlalchemy import (
        BigInteger, CheckConstraint, ForeignKeyConstraint, Index, Numeric, String, Text, Uuid
    )
    from sqlmodel import Field
    from uuid import UUID

    from .base import TIMESTAMPTZ
    from .ownership import Owned


    class Reminder(Owned, table=True):
        """A reminder."""

        __tablename__ = "reminder"
        __table_args__ = (
            ForeignKeyConstraint(
                ["user_id", "todo_id"], ["todo.user_id", "todo.id"], ondelete="CASCADE"
            ),
            Index(None, "user_id", "todo_id"),
            CheckConstraint("kind IN ('mail', 'push', 'none')", name="kind"),
            CheckConstraint("repeats BETWEEN 1 AND 12", name="repeats"),
            {"comment": "A reminder"},
        )
        todo_id: UUID = Field(sa_type=Uuid, sa_column_kwargs={"comment": "Of what"})
        kind: str = Field(sa_type=Text, sa_column_kwargs={"comment": "How"})
        code: str = Field(sa_type=String(20), sa_column_kwargs={"comment": "Short"})
        price: float = Field(sa_type=Numeric(10, 2), sa_column_kwargs={"comment": "What it costs"})
        repeats: int = Field(sa_type=BigInteger, sa_column_kwargs={"comment": "How often"})
        due_at: datetime | None = Field(
            default=None, sa_type=TIMESTAMPTZ, sa_column_kwargs={"comment": "When"}
        )
'''

LISTS = '''
    """Lists that are shared."""

    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import ForeignKeyConstraint, Index, Text, Uuid, text
    from sqlmodel import Field

    from .access import Members
    from .base import TIMESTAMPTZ
    from .ownership import Membership, Shared


    class TodoList(Shared, table=True):
        """A list."""

        __tablename__ = "todo_list"
        __table_args__ = ({"comment": "A list"},)
        shared_with = Members("list_member", {"id": "list_id"}, ended="ended_at")
        title: str = Field(sa_type=Text, sa_column_kwargs={"comment": "What it is called"})


    class ListMember(Membership, table=True):
        """A membership in a list."""

        __tablename__ = "list_member"
        __table_args__ = (
            ForeignKeyConstraint(
                ["user_id", "list_id"], ["todo_list.user_id", "todo_list.id"], ondelete="CASCADE"
            ),
            Index(None, "member_id", "user_id", "list_id"),
            Index(None, "user_id", "list_id"),
            {"comment": "With whom a list is shared"},
        )
        list_id: UUID = Field(
            primary_key=True, sa_type=Uuid, sa_column_kwargs={"comment": "Of what"}
        )
        may_write: bool = Field(
            default=None,
            sa_column_kwargs={"server_default": text("false"), "comment": "Whether it may write"},
        )
        ended_at: datetime | None = Field(
            default=None, sa_type=TIMESTAMPTZ, sa_column_kwargs={"comment": "Since when not"}
        )


    class ListItem(Shared, table=True):
        """What is on a list."""

        __tablename__ = "list_item"
        __table_args__ = (
            ForeignKeyConstraint(
                ["user_id", "list_id"], ["todo_list.user_id", "todo_list.id"], ondelete="CASCADE"
            ),
            Index(None, "user_id", "list_id"),
            {"comment": "What is on a list"},
        )
        shared_with = Members(
            "list_member", {"list_id": "list_id"}, can_write="may_write", ended="ended_at"
        )
        list_id: UUID | None = Field(
            default=None, sa_type=Uuid, sa_column_kwargs={"comment": "On which list"}
        )
        title: str = Field(sa_type=Text, sa_column_kwargs={"comment": "What it is"})
'''


def member_of(table: str, column_name: str, more: str = "") -> str:
    """Return the condition under which the acting user is a member of a row's list."""
    return (
        f"({table}.user_id, {table}.{column_name}) IN (SELECT m.user_id, m.list_id"
        " FROM list_member AS m WHERE m.member_id = (SELECT app_user_id())"
        f" AND m.ended_at IS NULL{more})"
    )


COUNTRY = '''
    """Countries."""

    from sqlalchemy import CheckConstraint, Text
    from sqlmodel import Field

    from .reference import Reference


    class Country(Reference, table=True):
        """A country."""

        __tablename__ = "country"
        __table_args__ = (
            CheckConstraint("code ~ '^[A-Z]{2}$'", name="code"),
            {"comment": "A country"},
        )
        code: str = Field(
            primary_key=True, sa_type=Text, sa_column_kwargs={"comment": "ISO 3166-1"}
        )
        name: str = Field(sa_type=Text, sa_column_kwargs={"comment": "In English"})
'''

ORGANIZATIONS = '''
    """Tables of Better Auth's plugins."""

    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Index, Text, Uuid
    from sqlmodel import Field

    from .base import TIMESTAMPTZ
    from .better_auth import BetterAuthTable


    class TwoFactor(BetterAuthTable, table=True):
        """A second factor."""

        __tablename__ = "twoFactor"
        __table_args__ = (Index(None, "userId"), {"comment": "A second factor"})
        secret: str = Field(sa_type=Text, sa_column_kwargs={"comment": "SECRET: the seed"})
        user_id: UUID = Field(
            foreign_key="user.id", ondelete="CASCADE", sa_type=Uuid,
            sa_column_kwargs={"name": "userId", "comment": "Whose"},
        )


    class Organization(BetterAuthTable, table=True):
        """An organization."""

        __tablename__ = "organization"
        __table_args__ = ({"comment": "An organization"},)
        name: str = Field(sa_type=Text, sa_column_kwargs={"comment": "Its name"})
        slug: str = Field(unique=True, sa_type=Text, sa_column_kwargs={"comment": "In addresses"})
        created_at: datetime = Field(
            sa_type=TIMESTAMPTZ, sa_column_kwargs={"name": "createdAt", "comment": "Since"}
        )


    class Member(BetterAuthTable, table=True):
        """Who is in an organization."""

        __tablename__ = "member"
        __table_args__ = (
            Index(None, "organizationId"), Index(None, "userId"), {"comment": "Who is in it"},
        )
        organization_id: UUID = Field(
            foreign_key="organization.id", ondelete="CASCADE", sa_type=Uuid,
            sa_column_kwargs={"name": "organizationId", "comment": "Of what"},
        )
        user_id: UUID = Field(
            foreign_key="user.id", ondelete="CASCADE", sa_type=Uuid,
            sa_column_kwargs={"name": "userId", "comment": "Who"},
        )
        role: str = Field(sa_type=Text, sa_column_kwargs={"comment": "As what"})
'''


def better_auth(table: str, columns: str, comments: dict[str, str], *more: str) -> list[str]:
    """Return the statements that create one of Better Auth's tables."""
    return [
        f'CREATE TABLE "{table}" (id uuid DEFAULT gen_random_uuid() NOT NULL, {columns},'
        f' CONSTRAINT "{table}_pkey" PRIMARY KEY (id))',
        *more,
        *row_security(table),
        *policy(table, "auth", "true", role="todo_auth"),
        *commented(table, {"id": "Random, so that it cannot be guessed", **comments}),
    ]


def references(table: str, name: str, parent: str) -> str:
    """Return a cascading foreign key, as part of CREATE TABLE."""
    return (
        f'CONSTRAINT "{table}_{name}_fkey" FOREIGN KEY ("{name}") REFERENCES "{parent}" (id)'
        " ON DELETE CASCADE"
    )


LINK = '''
    """Links between todos."""

    from uuid import UUID

    from sqlalchemy import ForeignKeyConstraint, Index, Uuid
    from sqlmodel import Field

    from .ownership import OwnedLink


    class TodoLink(OwnedLink, table=True):
        """What leads to what."""

        __tablename__ = "todo_link"
        __table_args__ = (
            ForeignKeyConstraint(
                ["user_id", "from_id"], ["todo.user_id", "todo.id"], ondelete="CASCADE"
            ),
            ForeignKeyConstraint(
                ["user_id", "to_id"], ["todo.user_id", "todo.id"], ondelete="CASCADE"
            ),
            Index(None, "user_id", "to_id"),
            {"comment": "What leads to what"},
        )
        from_id: UUID = Field(
            primary_key=True, sa_type=Uuid, sa_column_kwargs={"comment": "From here"}
        )
        to_id: UUID = Field(
            primary_key=True, sa_type=Uuid, sa_column_kwargs={"comment": "To there"}
        )
'''

COMMENT = "PERSONAL: more about it, in at most 10,000 characters"
DESCRIPTION = f"""\
    description: str | None = Field(
        default=None,
        sa_type=Text,
        sa_column_kwargs={{"comment": "{COMMENT}"}},
    )
"""
RETIRING = f"""\
    retiring: ClassVar = [
        Column("description", Text, comment="{COMMENT}"),
    ]
"""
WITHOUT_ITS_LENGTH = (
    "models/todo.py",
    '        CheckConstraint("char_length(description) <= 10000", name="description_length"),\n',
    "",
)
DESCRIPTION_AGAIN = (
    "ALTER TABLE todo ADD COLUMN description text CONSTRAINT"
    " todo_description_length_check CHECK (char_length(description) <= 10000)",
    *commented("todo", {"description": COMMENT}),
)
"""What the downgrade of a revision that drops todo.description does."""

RENAMING = Change(
    "rename in steps",
    (
        "ALTER TABLE todo ADD COLUMN body text",
        *commented("todo", {"body": "More about it"}),
        "SELECT set_config('app.keep_updated_at', 'on', true)",
        "SELECT set_config('row_security', 'off', true)",
        "UPDATE todo SET body = description",
    ),
    ("ALTER TABLE todo DROP COLUMN body",),
    edits=(
        (
            "models/todo.py",
            DESCRIPTION,
            f"{RETIRING}"
            "    body: str | None = Field(\n        default=None,\n        sa_type=Text,\n"
            '        sa_column_kwargs={"comment": "More about it"},\n    )\n',
        ),
        _imported("from typing import ClassVar\nfrom sqlalchemy import Column"),
    ),
)

CHANGES = (
    column(
        "nullable column",
        "bigint",
        "int | None",
        "default=None,\nsa_type=BigInteger,",
        edits=[_imported("from sqlalchemy import BigInteger")],
    ),
    column(
        "text of a list",
        "text DEFAULT 'task' NOT NULL"
        " CONSTRAINT todo_added_check CHECK (added IN ('task', 'idea'))",
        "str",
        "sa_type=Text,",
        edits=[
            (
                "models/todo.py",
                "        CheckConstraint(r",
                "        CheckConstraint(\"added IN ('task', 'idea')\", name=\"added\"),\n"
                "        CheckConstraint(r",
            )
        ],
    ),
    column(
        "required numeric",
        "numeric(10, 2) DEFAULT 0 NOT NULL",
        "Decimal",
        "sa_type=Numeric(10, 2),",
        edits=[_imported("from decimal import Decimal\nfrom sqlalchemy import Numeric")],
    ),
    column(
        "required varchar",
        "varchar(20) DEFAULT '' NOT NULL",
        "str",
        "sa_type=String(20),",
        edits=[_imported("from sqlalchemy import String")],
    ),
    Change(
        "owned table",
        (
            *owned(
                "reminder",
                """todo_id uuid NOT NULL, kind text NOT NULL, code varchar(20) NOT NULL,
                price numeric(10, 2) NOT NULL, repeats bigint NOT NULL, due_at timestamptz,
                CONSTRAINT reminder_user_id_todo_id_fkey FOREIGN KEY (user_id, todo_id)
                    REFERENCES todo (user_id, id) ON DELETE CASCADE,
                CONSTRAINT reminder_kind_check CHECK (kind IN ('mail', 'push', 'none')),
                CONSTRAINT reminder_repeats_check CHECK (repeats BETWEEN 1 AND 12)""",
                {
                    "": "A reminder",
                    "todo_id": "Of what",
                    "kind": "How",
                    "code": "Short",
                    "price": "What it costs",
                    "repeats": "How often",
                    "due_at": "When",
                },
            ),
            "CREATE INDEX reminder_user_id_todo_id_idx ON reminder (user_id, todo_id)",
        ),
        ("DROP TABLE reminder",),
        models=(("reminder", REMINDER),),
        allows=(("varchar", "prefer-text-field"),),
    ),
    Change(
        "reference table with rows",
        (
            "CREATE TABLE country (code text NOT NULL, name text NOT NULL,"
            " CONSTRAINT country_pkey PRIMARY KEY (code),"
            " CONSTRAINT country_code_check CHECK (code ~ '^[A-Z]{2}$'))",
            "GRANT SELECT ON country TO todo_app",
            *commented("country", {"": "A country", "code": "ISO 3166-1", "name": "In English"}),
            "INSERT INTO country (code, name) VALUES ('FR', 'France'), ('PL', 'Poland')",
        ),
        ("DROP TABLE country",),
        models=(("country", COUNTRY),),
    ),
    Change(
        "shared list with members",
        (
            *owned(
                "todo_list", "title text NOT NULL", {"": "A list", "title": "What it is called"}
            ),
            """CREATE TABLE list_member (
                user_id uuid DEFAULT app_user_id() NOT NULL,
                list_id uuid NOT NULL, member_id uuid NOT NULL,
                may_write boolean DEFAULT false NOT NULL, ended_at timestamptz,
                CONSTRAINT list_member_pkey PRIMARY KEY (user_id, member_id, list_id),
                CONSTRAINT list_member_member_id_fkey FOREIGN KEY (member_id)
                    REFERENCES "user" (id) ON DELETE CASCADE,
                CONSTRAINT list_member_user_id_list_id_fkey FOREIGN KEY (user_id, list_id)
                    REFERENCES todo_list (user_id, id) ON DELETE CASCADE
            )""",
            "CREATE INDEX list_member_member_id_user_id_list_id_idx"
            " ON list_member (member_id, user_id, list_id)",
            "CREATE INDEX list_member_user_id_list_id_idx ON list_member (user_id, list_id)",
            *row_security("list_member"),
            *policy("list_member", "owner", OWNER),
            *policy("list_member", "member", "member_id = (SELECT app_user_id())", reads=True),
            *commented(
                "list_member",
                {
                    "": "With whom a list is shared",
                    "user_id": "The user who owns this row",
                    "member_id": "The user with whom the owner shares",
                    "list_id": "Of what",
                    "may_write": "Whether it may write",
                    "ended_at": "Since when not",
                },
            ),
            *owned(
                "list_item",
                """list_id uuid, title text NOT NULL,
                CONSTRAINT list_item_user_id_list_id_fkey FOREIGN KEY (user_id, list_id)
                    REFERENCES todo_list (user_id, id) ON DELETE CASCADE""",
                {"": "What is on a list", "list_id": "On which list", "title": "What it is"},
            ),
            "CREATE INDEX list_item_user_id_list_id_idx ON list_item (user_id, list_id)",
            *policy("todo_list", "member", member_of("todo_list", "id"), reads=True),
            *policy("list_item", "member", member_of("list_item", "list_id"), reads=True),
            *policy("list_item", "writer", member_of("list_item", "list_id", " AND m.may_write")),
        ),
        ("DROP TABLE list_item", "DROP TABLE list_member CASCADE", "DROP TABLE todo_list"),
        models=(("lists", LISTS),),
    ),
    Change(
        "tables of Better Auth's plugins",
        (
            *better_auth(
                "twoFactor",
                f'secret text NOT NULL, "userId" uuid NOT NULL,'
                f" {references('twoFactor', 'userId', 'user')}",
                {"": "A second factor", "secret": "SECRET: the seed", "userId": "Whose"},
                'CREATE INDEX "twoFactor_userId_idx" ON "twoFactor" ("userId")',
            ),
            *better_auth(
                "organization",
                'name text NOT NULL, slug text NOT NULL, "createdAt" timestamptz NOT NULL,'
                " CONSTRAINT organization_slug_key UNIQUE (slug)",
                {
                    "": "An organization",
                    "name": "Its name",
                    "slug": "In addresses",
                    "createdAt": "Since",
                },
            ),
            *better_auth(
                "member",
                '"organizationId" uuid NOT NULL, "userId" uuid NOT NULL, role text NOT NULL,'
                f" {references('member', 'organizationId', 'organization')},"
                f" {references('member', 'userId', 'user')}",
                {
                    "": "Who is in it",
                    "organizationId": "Of what",
                    "userId": "Who",
                    "role": "As what",
                },
                'CREATE INDEX "member_organizationId_idx" ON member ("organizationId")',
                'CREATE INDEX "member_userId_idx" ON member ("userId")',
            ),
        ),
        ("DROP TABLE member", "DROP TABLE organization", 'DROP TABLE "twoFactor"'),
        models=(("organizations", ORGANIZATIONS),),
    ),
    Change(
        "owned link",
        (
            """CREATE TABLE todo_link (
                user_id uuid DEFAULT app_user_id() NOT NULL,
                from_id uuid NOT NULL, to_id uuid NOT NULL,
                CONSTRAINT todo_link_pkey PRIMARY KEY (user_id, from_id, to_id),
                CONSTRAINT todo_link_user_id_from_id_fkey FOREIGN KEY (user_id, from_id)
                    REFERENCES todo (user_id, id) ON DELETE CASCADE,
                CONSTRAINT todo_link_user_id_to_id_fkey FOREIGN KEY (user_id, to_id)
                    REFERENCES todo (user_id, id) ON DELETE CASCADE
            )""",
            "CREATE INDEX todo_link_user_id_to_id_idx ON todo_link (user_id, to_id)",
            *row_security("todo_link"),
            *policy("todo_link", "owner", OWNER),
            *commented(
                "todo_link",
                {
                    "": "What leads to what",
                    "user_id": "The user who owns this row",
                    "from_id": "From here",
                    "to_id": "To there",
                },
            ),
        ),
        ("DROP TABLE todo_link",),
        models=(("todo_link", LINK),),
    ),
    Change(
        "type change with a backfill",
        (
            "ALTER TABLE todo ADD COLUMN due_on date",
            *commented("todo", {"due_on": "The day"}),
            "SELECT set_config('app.keep_updated_at', 'on', true)",
            "SELECT set_config('row_security', 'off', true)",
            "UPDATE todo SET due_on = (due_at AT TIME ZONE 'UTC')::date",
        ),
        ("ALTER TABLE todo DROP COLUMN due_on",),
        edits=(
            _field(
                "due_on",
                "date | None",
                'default=None,\nsa_type=Date,\nsa_column_kwargs={"comment": "The day"},',
            ),
            _imported("from datetime import date\nfrom sqlalchemy import Date"),
        ),
    ),
    RENAMING,
    Change(
        "rename, last step",
        ("ALTER TABLE todo DROP COLUMN description",),
        (
            *DESCRIPTION_AGAIN,
            "SELECT set_config('app.keep_updated_at', 'on', true)",
            "SELECT set_config('row_security', 'off', true)",
            "UPDATE todo SET description = left(body, 10000)",
        ),
        edits=(
            (
                "models/todo.py",
                RETIRING,
                "",
            ),
            WITHOUT_ITS_LENGTH,
        ),
        allows=(("DROP COLUMN", "ban-drop-column"),),
        attributes='loses = {"todo.description": "the application writes body only"}',
        after=RENAMING,
    ),
    Change(
        "dropped column",
        ("ALTER TABLE todo DROP COLUMN description",),
        (*DESCRIPTION_AGAIN,),
        edits=(
            (
                "models/todo.py",
                DESCRIPTION,
                "",
            ),
            WITHOUT_ITS_LENGTH,
        ),
        allows=(("DROP COLUMN", "ban-drop-column"),),
        attributes='loses = {"todo.description": "nobody reads it any more"}',
    ),
)
