"""Test the behaviour of the schema, for the mutations.

What must hold is taken from the models and never from the catalogs, which a mutation changes. It
runs on the rows of `trial.scene`, in its transaction.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import (
    CheckConstraint,
    Column,
    DefaultClause,
    ForeignKeyConstraint,
    Table,
    UniqueConstraint,
)

from models import metadata
from models.access import declared_access
from schema.access.probe import identity_leaks, try_all
from schema.access.trial import PUBLIC, Scene, Target, Trial, literal
from schema.roles import APPLICATION, BETTER_AUTH
from schema.rows.tables import TableRows, Tables
from schema.rows.values import candidates


def problems(trial: Trial, made: Scene, only: str | None) -> Iterator[str]:
    """Yield the wrong behaviour, of all tables or of `only` one."""
    chosen = tuple(one for one in made.tables.tables if only in {None, one.name})
    part = replace(made, tables=Tables(chosen, made.tables.types))
    for difference in try_all(trial, part)[1]:
        yield f"{difference.role} on {difference.table}: {', '.join(difference.forms)}"
    yield from identity_leaks(trial, part)
    for table in chosen:
        model, targets = metadata.tables[table.name], made.targets[table.name]
        yield from _required(trial, model, table, targets)
        yield from _checks(trial, model, table, made)
        yield from _keys(trial, model, table, targets)
        yield from _references(trial, model, targets)
        yield from _defaults(trial, model, table, targets[-1])
        yield from _touched(trial, model, targets[0])
    for child in metadata.tables.values():
        yield from _cascades(trial, child, made, only)
    yield from _owner(trial, chosen)
    if only is None:
        yield from _roles(trial)


def untestable(trial: Trial, made: Scene) -> set[str]:
    """Return the CHECKs that no known value violates, by table and name."""
    return {
        f"{name} {check.name}"
        for name, model in metadata.tables.items()
        for check in _check_constraints(model)
        if _bad_value(trial, check, made.tables[name], made) is None
    }


def _required(
    trial: Trial, model: Table, table: TableRows, targets: tuple[Target, ...]
) -> Iterator[str]:
    """Check that the NOT NULL columns reject NULL."""
    for column in model.columns:
        # Not tested: whether dropping a key keeps NOT NULL depends on the version.
        if column.nullable or column.primary_key or column.computed is not None:
            continue
        if _kept(column):
            accepted = _written_again(trial, table, targets[0], {column.name: "NULL"}) is not None
        else:
            accepted = _allowed(trial, _update(targets[0], {column.name: "NULL"}))
        if accepted:
            yield f"{model.name}.{column.name} may be empty"


def _kept(column: Column[object]) -> bool:
    """Whether a trigger sets the column."""
    return column.server_onupdate is not None and column.computed is None


def _check_constraints(model: Table) -> list[CheckConstraint]:
    return [one for one in model.constraints if isinstance(one, CheckConstraint)]


def _checks(trial: Trial, model: Table, table: TableRows, made: Scene) -> Iterator[str]:
    """Check that each CHECK rejects a value that violates it."""
    for check in _check_constraints(model):
        bad = _bad_value(trial, check, table, made)
        if bad is None:
            continue
        column, value = bad
        if _allowed(trial, _update(made.targets[table.name][0], {column: literal(value)})):
            yield f"{check.name} accepts {value!r:.40}"


def _bad_value(
    trial: Trial, check: CheckConstraint, table: TableRows, made: Scene
) -> tuple[str, str] | None:
    """Return a column of the check and a value that violates it, as PostgreSQL evaluates it."""
    condition = str(check.sqltext)
    for column in table.columns:
        if f" {column.name} " not in f" {condition.replace('(', ' ').replace(')', ' ')} ":
            continue
        pool = candidates(made.tables.types, column.type, column.modifier, condition, Random(1))  # noqa: S311  # repeatable
        for value, _ in zip(pool, range(200), strict=False):
            row = f'SELECT CAST({literal(value)} AS {column.sql}) AS "{column.name}"'
            query = f"SELECT 1 FROM ({row}) AS one WHERE ({condition}) IS FALSE"
            if _allowed(trial, query, rows=True):
                return column.name, value
    return None


def _keys(
    trial: Trial, model: Table, table: TableRows, targets: tuple[Target, ...]
) -> Iterator[str]:
    """Check that no two rows have the same key."""
    if _allowed(trial, _copy(table, targets[0])):
        yield f"a row of {model.name} can be there twice"
    for unique in model.constraints:
        if not isinstance(unique, UniqueConstraint) or len(targets) < 2:  # a pair
            continue
        names = [column.name for column in unique.columns]
        one, other = targets[0], targets[-1]
        new = {
            name: f'(SELECT "{name}" FROM {table.sql} WHERE {one.where})'
            for name in names
            if model.columns[name].computed is None
        }
        source = {name: _source(model.columns[name]) for name in names}
        for from_ in source.values():
            if from_ is not None:
                new[from_] = f'(SELECT upper("{from_}") FROM {table.sql} WHERE {one.where})'
        if _allowed(trial, _update(other, new)):
            yield f"{unique.name} accepts the same twice"


def _source(column: Column[object]) -> str | None:
    """Return the column from which a generated column is computed."""
    if column.computed is None:
        return None
    text = str(column.computed.sqltext)
    return next(name for name in column.table.columns.keys() if f"({name})" in text)  # noqa: SIM118  # a column collection


def _references(trial: Trial, model: Table, targets: tuple[Target, ...]) -> Iterator[str]:
    """Check that a row references nothing that does not exist, nor another user's row."""
    for reference in model.constraints:
        if not isinstance(reference, ForeignKeyConstraint):
            continue
        last = reference.column_keys[-1]
        if _allowed(trial, _update(targets[0], {last: "gen_random_uuid()"})):
            yield f"{reference.name} accepts what does not exist"
        theirs = [one for one in targets if one.owner != targets[0].owner]
        if len(reference.column_keys) > 1 and theirs:
            any_of = " OR ".join(f"({one.where})" for one in theirs)
            stolen = (
                f'(SELECT "{last}" FROM {targets[0].table.sql}'
                f' WHERE ({any_of}) AND "{last}" IS NOT NULL LIMIT 1)'
            )
            if _allowed(trial, _update(targets[0], {last: stolen})):
                yield f"{reference.name} accepts another user's row"


