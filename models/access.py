"""Who may access the rows of a table, declared once, on its model.

A base class declares the access of its tables, and `Table.info["access"]` keeps it. `create_all`
makes row security, policies and grants from it; `assert_isolated` and `schema check` read it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, MetaData, Table, event, text
from sqlalchemy.orm import Mapper

from .base import Base, metadata
from .functions import ACTING_USER
from .renames import keep_old_columns

type Kind = Literal["owned", "shared", "membership", "reference", "Better Auth"]


@dataclass(frozen=True)
class Rule:
    """The rows of a table that a group role may access."""

    policy: str
    """The name of the policy."""
    role: str
    condition: str
    """An SQL condition on a row, in which `{me}` stands for the acting user's id."""
    command: Literal["ALL", "SELECT"] = "ALL"
    """Whether the role may write the rows too, or only read them."""


@dataclass(frozen=True)
class Members:
    """Which members a shared row has, and what they may do with it."""

    table: str
    """The membership table."""
    path: Mapping[str, str]
    """The row's columns and the membership's columns that they equal, besides `user_id`."""
    can_write: bool | str = False
    """Whether members may write too, or the membership's boolean column that says so."""
    ended: str | None = None
    """The membership's column that is NULL until the membership ends."""

    def condition(self, table: str, *, write: bool) -> str:
        """Return the condition under which the acting user is a member who may read, or write.

        The sub-select runs once per statement: it does not depend on the row.
        """
        row = ", ".join(f'"{table}"."{name}"' for name in ("user_id", *self.path))
        membership = ", ".join(f'm."{name}"' for name in ("user_id", *self.path.values()))
        conditions = ["m.member_id = {me}"]
        if self.ended is not None:
            conditions.append(f'm."{self.ended}" IS NULL')
        if write and isinstance(self.can_write, str):
            conditions.append(f'm."{self.can_write}"')
        return (
            f'({row}) IN (SELECT {membership} FROM "{self.table}" AS m'
            f" WHERE {' AND '.join(conditions)})"
        )


@dataclass(frozen=True)
class Access:
    """The access to a table: no role may do more than one of the rules says."""

    kind: Kind
    rules: tuple[Rule, ...]
    members: Members | None = None
    """With whom a shared table's rows are shared."""

    @property
    def row_security(self) -> bool:
        """Whether the table needs row security: a reference table shows all its rows."""
        return self.kind != "reference"


def declared_access(table: Table) -> Access | None:
    """Return the access that the table's model declares; None if it declares none."""
    access = table.info.get("access")
    return access if isinstance(access, Access) else None


@event.listens_for(Base, "after_mapper_constructed", propagate=True)
def keep_declarations(mapper: Mapper[Base], model: type[Base]) -> None:
    """Keep what the model declares in its table: the access, and the columns that are retiring."""
    table = mapper.local_table
    if not isinstance(table, Table):
        return
    if (access := model.declare_access(table.name)) is not None:
        table.info["access"] = access
    for column in model.retiring:
        column.info["retiring"] = True
        table.append_column(column)
    keep_old_columns(table)


@event.listens_for(metadata, "after_create")
def grant_access(_metadata: MetaData, connection: Connection, **_options: object) -> None:
    """Enable row security, and create the policies and grants, as the models declare them."""
    for table in metadata.sorted_tables:
        for statement in access_statements(table):
            connection.execute(text(statement))


def access_statements(table: Table) -> Iterator[str]:
    """Yield the SQL that gives the roles the declared access to a new table.

    Raises:
        ValueError: the model shares the table by a column that there is not.

    """
    access = declared_access(table)
    if access is None:
        return
    if access.members:
        _check_members(table, access.members)
    if access.row_security:
        for what in ("ENABLE", "FORCE"):
            yield f'ALTER TABLE "{table.name}" {what} ROW LEVEL SECURITY'
    for rule in access.rules:
        if access.row_security:
            yield _policy(table.name, rule)
        privileges = "SELECT" if rule.command == "SELECT" else "SELECT, INSERT, UPDATE, DELETE"
        yield f'GRANT {privileges} ON "{table.name}" TO {rule.role}'


def _check_members(table: Table, members: Members) -> None:
    """Raise ValueError if a model names a table or a column in `shared_with` that there is not."""
    membership = table.metadata.tables.get(members.table)
    if membership is None:
        message = f"{table.name}: shared_with names {members.table}, which is no table"
        raise ValueError(message)
    named = [members.can_write, members.ended, *members.path.values()]
    for of, names in ((table, members.path), (membership, named)):
        for name in names:
            if isinstance(name, str) and name not in of.columns:
                message = f"{table.name}: shared_with names {of.name}.{name}, which is no column"
                raise ValueError(message)


def _policy(table: str, rule: Rule) -> str:
    condition = rule.condition.format(me=ACTING_USER)
    check = f" WITH CHECK ({condition})" if rule.command == "ALL" else ""
    return (
        f'CREATE POLICY "{rule.policy}" ON "{table}" FOR {rule.command} TO {rule.role}'
        f" USING ({condition}){check}"
    )
