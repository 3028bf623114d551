"""`schema revision` as an author uses it: edit a model, one command, and `schema check` passes.

In copies of the checkout. The theory: what the command writes passes every check, the linters
included, unedited; a second run has nothing to do; what it refuses changes no file.
"""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, CursorResult, text
from sqlalchemy.exc import IntegrityError

from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from tests.support.alembic_process import deploy
from tests.support.repo_copy import COMMAND, Checkout, Launcher, Result

TABLES = '''"""Tables of a test, one of each kind."""

from typing import ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Text, Uuid
from sqlmodel import Field

from .access import Members
from .base import Base
from .ownership import Membership, Owned, OwnedLink, Shared
from .reference import Reference


class Note(Owned, table=True):
    """Something to remember."""

    __tablename__ = "note"
    __table_args__ = (
        CheckConstraint("kind IN ('plain', 'list')", name="kind"),
        Index(None, "user_id", "kind"),
        {"comment": "Something to remember"},
    )

    kind: str = Field(sa_type=Text, sa_column_kwargs={"comment": "How it is shown: plain or list"})
    body: str = Field(sa_type=Text, sa_column_kwargs={"comment": "PERSONAL: what to remember"})


class NoteTag(OwnedLink, table=True):
    """A note filed under a tag."""

    __tablename__ = "note_tag"
    __table_args__ = (
        ForeignKeyConstraint(
            ["user_id", "note_id"], ["note.user_id", "note.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["user_id", "tag_id"], ["tag.user_id", "tag.id"], ondelete="CASCADE"),
        Index(None, "user_id", "tag_id", "note_id"),
        {"comment": "A note filed under a tag of the same user"},
    )

    note_id: UUID = Field(primary_key=True, sa_type=Uuid, sa_column_kwargs={"comment": "What"})
    tag_id: UUID = Field(primary_key=True, sa_type=Uuid, sa_column_kwargs={"comment": "Under what"})


class Country(Reference, table=True):
    """A country."""

    __tablename__ = "country"
    __table_args__ = ({"comment": "A country, as ISO 3166 names it"},)

    code: str = Field(primary_key=True, sa_type=Text, sa_column_kwargs={"comment": "Two letters"})
    name: str = Field(sa_type=Text, sa_column_kwargs={"comment": "Its name in English"})


class BoardMember(Membership, table=True):
    """A member of a board."""

    __tablename__ = "board_member"
    __table_args__ = (
        ForeignKeyConstraint(
            ["user_id", "board_id"], ["board.user_id", "board.id"], ondelete="CASCADE"
        ),
        Index(None, "member_id", "user_id", "board_id"),
        Index(None, "user_id", "board_id"),
        {"comment": "A member of a board"},
    )

    board_id: UUID = Field(primary_key=True, sa_type=Uuid, sa_column_kwargs={"comment": "Of what"})


class Board(Shared, table=True):
    """A board that its user shares."""

    __tablename__ = "board"
    __table_args__ = ({"comment": "A board that its user shares with members"},)
    shared_with: ClassVar = Members("board_member", {"id": "board_id"})

    name: str = Field(sa_type=Text, sa_column_kwargs={"comment": "Its name"})
'''

COLUMN = """    priority: str | None = Field(
        default=None, sa_type=Text, sa_column_kwargs={"comment": "How urgent it is"}
    )
"""
RENAMED = """    body: str | None = Field(
        default=None,
        sa_type=Text,
        sa_column_kwargs={
            "comment": "PERSONAL: more about it, in at most 10,000 characters",
            "info": {"renamed_from": "description"},
        },
    )
"""


def model(copy: Checkout, edit: Callable[[str], str], name: str = "todo") -> None:
    """Edit a model."""
    path = copy.root / "models" / f"{name}.py"
    before = path.read_text(encoding="utf-8")
    after = edit(before)
    assert after != before
    path.write_text(after, encoding="utf-8")