def _cascades(trial: Trial, child: Table, made: Scene, only: str | None) -> Iterator[str]:
    """Check that the deletion of a parent deletes its children, and no others."""
    for reference in child.constraints:
        if not isinstance(reference, ForeignKeyConstraint) or reference.ondelete != "CASCADE":
            continue
        parent = reference.referred_table
        if only not in {None, parent.name, child.name}:
            continue
        pairs = ", ".join(f'c."{element.parent.name}"' for element in reference.elements)
        theirs = ", ".join(f'"{element.column.name}"' for element in reference.elements)
        rest = f'SELECT 1 FROM "{child.name}" AS c'
        set_ = " AND ".join(f"{one} IS NOT NULL" for one in pairs.split(", "))
        children = [
            one
            for one in made.targets[child.name]
            if _allowed(trial, f"{rest} WHERE {one.where} AND {set_}", rows=True)
        ]
        if not children:
            continue
        first = children[0]
        key = f'SELECT {pairs} FROM "{child.name}" AS c WHERE {first.where}'
        others = [
            one
            for one in children
            if _allowed(trial, f"{rest} WHERE {one.where} AND ({pairs}) <> ({key})", rows=True)
            and one.owner != first.owner
        ]
        delete = f'DELETE FROM "{parent.name}" WHERE ({theirs}) = ({key})'
        with _undone(trial) as driver:
            try:
                driver.execute(delete.encode())
            except psycopg.Error:
                yield f"{parent.name} cannot be deleted"
                continue
            if driver.execute(f"{rest} WHERE {first.where}".encode()).rowcount:
                yield f"{child.name} outlives its {parent.name}"
            for other in others:
                if not driver.execute(f"{rest} WHERE {other.where}".encode()).rowcount:
                    yield f"{child.name} goes with another {parent.name}"


def _defaults(trial: Trial, model: Table, table: TableRows, target: Target) -> Iterator[str]:
    """Check that the database fills in what the models leave to it."""
    for column in model.columns:
        if not isinstance(column.server_default, DefaultClause):
            continue
        made = _written_again(trial, table, target, {column.name: "DEFAULT"})
        if made is None:
            yield f"{model.name}.{column.name} is not filled in"
        elif not made[column.name]:
            yield f"{model.name}.{column.name} is left empty"
        elif column.name == "id":
            version = 7 if "uuid_v7" in str(column.server_default.arg) else 4
            if UUID(made[column.name]).version != version:
                yield f"{model.name}.id is of another version"


def _touched(trial: Trial, model: Table, target: Target) -> Iterator[str]:
    """Check that an UPDATE cannot keep or forge the time of the last change."""
    for column in model.columns:
        if _kept(column):
            update = _update(target, {column.name: "'2001-01-01'"})
            returning = f'{update} RETURNING 1 / ("{column.name}" = CURRENT_TIMESTAMP)::int'
            if not _allowed(trial, returning):
                yield f"{model.name}.{column.name} can be faked"


