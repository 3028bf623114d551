"""The diagram shows the tables that a change affects, and mermaid, which GitHub uses, reads it.

The theory: the facts of a snapshot hold PostgreSQL's own wording of columns and keys, so they are
read from a real server, with the names that are hardest to read. Whether a diagram can be drawn is
decided by mermaid's parser, so it is asked, and not a rule about its grammar.
"""

import json
import subprocess
from typing import Any

import pytest
from sqlalchemy import URL, text

from migrations import snapshot
from schema.postgres.connection import connect
from schema.project import ROOT
from schema.review.pages.diagram import MOST_TABLES, affected, mermaid
from schema.review.result import Column, Diagram, Reference, Table
from tests.review.reviews import FULL
from tests.support.npm import find_node, install

SOURCE = ROOT / "tests" / "review" / "mermaid"
INSTALLED = ROOT / ".venv" / "mermaid"

BEFORE = """
CREATE SCHEMA archive;
CREATE TABLE "user" (id uuid PRIMARY KEY, "createdAt" timestamptz);
CREATE TABLE "it's, ""odd"" (x)" ("a, b" int, "c""d" numeric(10,2)[], PRIMARY KEY ("a, b", "c""d"));
CREATE TABLE archive.todo (id uuid PRIMARY KEY, title varchar(50), owner uuid, rank text);
CREATE TABLE gone (id int PRIMARY KEY);
CREATE TABLE bystander (id int PRIMARY KEY);
"""
AFTER = """
DROP TABLE gone;
ALTER TABLE archive.todo DROP COLUMN rank, ALTER title TYPE text, ADD priority int,
  ADD CONSTRAINT todo_owner_fkey FOREIGN KEY (owner) REFERENCES "user" (id);
CREATE TABLE fresh (x int, y numeric(10,2)[],
  CONSTRAINT odd_fkey FOREIGN KEY (x, y) REFERENCES "it's, ""odd"" (x)" ON DELETE CASCADE);
"""
ODD_NAMES = [
    "user", "PK", "fk", "one", "to", "direction TB", "a b", 'q"uote', "per%cent", "%%", "é表", "😀",
    "#35;", "<b>", "1st", "-", "", "}", "{", "a;b", "::: x", "accTitle: x", "erDiagram", "style",
    "classDef", "class", "title", "a\nb", "%%{init: {}}%%", "u", "\\", "`", "~x~", "---", "[", "]",
]  # fmt: skip


def change(empty: URL, before: str, after: str) -> Diagram:
    """Return the diagram of a change, made on a real server."""
    with connect(empty) as connection:
        connection.execute(text(before))
        old = snapshot.read(connection)
        connection.execute(text(after))
        return affected(old, snapshot.read(connection))


def test_what_changes_is_marked(empty: URL) -> None:
    """Tables that change and that they reference are there, with types, keys and marks."""
    odd = '"it\'s, ""odd"" (x)"'
    diagram = change(empty, BEFORE, AFTER)
    assert diagram == Diagram(
        (
            Table(
                odd, (Column('"a, b"', "integer", "PK"), Column('"c""d"', "numeric(10,2)[]", "PK"))
            ),
            Table('"user"', (Column("id", "uuid", "PK"),
                             Column('"createdAt"', "timestamp with time zone"))),
            Table("archive.todo", (
                Column("id", "uuid", "PK"),
                Column("owner", "uuid", "FK"),
                Column("priority", "integer", "", "added"),
                Column("rank", "text", "", "removed"),
                Column("title", "text", "", "changed"),
            ), "changed"),
            Table("fresh", (Column("x", "integer", "FK"), Column("y", "numeric(10,2)[]", "FK")),
                  "added"),
            Table("gone", (Column("id", "integer", "PK"),), "removed"),
        ),
        (
            Reference("archive.todo", "owner", '"user"', "added"),
            Reference("fresh", "x, y", odd, "added"),
        ),
    )  # fmt: skip


def test_no_change_is_no_diagram(empty: URL) -> None:
    """Equal schemas have no diagram."""
    diagram = change(empty, BEFORE, "SELECT 1")
    assert diagram == Diagram()
    assert mermaid(diagram) == ""


def test_too_many_tables_are_counted(empty: URL) -> None:
    """Beyond a number, what is added goes before what changes, and the rest is counted."""
    before = "".join(f"CREATE TABLE a{number} (id int);" for number in range(MOST_TABLES))
    after = before.replace("CREATE TABLE a", "CREATE TABLE b") + "".join(
        f"ALTER TABLE a{number} ADD x int;" for number in range(MOST_TABLES)
    )
    diagram = change(empty, before, after)
    assert {table.mark for table in diagram.tables} == {"added"}
    assert len(diagram.tables) == diagram.left_out == MOST_TABLES


def read_by_mermaid(diagrams: list[str]) -> list[Any]:
    """Return what mermaid's parser found in each diagram."""
    node = find_node()
    install(SOURCE, INSTALLED)
    done = subprocess.run(
        [node, SOURCE / "parse.mjs", INSTALLED],
        input=json.dumps(diagrams),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_mermaid_reads_every_name() -> None:
    """Whatever a table, a column or a type is called, mermaid finds as many of them, and marks."""
    diagrams = [FULL.diagram]
    for name in ODD_NAMES:
        column = Column(name, name or "x", "PK, FK", "changed")
        tables = (Table(name, (column, column), "added"), Table("b", (column,), "removed"))
        diagrams.append(Diagram(tables, (Reference(name, name, "b", "removed"),)))
    for diagram, found in zip(
        diagrams, read_by_mermaid([mermaid(one) for one in diagrams]), strict=True
    ):
        assert "error" not in found, (mermaid(diagram), found)
        assert len(found["tables"]) == len(diagram.tables)
        assert found["references"] == len(diagram.references)
        for table, read in zip(diagram.tables, found["tables"], strict=True):
            assert read["name"].endswith(f"({table.mark})" if table.mark else "user")
            assert [one[2] for one in read["columns"]] == [one.key for one in table.columns]
            marks = [one[3].rpartition(", ")[2] for one in read["columns"]]
            assert [mark if mark in ("added", "removed", "changed") else "" for mark in marks] == [
                one.mark for one in table.columns
            ]


@pytest.mark.slow
def test_mermaid_refuses_what_is_not_made_safe() -> None:
    """The parser is a judge: a type as PostgreSQL writes it is an error."""
    (found,) = read_by_mermaid(["erDiagram\n    t1 {\n        numeric(10,2) x\n    }"])
    assert "Parse error" in found["error"]