def add_column(text: str) -> str:
    """Add a nullable column, with a CHECK and an index."""
    text = text.replace('    user: "User"', f'{COLUMN}    user: "User"', 1)
    return text.replace(
        '        {"comment": "A thing that its user',
        "        CheckConstraint(\"priority IN ('low', 'high')\", name=\"priority\"),\n"
        '        Index("todo_priority_idx", "user_id", "priority"),\n'
        '        {"comment": "A thing that its user',
    )


def rename_column(text: str) -> str:
    """Rename `description` to `body`."""
    text = re.sub(
        r"    description: str \| None = Field\(.*?\n    \)\n", RENAMED, text, flags=re.DOTALL
    )
    return text.replace("char_length(description)", "char_length(body)").replace(
        'name="description_length"', 'name="body_length"'
    )


def drop_description(text: str) -> str:
    """Drop a column, and the CHECK that needs it."""
    text = re.sub(r"    description: .*?\n    \)\n", "", text, flags=re.DOTALL)
    return re.sub(r'        CheckConstraint\("char_length\(description\).*\n', "", text)


def drop_index(text: str) -> str:
    """Drop an index."""
    return re.sub(r"        # A user's open todos, newest first.\n        Index\(.*?\n", "", text)


def add_tables(copy: Checkout) -> None:
    """Add a table of each kind."""
    (copy.root / "models" / "kinds.py").write_text(TABLES, encoding="utf-8")
    path = copy.root / "models" / "__init__.py"
    path.write_text(path.read_text("utf-8") + "\nfrom . import kinds as kinds\n", "utf-8")


def change_policy(copy: Checkout) -> None:
    """Let the application read only users whose address is verified."""
    copy.edit("models/user.py", '"id = {me}"', "'id = {me} AND \"emailVerified\"'")


@pytest.fixture
def schema(run: Launcher, copy: Checkout, server: Server) -> Callable[..., Result]:
    """Run the `schema` command in the copy."""
    url = server.maintenance.render_as_string(hide_password=False)
    return lambda *arguments: run.run(copy.root, *arguments, "--database-url", url)


