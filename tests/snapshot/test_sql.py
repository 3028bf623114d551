"""SQL that turns one schema into another, tried on every change that the snapshot shows.

The theory: for each change in changes.sql there is SQL that undoes it, and after it the snapshot is
what it was; WITHOUT_SQL names the changes for which none is written. What is wrong is never called
right: the same comparison decides in `schema drift`.
"""

import re

import pytest

from migrations import snapshot
from schema.ddl.apply import Sessions, reach
from schema.ddl.definition import Names
from schema.postgres.embedded import OWNER
from tests.snapshot.test_snapshot import (  # noqa: F401  # fixtures
    CHANGES,
    Change,
    Session,
    make,
    riches,
    run,
    session,
    sessions,
)

WITHOUT_SQL = {
    "an object of this kind is not made anew": (
        r"table: (dropped|no longer of a type)|table: inherits.*|partition: .*"
        r"|type: (attribute|order|range|base|shell).*|aggregate: .*|collation: .*|operator.*"
        r"|cast: .*"
        r"|conversion: .*|text search: .*|language: .*|transform: .*|access method: .*"
        r"|publication: .*|subscription: .*|foreign data: .*|event trigger: tags|schema: dropped"
        r"|statistics: kinds"
    ),
    "no statement undoes it": r"type: enum value.*|large object: .*|extension: version",
    "only who changed it knows which zone was meant": r"column: time zone",
    "rare": (
        r"table: (renamed|moved to another schema|tablespace|access method|clustered on a key)"
        r"|column: (generated.*|inherited one made local)"
        r"|constraint: (renamed|unique with distinct nulls|unique's storage parameter|not null.*"
        r"|comment on not null)"
        r"|index: (tablespace|comment on a key's|invalid below a key|depends on an extension)"
        r"|(trigger|function|materialised view): depends on an extension|rule: disabled"
        r"|sequence: unlogged|grant: by another role"
        r"|platform: .*|domain: check dropped|extension: created"
        r"|role: (renamed|valid until|member without.*|member with admin option|member no more)"
    ),
}


def expected(change: Change) -> bool:
    """Whether SQL is written for the change."""
    return not any(re.fullmatch(names, change.name) for names in WITHOUT_SQL.values())


SAMPLE = 20
"""The quick tier tries one of so many changes."""


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(one, id=one.name, marks=() if number % SAMPLE == 0 else pytest.mark.slow)
        for number, one in enumerate(filter(expected, CHANGES))
    ],
)
def test_sql_undoes_a_change(session: Session, change: Change) -> None:  # noqa: F811  # a fixture
    """After the SQL the schema is what it was."""
    connection = session.connection
    names = Names(f'"{connection.engine.url.database}"', OWNER)
    wanted = session.facts
    with connection.begin() as transaction:
        make(connection, change)
        run(connection, "RESET ROLE")
        taken = reach(Sessions(connection, connection), wanted, names).taken
        run(connection, f"SET LOCAL ROLE {OWNER}")
        left = snapshot.difference(wanted, snapshot.read(connection))
        transaction.rollback()
    assert taken
    assert left == "", [step.statements for step in taken]


@pytest.mark.parametrize("form", ["(at int)", "PARTITION OF parted DEFAULT"])
def test_a_table_that_holds_rows_is_not_dropped(session: Session, form: str) -> None:  # noqa: F811  # a fixture
    """Neither a table nor a partition is dropped before it is empty."""
    connection = session.connection
    names = Names(f'"{connection.engine.url.database}"', OWNER)
    with connection.begin() as transaction:
        run(connection, f"SET LOCAL ROLE {OWNER}")
        run(connection, "CREATE TABLE parted (at int) PARTITION BY RANGE (at)")
        wanted = snapshot.read(connection, version_table=True)
        run(connection, f"CREATE TABLE full_table {form}; INSERT INTO full_table VALUES (1)")
        run(connection, "RESET ROLE")
        reach(Sessions(connection, connection), wanted, names)
        kept = connection.exec_driver_sql("SELECT count(*) FROM full_table").scalar_one()
        run(connection, "TRUNCATE full_table")
        reach(Sessions(connection, connection), wanted, names)
        gone = connection.exec_driver_sql("SELECT to_regclass('full_table')").scalar_one()
        transaction.rollback()
    assert (kept, gone) == (1, None)