def _owner(trial: Trial, tables: tuple[TableRows, ...]) -> Iterator[str]:
    """Check that row security is forced on an owner without BYPASSRLS."""
    with _undone(trial) as driver:
        owner = driver.execute(
            "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'public.\"user\"'::regclass"
        ).fetchone()
        assert owner is not None
        driver.execute(f"ALTER ROLE {owner[0]} NOBYPASSRLS; SET LOCAL ROLE {owner[0]}".encode())
        for table in tables:
            access = declared_access(metadata.tables[table.name])
            assert access is not None
            if access.row_security and driver.execute(f"SELECT FROM {table.sql}".encode()).rowcount:
                yield f"the owner sees {table.name}"


def _roles(trial: Trial) -> Iterator[str]:
    """Check what a group role can do apart from rows."""
    somebody = str(uuid4())
    for role in (APPLICATION, BETTER_AUTH, PUBLIC):
        for statement in (
            "CREATE TEMPORARY TABLE shadow (x int)",
            "CREATE TABLE public.intruder (x int)",
            "CREATE SCHEMA intruder",
            "CREATE ROLE intruder",
            "SELECT * FROM pg_catalog.pg_authid",
            "UPDATE public.alembic_version SET version_num = version_num",
        ):
            if not trial.refused(role, somebody, statement):
                yield f"{role} may {statement}"
    for role, function, may in (
        (APPLICATION, "app_user_id()", True),
        (APPLICATION, "uuid_v7()", True),
        (BETTER_AUTH, "app_user_id()", False),
        (BETTER_AUTH, "uuid_v7()", False),
        (PUBLIC, "app_user_id()", False),
    ):
        if trial.refused(role, somebody, f"SELECT public.{function}") == may:
            yield f"{role} and {function}"
    for role in (APPLICATION, BETTER_AUTH):
        if trial.refused(role, somebody, "SELECT FROM public.alembic_version"):
            yield f"{role} does not see the revision"


def _update(target: Target, values: dict[str, str]) -> str:
    changes = ", ".join(f'"{name}" = {value}' for name, value in values.items())
    return f"UPDATE {target.table.sql} SET {changes} WHERE {target.where}"


def _names(table: TableRows) -> list[str]:
    return [f'"{column.name}"' for column in table.columns if column.written]


def _written_again(
    trial: Trial, table: TableRows, target: Target, values: dict[str, str]
) -> dict[str, str] | None:
    """Delete a row and insert it with other values; return it as text, or None if refused."""
    names = _names(table)
    with _undone(trial) as driver:
        # A default may name the acting user.
        driver.execute("SELECT set_config('app.user_id', %s, true)", [target.owner or ""])
        where = f"FROM {table.sql} WHERE {target.where}"
        old = driver.execute(
            f"SELECT {', '.join(f'{name}::text' for name in names)} {where}".encode()
        ).fetchone()
        assert old is not None
        new = [
            values.get(name.strip('"'), "NULL" if value is None else literal(value))
            for name, value in zip(names, old, strict=True)
        ]
        shown = ", ".join(f"{name}::text" for name in names)
        try:
            driver.execute(f"DELETE {where}".encode())
            made = driver.execute(
                f"INSERT INTO {table.sql} ({', '.join(names)}) VALUES ({', '.join(new)})"
                f" RETURNING {shown}".encode()
            ).fetchone()
        except psycopg.Error:
            return None
    assert made is not None
    return {name.strip('"'): value for name, value in zip(names, made, strict=True)}


def _copy(table: TableRows, target: Target) -> str:
    """Return the statement that inserts a row again."""
    names = _names(table)
    other = {name for key in table.keys if key != table.primary_key for name in key}
    texts = {column.name for column in table.columns if column.sql == "text"}
    fresh = other & texts - set(table.primary_key)  # only the primary key shall be in the way
    values = [f"{name} || 'x'" if name.strip('"') in fresh else name for name in names]
    return (
        f"INSERT INTO {table.sql} ({', '.join(names)}) SELECT {', '.join(values)}"
        f" FROM {table.sql} WHERE {target.where}"
    )


def _allowed(trial: Trial, statement: str, *, rows: bool = False) -> bool:
    """Whether the superuser can execute the statement, and with `rows` gets some; it is undone."""
    with _undone(trial) as driver:
        try:
            done = driver.execute(statement.encode())
        except psycopg.Error:
            return False
        return done.rowcount > 0 if rows else True


@contextmanager
def _undone(trial: Trial) -> Iterator[psycopg.Connection[Any]]:
    """Undo the changes of a block."""
    trial.driver.execute("SAVEPOINT behaviour")
    try:
        yield trial.driver
    finally:
        trial.driver.execute("ROLLBACK TO behaviour; RELEASE behaviour")