def files(copy: Checkout) -> dict[Path, bytes]:
    """Read every file that the command may write."""
    return {
        path: path.read_bytes()
        for folder in ("migrations", "models")
        for path in sorted((copy.root / folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_everything_at_once_passes_every_check(
    copy: Checkout, schema: Callable[..., Result]
) -> None:
    """A column, tables of each kind, a rename, a policy and a dropped index: written, and right."""
    model(copy, lambda text: drop_index(rename_column(add_column(text))))
    add_tables(copy)
    change_policy(copy)
    done = schema("revision", "-m", "Change a lot")
    assert done.code == 0, done.everything
    assert len(done.out.splitlines()) <= 10, done.out
    checked = schema("check")
    assert checked.code == 0, checked.everything
    assert schema("revision", "-m", "Change nothing").out.startswith("Nothing to do")


RENAMES = {
    "user": ((r"\bemail(?=: str| =|_lower)", "mail"), (r"lower\(email\)", "lower(mail)")),
    "todo": ((r"\bdue_at(?=: |\"| IS)", "deadline"),),
    "todo_tag": ((r"\btodo_id\b", "item_id"),),
}
"""Names and what they become: of a unique key, a named partial index, and a foreign key."""
RENAMED_FROM = {"user": "email", "todo": "due_at", "todo_tag": "todo_id"}
RENAMED_TO = ("mail", "deadline", "item_id")


def use(url: URL, mail: str, deadline: str, item: str) -> None:
    """Do what a release does with the renamed columns: none may fail, and no rule be missing."""
    values = {"user": uuid4(), "mail": f"{uuid4()}@example.org", "nobody": uuid4()}
    with connect(url) as connection:

        def do(sql: str) -> CursorResult[Any]:
            return connection.execute(text(sql), values)

        add = f'INSERT INTO "user" (id, name, {mail}) VALUES (:user, :mail, :mail)'
        assert do(add).rowcount == 1
        again = add.replace(":user", ":nobody")
        assert do(f"{again} ON CONFLICT ({mail}) DO NOTHING").rowcount == 0
        for name, sql in {
            "todo": f"todo (user_id, title, {deadline}) VALUES (:user, 'x', now())",
            "tag": "tag (user_id, name) VALUES (:user, 'x')",
        }.items():
            values[name] = do(f"INSERT INTO {sql} RETURNING id").scalar_one()
        file = f"INSERT INTO todo_tag (user_id, {item}, tag_id) VALUES (:user, :todo, :tag)"
        assert do(file).rowcount == 1
        assert do(f"{file} ON CONFLICT (user_id, {item}, tag_id) DO NOTHING").rowcount == 0
        for wrong in (again, file.replace(":todo", ":nobody")):
            with pytest.raises(IntegrityError), connection.begin_nested():
                do(wrong)
        assert do(f'SELECT FROM "user" WHERE {mail} = :mail').rowcount == 1
        assert do(f"UPDATE todo SET {deadline} = {deadline} + interval '1 day'").rowcount
        assert do(f"SELECT FROM todo WHERE id = :todo AND {deadline} > now()").rowcount == 1
        assert do(f"SELECT FROM todo_tag WHERE {item} = :todo").rowcount == 1
        do("DELETE FROM todo WHERE id = :todo")
        assert do(f"SELECT FROM todo_tag WHERE {item} = :todo").rowcount == 0
        connection.commit()


@pytest.mark.slow
def test_a_rename_keeps_what_the_running_release_uses(
    copy: Checkout, schema: Callable[..., Result], run: Launcher, head: URL
) -> None:
    """At every step of both releases' revisions the running release works, and its rules hold.

    Keys and indexes of the old columns stay until the columns go; both releases pass each check.
    """
    use(head, *RENAMED_FROM.values())
    for name, changes in RENAMES.items():

        def rename(
            text: str, name: str = name, changes: tuple[tuple[str, str], ...] = changes
        ) -> str:
            for pattern, becomes in changes:
                text = re.sub(pattern, becomes, text)
            field = rf"(    {changes[0][1]}: [^)]*?sa_column_kwargs=\{{)"
            return re.sub(field, rf'\1"info": {{"renamed_from": "{RENAMED_FROM[name]}"}}, ', text)

        model(copy, rename, name)
    done = schema("revision", "-m", "Rename three columns")
    assert done.code == 0, done.everything
    checked = schema("check")
    assert checked.code == 0, checked.everything
    snapshot = copy.snapshot.read_text(encoding="utf-8")
    kept = ("constraint user_email_key ", "index todo_due_idx_retiring ", "column todo_id ")
    assert [one in snapshot for one in kept] == [True] * 3
    for _ in range(int(done.out.split(" ")[0])):
        assert deploy(run, copy.root, head, "upgrade", "+1").code == 0
        use(head, *RENAMED_FROM.values())
    use(head, *RENAMED_TO)
    for name in RENAMES:
        model(copy, lambda text: re.sub(r'"info": \{"renamed_from": "\w+"\}, ', "", text), name)
    drops = [f"--drop={name}.{column}=it has a new name" for name, column in RENAMED_FROM.items()]
    done = schema("revision", "-m", "Drop the old columns", *drops)
    assert done.code == 0, done.everything
    checked = schema("check")
    assert checked.code == 0, checked.everything
    snapshot = copy.snapshot.read_text(encoding="utf-8")
    assert not any(one in snapshot for one in (*kept, "_retiring", "_renamed"))
    for _ in range(int(done.out.split(" ")[0])):
        assert deploy(run, copy.root, head, "upgrade", "+1").code == 0
        use(head, *RENAMED_TO)


def test_a_column_is_one_command(copy: Checkout, schema: Callable[..., Result]) -> None:
    """The revision, and every generated file, are written; the report names them."""
    model(copy, lambda text: text.replace('    user: "User"', f'{COLUMN}    user: "User"', 1))
    done = schema("revision", "-m", "Add todo.priority", "--why", "users ask for it.")
    assert done.code == 0, done.everything
    path = copy.revision("add_todo_priority")
    assert path.name in done.out
    assert "WHY: users ask for it." in path.read_text(encoding="utf-8")
    assert "priority" in copy.snapshot.read_text(encoding="utf-8")
    checked = schema("check", "--no-lint")
    assert checked.code == 0, checked.everything


@pytest.mark.slow
def test_alembics_own_command_writes_the_same(run: Launcher, copy: Checkout, head: URL) -> None:
    """`alembic check` fails first and passes last; an option that could not be met is refused."""
    model(copy, lambda text: text.replace('    user: "User"', f'{COLUMN}    user: "User"', 1))
    checked = deploy(run, copy.root, head, "check")
    assert "priority" in checked.everything
    assert checked.code != 0
    before = files(copy)
    write = ("revision", "--autogenerate", "-m", "Add todo.priority")
    refused = deploy(run, copy.root, head, *write, "--rev-id", "a0b1c2d3e4f5")
    assert "--rev-id: what is written has ids" in refused.err, refused.everything
    assert files(copy) == before
    written = deploy(run, copy.root, head, *write)
    assert written.code == 0, written.everything
    assert copy.revision("add_todo_priority").name in written.out
    assert deploy(run, copy.root, head).code == 0
    checked = deploy(run, copy.root, head, "check")
    assert checked.code == 0, checked.everything


REFUSALS: dict[str, tuple[Callable[[str], str], tuple[str, ...], str]] = {
    "dropped column": (
        drop_description,
        (),
        "todo.description is in the schema and not in the models",
    ),
    "required column": (
        lambda text: text.replace(
            '    user: "User"',
            '    size: str = Field(sa_type=Text, sa_column_kwargs={"comment": "How big"})\n'
            '    user: "User"',
            1,
        ),
        (),
        "--fill todo.size=",
    ),
    "another type": (
        lambda text: text.replace("sa_type=TIMESTAMPTZ", "sa_type=Text", 1),
        (),
        "--using todo.due_at=",
    ),
    "an answer without a question": (
        lambda text: text.replace('    user: "User"', f'{COLUMN}    user: "User"', 1),
        ("--drop", "todo.title=nobody needs it"),
        "todo.title is no table or column that this change",
    ),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", REFUSALS)
def test_a_decision_is_asked_for(copy: Checkout, schema: Callable[..., Result], name: str) -> None:
    """The message says what differs and what can be done; no file changes."""
    edit, options, message = REFUSALS[name]
    model(copy, edit)
    before = files(copy)
    done = schema("revision", "-m", "Change it", *options)
    assert done.code == 2, done.everything
    assert message in done.err
    assert files(copy) == before


@pytest.mark.slow
@pytest.mark.parametrize(("reply", "code"), [("nobody reads it", 0), ("", 2)], ids=["yes", "no"])
def test_a_terminal_asks(copy: Checkout, reply: str, code: int) -> None:
    """The answer is written into the file; without one nothing is."""
    model(copy, drop_description)
    before = files(copy)
    terminal, end = pty.openpty()
    paths = [str(copy.root), str(copy.root / "scripts")]
    program = f"import sys; sys.path[:0] = {paths}; {COMMAND}"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program, "revision", "-m", "Drop todo.description"],
        cwd=copy.root,
        stdin=end,
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
    ) as process:
        os.close(end)
        said = ""
        while "Drop todo.description, because:" not in said:
            said += os.read(terminal, 1000).decode(errors="replace")
        os.write(terminal, f"{reply}\n".encode())
        out, _ = process.communicate()
    os.close(terminal)
    assert process.returncode == code, said + out
    if code:
        assert files(copy) == before
    else:
        written = [path.read_text(encoding="utf-8") for path in copy.versions.glob("*.py")]
        assert any(reply in one for one in written)
