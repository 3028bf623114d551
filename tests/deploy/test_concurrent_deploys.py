"""Deploys of one database at once: one applies the history, and none fails.

The theory: a deploy polls for the deploy lock and never waits for it in the server. So it neither
blocks nor deadlocks the concurrent index build of another deploy.
"""

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from schema.postgres.connection import connect
from tests.support.alembic_process import ALEMBIC, state
from tests.support.repo_copy import Checkout, Launcher, sql

# The processes fork after all imports, and begin together.
TOGETHER = """
import os, sys
begin, start = os.pipe()
children = []
for number in range({number}):
    child = os.fork()
    if child == 0:
        os.close(start)
        for descriptor, name in ((1, "out"), (2, "err")):
            path = f"{folder}/{{number}}.{{name}}"
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), descriptor)
        os.read(begin, 1)
        {alembic}
    children.append(child)
os.close(start)
for child in children:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

CONCURRENTLY = """with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute("CREATE INDEX CONCURRENTLY {name} ON todo (title)")"""


@pytest.mark.parametrize("number", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_at_once(run: Launcher, copy: Checkout, empty: URL, tmp_path: Path, number: int) -> None:
    """One deploy applies every revision once, concurrent index included; the others do nothing."""
    copy.add(CONCURRENTLY.format(name="todo_title_idx"), sql("DROP INDEX todo_title_idx"))
    last = "b0b1c2d3e4f5"
    copy.add(
        sql("CREATE TABLE log ()"),
        revision=last,
        parents="a0b1c2d3e4f5",
        name=f"2099_01_01_0001_{last}_x.py",
    )
    with connect(empty, autocommit=True) as connection:
        connection.exec_driver_sql("CREATE TABLE public.alembic_version (version_num varchar(32))")
        connection.exec_driver_sql("ALTER TABLE alembic_version ADD CONSTRAINT alembic_version_pkc"
                                   " PRIMARY KEY (version_num)")  # fmt: skip  # one statement
        # Records every change of the database's revision.
        connection.exec_driver_sql(
            """
            CREATE SCHEMA audit
            CREATE TABLE moves (id bigint GENERATED ALWAYS AS IDENTITY, version text);
            CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO audit.moves (version) VALUES (new.version_num); RETURN NULL; END $$;
            CREATE TRIGGER note AFTER INSERT OR UPDATE ON alembic_version
            FOR EACH ROW EXECUTE FUNCTION audit.note();
            """
        )
    address = empty.render_as_string(hide_password=False)
    alembic = ALEMBIC.format(url=address, before="").replace("\n", "\n        ")
    code = TOGETHER.format(number=number, folder=tmp_path, alembic=alembic)
    result = run.run(copy.root, "-x", "timeout-minutes=2", "upgrade", "head", code=code)
    outputs = {name: [(tmp_path / f"{deploy}.{name}").read_text() for deploy in range(number)]
            for name in ("out", "err")}  # fmt: skip  # two lines read better
    assert Counter(result.out.split()) == {"0": number}, outputs["err"]
    assert sum("went from nothing to b0b1c2d3e4f5" in out for out in outputs["out"]) == 1
    assert sum(out.startswith("Nothing to do") for out in outputs["out"]) == number - 1
    assert any("Waiting for another deploy: session" in err for err in outputs["err"])
    assert not any("DeadlockDetected" in err or "lost" in err for err in outputs["err"])
    with connect(empty) as connection:
        moves = list(connection.scalars(text("SELECT version FROM audit.moves ORDER BY id")))
        valid = connection.scalar(
            text("SELECT indisvalid FROM pg_index WHERE indexrelid = 'todo_title_idx'::regclass")
        )
    assert len(moves) == len(set(moves)) == len(list(copy.versions.glob("*.py")))
    assert valid is True
    assert state(empty)[1] == [last]
