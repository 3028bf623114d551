"""Read from a statement how it may run, without executing it."""

import re

from pglast import ast, parse_sql, split
from pglast.enums import AlterTableType, ConstrType, TransactionStmtKind
from pglast.parser import ParseError

from schema.review.execution.relations import Relation, Relations

_ALONE = (
    ast.AlterSystemStmt,
    ast.CallStmt,  # may commit
    ast.CreatedbStmt,
    ast.DoStmt,  # may commit
    ast.DropdbStmt,
    ast.CreateTableSpaceStmt,
    ast.DropTableSpaceStmt,
    ast.TransactionStmt,
)
_CONTROL = {
    TransactionStmtKind.TRANS_STMT_BEGIN,
    TransactionStmtKind.TRANS_STMT_START,
    TransactionStmtKind.TRANS_STMT_COMMIT,
    TransactionStmtKind.TRANS_STMT_ROLLBACK,
}
_PERHAPS_ALONE = re.compile(r"\b(CONCURRENTLY|VACUUM|CALL|DO)\b", re.IGNORECASE)


def pieces(sql: str) -> list[str]:
    """Split a string into its statements; one that cannot be split is returned whole."""
    for with_parser in (True, False):  # the parser may be older than the server
        try:
            found = [str(one) for one in split(sql, with_parser=with_parser)]
        except ParseError:
            continue
        return found if len(found) > 1 else [sql]
    return [sql]


def parsed(sql: str) -> ast.Node | None:
    """Parse one statement; None for what PostgreSQL's parser of another version refuses."""
    try:
        found = parse_sql(sql)
    except ParseError:
        return None
    return found[0].stmt if found else None


def can_be_in_transaction(sql: str) -> bool:
    """Whether a transaction block may contain the statement.

    Each command's page says so, such as CREATE INDEX, Building Indexes Concurrently.
    """
    match statement := parsed(sql):
        case None:
            found = _PERHAPS_ALONE.search(sql) is None
        case ast.VacuumStmt():
            found = not statement.is_vacuumcmd
        case ast.IndexStmt() | ast.DropStmt():
            found = not statement.concurrent
        case ast.ReindexStmt():
            options = {option.defname for option in statement.params or ()}
            found = "concurrently" not in options and statement.relation is not None
        case ast.ClusterStmt():
            found = statement.relation is not None
        case ast.AlterTableStmt():
            found = not any(
                command.subtype == AlterTableType.AT_DetachPartition and command.def_.concurrent
                for command in statement.cmds
            )
        case _:
            found = not isinstance(statement, _ALONE)
    return found


def is_transaction_control(sql: str) -> bool:
    """Whether the statement begins or ends a transaction."""
    statement = parsed(sql)
    return isinstance(statement, ast.TransactionStmt) and statement.kind in _CONTROL


def named_tables(sql: str, relations: Relations) -> list[Relation]:
    """Return the tables that a command names, or whose indexes it names; of a block, none."""
    if isinstance(parsed(sql), ast.DoStmt | ast.CallStmt):
        return []
    words = set(re.findall(r"[\w$]+", sql))
    named = [one for one in relations.values() if one.name.rpartition(".")[2] in words]
    oids = {one.table or one.oid for one in named}
    return [one for one in relations.values() if one.oid in oids and one.kind in "rp"]


def looked_up_table(sql: str) -> str | None:
    """Return the table whose rows are looked up in another one, by a new FOREIGN KEY.

    How PostgreSQL does it depends on statistics: through an index it may read no row at all.
    """
    statement = parsed(sql)
    if not isinstance(statement, ast.AlterTableStmt):
        return None
    for command in statement.cmds:
        made = command.def_ if command.subtype == AlterTableType.AT_AddConstraint else None
        if made and made.contype == ConstrType.CONSTR_FOREIGN and not made.skip_validation:
            table = statement.relation
            schema = table.schemaname
            return f"{schema}.{table.relname}" if schema not in {None, "public"} else table.relname
    return None
