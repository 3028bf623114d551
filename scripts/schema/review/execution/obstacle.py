"""The rows that stand in a revision's way: which constraint, and how many rows do not meet it."""

from dataclasses import dataclass

import psycopg
from pglast import ast
from pglast.enums import AlterTableType, ConstrType
from pglast.stream import RawStream

from schema.review.execution.relations import Session
from schema.review.execution.statements import parsed
from schema.rows.tables import quote


@dataclass(frozen=True)
class Obstacle:
    """The rows of a table that do not meet a condition."""

    constraint: str
    rows: int | None
    """None if that cannot be counted, such as on a column that the revision itself makes."""
    example: str
    """One of them: its key and the columns concerned."""


@dataclass(frozen=True)
class _Condition:
    table: str
    """As SQL."""
    columns: tuple[str, ...]
    where: str
    """True for the rows that stand in the way."""
    name: str = ""


def find_obstacle(session: Session, sql: str, error: psycopg.Error) -> Obstacle:
    """Count the rows that made a statement fail, after its transaction was rolled back."""
    name = error.diag.constraint_name or ""
    found = _condition(session, sql, name)
    if found is None:
        return Obstacle(name, None, "")
    name = name or found.name
    try:
        rows = session.execute(
            f"SELECT count(*) FROM {found.table} AS t WHERE {found.where}".encode()
        ).fetchall()[0][0]
        key = _key_of(session, found.table)
        shown = ", ".join(f"t.{quote(one)}" for one in dict.fromkeys((*key, *found.columns)))
        example = session.execute(
            f"SELECT to_json(s)::text FROM (SELECT {shown} FROM {found.table} AS t"
            f" WHERE {found.where} ORDER BY 1 LIMIT 1) AS s".encode()
        ).fetchall()
    except psycopg.Error:
        return Obstacle(name, None, "")
    return Obstacle(name, rows, str(example[0][0]) if example else "")


def _condition(session: Session, sql: str, constraint: str) -> _Condition | None:
    statement = parsed(sql)
    if isinstance(statement, ast.IndexStmt) and statement.unique:
        columns = [one.name for one in statement.indexParams]
        return (
            _unique(_sql(statement.relation), columns, statement.idxname) if all(columns) else None
        )
    if not isinstance(statement, ast.AlterTableStmt):
        return None
    table = _sql(statement.relation)
    for command in statement.cmds:
        found = _of_command(session, table, command)
        if found is not None and (not constraint or found.name in {"", constraint}):
            return found
    return None


def _of_command(session: Session, table: str, command: ast.AlterTableCmd) -> _Condition | None:
    if command.subtype == AlterTableType.AT_SetNotNull:
        return _Condition(table, (command.name,), f"t.{quote(command.name)} IS NULL")
    if command.subtype == AlterTableType.AT_AddConstraint:
        return _of_constraint(session, table, command.def_)
    if command.subtype == AlterTableType.AT_ValidateConstraint:
        definition = session.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid = %s::regclass AND conname = %s",
            [table, command.name],
        ).fetchall()
        text = definition[0][0].removesuffix(" NOT VALID") if definition else ""
        added = parsed(f"ALTER TABLE {table} ADD CONSTRAINT {quote(command.name)} {text}")
        return (
            _of_constraint(session, table, added.cmds[0].def_)
            if isinstance(added, ast.AlterTableStmt)
            else None
        )
    return None


def _of_constraint(session: Session, table: str, constraint: ast.Constraint) -> _Condition | None:
    """Return the condition of the rows that a constraint refuses."""
    name = constraint.conname or ""
    kind = constraint.contype
    if kind == ConstrType.CONSTR_CHECK:
        text = RawStream()(constraint.raw_expr)  # type: ignore[no-untyped-call]  # pglast leaves it so
        return _Condition(table, (), f"({text}) IS FALSE", name)
    if kind in {ConstrType.CONSTR_UNIQUE, ConstrType.CONSTR_PRIMARY} and constraint.keys:
        return _unique(table, [key.sval for key in constraint.keys], name)
    if kind == ConstrType.CONSTR_FOREIGN and constraint.fk_attrs:
        own = [quote(one.sval) for one in constraint.fk_attrs]
        named = [one.sval for one in constraint.pk_attrs or ()]
        theirs = list(map(quote, named or _key_of(session, _sql(constraint.pktable))))
        filled = " AND ".join(f"t.{one} IS NOT NULL" for one in own)
        same = " AND ".join(f"p.{p} = t.{t}" for p, t in zip(theirs, own, strict=False))
        parent = _sql(constraint.pktable)
        where = f"{filled} AND NOT EXISTS (SELECT FROM {parent} AS p WHERE {same})"
        return _Condition(table, tuple(one.sval for one in constraint.fk_attrs), where, name)
    return None


def _unique(table: str, columns: list[str], name: str | None) -> _Condition:
    listed = ", ".join(map(quote, columns))
    own = ", ".join(f"t.{quote(one)}" for one in columns)
    groups = f"SELECT {listed} FROM {table} GROUP BY {listed} HAVING count(*) > 1"
    return _Condition(table, tuple(columns), f"({own}) IN ({groups})", name or "")


def _sql(relation: ast.RangeVar) -> str:
    schema = f"{quote(relation.schemaname)}." if relation.schemaname else ""
    return f"{schema}{quote(relation.relname)}"


def _key_of(session: Session, table: str) -> list[str]:
    found = session.execute(
        "SELECT a.attname::text FROM pg_constraint AS k JOIN pg_attribute AS a"
        " ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)"
        " WHERE k.conrelid = %s::regclass AND k.contype = 'p' ORDER BY a.attnum",
        [table],
    )
    return [name for (name,) in found]
