"""What a revision must get right beyond single changes: order, dependents, and tables in use.

The theory: the files lead to the models' schema and back (`schema revision` tries it); the tests
here say how. The history has rows; each file runs while other sessions use the tables.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from schema.errors import CannotRunError
from schema.generate import files as generate
from schema.revision import author
from schema.revision.decisions import Answers, UndecidedError
from tests.revision.workshop import SCHEMA, Workshop

REFRESH = author._refresh  # noqa: SLF001  # the workshop replaces it


@dataclass(frozen=True)
class Case:
    """A change of the models, and what the files say."""

    sql: str
    files: tuple[tuple[str, ...], ...]
    """For each file, texts that its upgrade has, in their order."""
    answers: Answers | None = None
    irreversible: bool = False


CASES = {
    "view of a new table": Case(
        "CREATE TABLE shop (id integer PRIMARY KEY);"
        " CREATE VIEW shops WITH (security_invoker = true) AS SELECT id FROM shop;",
        (("op.create_table(", "CREATE VIEW shops"),),
    ),
    "column below a chain of views": Case(
        "CREATE VIEW first AS SELECT email FROM reader;"
        " CREATE VIEW second AS SELECT email FROM first;",
        (("CREATE VIEW first", "CREATE VIEW second"),),
    ),
    "index": Case(
        "CREATE INDEX reader_born_idx ON reader (born);",
        (("autocommit_block", "if_exists=True", "postgresql_concurrently=True"),),
    ),
    "two indexes": Case(
        "CREATE INDEX reader_born_idx ON reader (born);"
        " CREATE INDEX reader_fee_idx ON reader (fee);",
        (("reader_born_idx",), ("reader_fee_idx",)),
    ),
    "foreign key": Case(
        "ALTER TABLE visit_2023 ADD FOREIGN KEY (reader_id) REFERENCES reader;",
        (("postgresql_not_valid=True",), ("VALIDATE CONSTRAINT",)),
    ),
    "not null": Case(
        "ALTER TABLE reader ALTER COLUMN name SET NOT NULL;",
        (
            ("reader_name_required", "postgresql_not_valid=True"),
            ("VALIDATE CONSTRAINT reader_name_required",),
            ("nullable=False", "op.drop_constraint("),
        ),
    ),
    "unique": Case(
        "ALTER TABLE reader ADD UNIQUE (name);",
        (
            ("if_exists=True", "unique=True"),
            ("UNIQUE USING INDEX",),
        ),
    ),
    "unique, partial and on an expression": Case(
        "CREATE UNIQUE INDEX reader_path_idx ON reader (lower(path), born DESC)"
        " WHERE name IS NOT NULL;",
        (("assumes = ", "unique=True", "postgresql_where="),),
    ),
    "key and not null at once": Case(
        "ALTER TABLE reader ADD UNIQUE (name), ALTER COLUMN name SET NOT NULL;",
        (
            ("reader_name_required",),
            ("unique=True",),
            ("UNIQUE USING INDEX",),
            ("VALIDATE CONSTRAINT",),
            ("nullable=False",),
        ),
    ),
    "volatile default": Case(
        "ALTER TABLE reader ADD COLUMN share_key uuid DEFAULT gen_random_uuid() NOT NULL;",
        (
            ("op.add_column(", "op.alter_column(", "server_default="),
            ("autocommit_block", "connection.execute(FILL"),
            ("reader_share_key_required", "postgresql_not_valid=True"),
            ("VALIDATE CONSTRAINT reader_share_key_required",),
            ("nullable=False",),
        ),
        irreversible=True,
    ),
    "constant default": Case(
        "ALTER TABLE reader ADD COLUMN kind text DEFAULT 'new' NOT NULL;",
        (("op.add_column(", "nullable=False"),),
    ),
    "value of an enum and a default that uses it": Case(
        "ALTER TYPE library.state ADD VALUE 'sold';"
        " COMMIT; ALTER TABLE book ALTER COLUMN state SET DEFAULT 'sold';",
        (("ADD VALUE 'sold'",), ("server_default=",)),
        irreversible=True,
    ),
    "function below a policy": Case(
        "DROP POLICY book_own ON book; DROP FUNCTION app_user_id();"
        " CREATE FUNCTION app_user_id() RETURNS text LANGUAGE sql STABLE"
        " RETURN current_setting('app.user_id', true);"
        " CREATE POLICY book_own ON book TO rich_app USING (reader_id::text = app_user_id());",
        (("DROP POLICY", "DROP FUNCTION", "CREATE POLICY"),),
    ),
    "required column with a value for old rows": Case(
        "ALTER TABLE reader ADD COLUMN kind text NOT NULL;",
        (
            ("op.add_column(",),
            ("connection.execute(FILL",),
            ("reader_kind_required", "postgresql_not_valid=True"),
            ("Fill reader.kind again", "connection.execute(FILL"),
            ("VALIDATE CONSTRAINT reader_kind_required",),
            ("nullable=False",),
        ),
        Answers(fills={"reader.kind": "lower(email)"}),
        irreversible=True,
    ),
    "two columns to fill": Case(
        "ALTER TABLE reader ADD COLUMN kind text NOT NULL;"
        " ALTER TABLE reader ADD COLUMN share_key uuid DEFAULT gen_random_uuid() NOT NULL;",
        (
            ("op.add_column(",),
            ("SET kind = lower(email)",),
            ("SET share_key = gen_random_uuid()",),
            ("reader_kind_required", "reader_share_key_required"),
            ("Fill reader.kind again", "connection.execute(FILL"),
            ("VALIDATE CONSTRAINT reader_kind_required",),
            ("nullable=False",),
        ),
        Answers(fills={"reader.kind": "lower(email)"}),
        irreversible=True,
    ),
    "two values for old rows": Case(
        "ALTER TABLE reader ADD COLUMN kind text NOT NULL, ADD COLUMN size text NOT NULL;",
        (
            ("op.add_column(",),
            ("SET kind = lower(email)",),
            ("SET size = email",),
            ("reader_kind_required", "reader_size_required"),
            ("Fill reader.kind, reader.size again", "coalesce(reader.kind, lower(email))"),
            ("VALIDATE CONSTRAINT",),
            ("nullable=False",),
        ),
        Answers(fills={"reader.kind": "lower(email)", "reader.size": "email"}),
        irreversible=True,
    ),
    "identity": Case(
        "ALTER TABLE reader ADD COLUMN num integer GENERATED ALWAYS AS IDENTITY;",
        (("REWRITES reader.num: it is small.", "sa.Identity(always=True)"),),
        Answers(rewrites={"reader.num": "it is small"}),
    ),
    "a column that is computed from now on": Case(
        "ALTER TABLE reader DROP COLUMN path;"
        " ALTER TABLE reader ADD COLUMN path text GENERATED ALWAYS AS (lower(email)) STORED;",
        (("loses = ", "op.drop_column(", "sa.Computed("),),
        Answers(losses={"reader.path": "it can be computed"}),
    ),
    "a conversion that no downgrade undoes": Case(
        "ALTER TABLE reader ALTER COLUMN path DROP DEFAULT,"
        " ALTER COLUMN path TYPE integer USING length(path);",
        (("loses = ", "postgresql_using="),),
        Answers({"reader.path": "only its length counts"}, {"reader.path": "length(path)"}),
    ),
    "view with one more column": Case(
        "CREATE OR REPLACE VIEW open_book WITH (security_invoker = true, security_barrier = true)"
        " AS SELECT number, title, state, isbn FROM book WHERE state = 'open'"
        " WITH LOCAL CHECK OPTION;",
        (("CREATE OR REPLACE VIEW open_book",),),
    ),
    "index of a table in another schema": Case(
        "CREATE TABLE library.box (id integer PRIMARY KEY, size integer);",
        (("op.create_table(", 'schema="library"'),),
    ),
    "two tables in use": Case(
        "ALTER TABLE reader ADD COLUMN a text; ALTER TABLE thing ADD COLUMN b text;",
        (("reader",), ("thing",)),
    ),
    "changed index": Case(
        "DROP INDEX book_title_idx; CREATE INDEX book_title_idx ON book (title);",
        (
            ("book_title_new_idx", "postgresql_concurrently=True"),
            ("RENAME TO book_title_old_idx", "book_title_new_idx RENAME TO book_title_idx"),
            ("op.drop_index(", "postgresql_concurrently=True"),
        ),
    ),
    "foreign keys to a new key": Case(
        "ALTER TABLE reader ADD UNIQUE (id, email);"
        " CREATE TABLE card (reader_id uuid, email text,"
        " FOREIGN KEY (reader_id, email) REFERENCES reader (id, email));"
        " ALTER TABLE thing ADD COLUMN reader_id uuid, ADD COLUMN email text,"
        " ADD FOREIGN KEY (reader_id, email) REFERENCES reader (id, email);",
        (
            ("op.create_table(",),
            ("unique=True",),
            ("UNIQUE USING INDEX",),
            ("op.create_foreign_key(", '"card",'),
            ("op.create_foreign_key(", "postgresql_not_valid=True"),
            ("VALIDATE CONSTRAINT",),
        ),
    ),
    "two tables in use that need each other": Case(
        "ALTER TABLE thing ADD COLUMN size integer;"
        " ALTER TABLE reader ADD COLUMN size integer; CREATE POLICY reader_size ON reader"
        " USING (size > (SELECT max(thing.size) FROM thing));",
        (("thing",), ("reader",)),
    ),
    "a view that is gone": Case(
        "DROP VIEW open_book; ALTER TABLE book ADD COLUMN pages integer;",
        (("op.add_column(",), ("DROP VIEW open_book",)),
    ),
    "colons, percent signs and quotes": Case(
        "CREATE FUNCTION odd() RETURNS text LANGUAGE sql RETURN E'a:b %s \\\\:c \"\"\" ''';"
        " ALTER TABLE reader ADD CHECK (path <> ':x %(y)s');",
        (("CREATE OR REPLACE FUNCTION",), ("VALIDATE",)),
    ),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", CASES)
def test_the_files(workshop: Workshop, name: str) -> None:
    """Each file has the statements that it should, in their order, and its rows survive."""
    case = CASES[name]
    workshop.write(f"{SCHEMA}\n{case.sql}", case.answers)
    texts = [path.read_text(encoding="utf-8") for path in workshop.written]
    for text, parts in zip(texts, case.files, strict=True):
        places = [text.partition("def downgrade")[0].find(one) for one in parts]
        assert -1 not in places, (parts, text)
        assert places == sorted(places), (parts, text)
    with workshop.at_head() as url:
        walk = workshop.walk(url)
    assert bool(walk.irreversible) == case.irreversible
    if not case.irreversible and not (case.answers and case.answers.losses):
        assert walk.downgraded == walk.before


@pytest.mark.slow
def test_a_column_changes_under_a_chain_of_views(workshop: Workshop) -> None:
    """The views are dropped first and made again, with their grants and comments."""
    views = (
        "CREATE VIEW first AS SELECT id, weight FROM reader; GRANT SELECT ON first TO rich_app;"
        " CREATE VIEW second AS SELECT weight FROM first; COMMENT ON VIEW second IS 'Of the first';"
    )
    workshop.begin_with(f"{SCHEMA}\n{views}")
    answers = Answers(
        {"reader.weight": "it is known to the gram"}, {"reader.weight": "weight::numeric(9,3)"}
    )
    changed = f"{SCHEMA} ALTER TABLE reader ALTER COLUMN weight TYPE numeric(9,3); {views}"
    workshop.write(changed, answers)
    (path,) = workshop.written
    text = path.read_text(encoding="utf-8")
    order = (
        "DROP VIEW second",
        "DROP VIEW first",
        "type_=",
        "CREATE VIEW first",
        "CREATE VIEW sec",
    )
    places = [text.find(one) for one in order]
    assert -1 not in places
    assert places == sorted(places)


LOSSES = {
    "identity": (
        "reader ADD COLUMN num integer GENERATED ALWAYS AS IDENTITY",
        "--rewrite reader.num",
    ),
    "computed": (
        "reader DROP COLUMN path, ADD COLUMN path text GENERATED ALWAYS AS (email) STORED",
        "--drop reader.path",
    ),
    "computed otherwise": (
        "book DROP COLUMN title_length,"
        " ADD COLUMN title_length integer GENERATED ALWAYS AS (length(title) + 1) STORED",
        "--rewrite book.title_length",
    ),
    "unlogged": ("chair SET UNLOGGED", "--rewrite chair"),
    "exclusion": ("thing ADD EXCLUDE (id WITH =)", "--rewrite thing"),
    "collation": ('reader ALTER COLUMN path TYPE text COLLATE "C"', "--rewrite reader.path"),
    "enum value removed": (
        "reader ADD COLUMN x int; ALTER TYPE library.state RENAME VALUE 'lost' TO 'gone'",
        "can only add values",
    ),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", LOSSES)
def test_what_only_a_person_knows_is_asked(workshop: Workshop, name: str) -> None:
    """Nothing is written, and the message has the way."""
    change, way = LOSSES[name]
    files = workshop.files()
    with pytest.raises(UndecidedError, match=way):
        workshop.write(f"{SCHEMA} ALTER TABLE {change};")
    assert workshop.files() == files


@pytest.mark.slow
@pytest.mark.parametrize(
    "expression",
    ["no_such_column", "'unclosed", "'x'); DROP TABLE reader; --", "1, 2", "SELECT 1", ""],
)
def test_a_value_is_one_expression(workshop: Workshop, expression: str) -> None:
    """What is no expression of a row writes nothing."""
    files = workshop.files()
    with pytest.raises(CannotRunError, match="Nothing is written"):
        workshop.write(
            f"{SCHEMA} ALTER TABLE reader ADD COLUMN kind text NOT NULL;",
            Answers(fills={"reader.kind": expression}),
        )
    assert workshop.files() == files


@pytest.mark.slow
@pytest.mark.parametrize("default", ["", "DEFAULT 'new'", "DEFAULT gen_random_uuid()::text"])
def test_old_rows_get_the_given_value(workshop: Workshop, default: str) -> None:
    """Not the default, and letter by letter."""
    value = 'two  blanks,\n    a line: %s :x {"a":1} """ \\'
    literal = value.replace("'", "''")
    workshop.write(
        f"{SCHEMA} ALTER TABLE reader ADD COLUMN kind text {default} NOT NULL;",
        Answers(fills={"reader.kind": f"'{literal}' || email"}),
    )
    with workshop.at_head() as url:
        walk = workshop.walk(url)
    rows = [json.loads(one) for one in walk.upgraded["reader"]]
    assert rows
    assert {one["kind"] for one in rows} == {value + one["email"] for one in rows}


@pytest.mark.slow
def test_a_name_that_is_taken_is_left_alone(workshop: Workshop) -> None:
    """The CHECK of a constraint that exists stays; the helper has another name."""
    base = f"{SCHEMA} ALTER TABLE reader ADD CONSTRAINT reader_name_required CHECK (name <> 'x');"
    workshop.begin_with(base)
    workshop.write(f"{base} ALTER TABLE reader ALTER COLUMN name SET NOT NULL;")
    texts = "".join(path.read_text(encoding="utf-8") for path in workshop.written)
    assert "reader_name2_required" in texts
    assert "reader_name_required" not in texts.replace("reader_name2_required", "")


@pytest.mark.slow
def test_a_function_changes_below_defaults(workshop: Workshop) -> None:
    """A default that calls it is dropped first, and set again."""
    old = "CREATE FUNCTION word() RETURNS text LANGUAGE sql RETURN 'a';"
    new = "CREATE FUNCTION word() RETURNS varchar LANGUAGE sql RETURN 'b'::varchar;"
    default = "ALTER TABLE reader ALTER COLUMN name SET DEFAULT word();"
    workshop.begin_with(f"{SCHEMA} {old} {default}")
    workshop.write(f"{SCHEMA} {new} {default}")
    (path,) = workshop.written
    text = path.read_text(encoding="utf-8").partition("def upgrade")[2]
    places = [text.find(one) for one in ("server_default=None", "DROP FUNCTION", "sa.text(")]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.slow
def test_an_index_in_another_schema_is_built_there(workshop: Workshop) -> None:
    """An index of the same name in public is none of it."""
    box = "CREATE TABLE library.box (id integer PRIMARY KEY, size integer);"
    workshop.begin_with(f"{SCHEMA} {box} CREATE INDEX box_size_idx ON reader (fee);")
    workshop.write(
        f"{SCHEMA} {box} CREATE INDEX box_size_idx ON reader (fee);"
        " CREATE INDEX box_size_idx ON library.box (size);"
    )
    (path,) = workshop.written
    text = path.read_text(encoding="utf-8")
    assert text.count('schema="library"') == text.count("op.f(") == 3


@pytest.mark.slow
def test_a_dropped_table_comes_back_as_it_was(workshop: Workshop) -> None:
    """The order of its columns is what `SELECT *` and an INSERT without names rely on."""
    workshop.begin_with(f"{SCHEMA} CREATE TABLE shop (zip text, name text, id uuid, area text);")
    workshop.write(SCHEMA, Answers(losses={"shop": "it is closed"}))
    (path,) = workshop.written
    text = path.read_text(encoding="utf-8").partition("def downgrade")[2]
    assert re.findall(r'sa.Column\("(\w+)"', text) == ["zip", "name", "id", "area"]


USES = """
    ALTER TABLE reader ADD CONSTRAINT reader_known CHECK (born IS NULL OR {0} IS NOT NULL);
    ALTER TABLE reader ADD CONSTRAINT reader_{0}_key UNIQUE ({0});
    CREATE POLICY reader_own ON reader TO rich_app USING ({0} = current_user);
    CREATE VIEW reader_place AS SELECT id, {0}::text AS place FROM reader;
    CREATE FUNCTION place_of(wanted uuid) RETURNS text LANGUAGE sql
    RETURN (SELECT {0}::text FROM reader WHERE id = wanted);
"""


@pytest.mark.slow
def test_what_uses_a_new_column_waits_for_its_values(workshop: Workshop) -> None:
    """Until its rows are filled the old CHECK, key, policy, view and function stay as they were."""
    column = "ALTER TABLE reader ADD COLUMN {} text;"
    base = f"{SCHEMA} {column.format('nook')}"
    workshop.begin_with(base + USES.format("nook"))
    fills = {"reader.place_now": "nook"}
    workshop.write(
        base + column.format("place_now") + USES.format("place_now"),
        Answers(fills=fills, renames=frozenset(fills)),
    )
    upgrades = [
        path.read_text(encoding="utf-8").partition("def upgrade")[2].partition("def downgrade")[0]
        for path in workshop.written
    ]
    (fill,) = (number for number, text in enumerate(upgrades) if "connection.execute(FILL" in text)
    for text in ("reader_known", "DROP POLICY", "VIEW reader_place", "FUNCTION public.place_of"):
        assert [number > fill for number, one in enumerate(upgrades) if text in one], text
        assert not any(text in one for one in upgrades[:fill]), text
    keys = [
        next(number for number, one in enumerate(upgrades) if text in one)
        for text in ("UNIQUE USING INDEX", 'op.drop_constraint(op.f("reader_nook_key")')
    ]
    assert keys == sorted(keys)


def test_generated_files_are_written_all_or_none(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption between two of them brings the first one back, and removes the revisions."""
    generated = [tmp_path / "first", tmp_path / "second"]
    for path in generated:
        path.write_text("before")

    def interrupted(_server: object) -> None:
        generated[0].write_text("after")
        raise KeyboardInterrupt

    monkeypatch.setattr(author, "GENERATED", generated)
    monkeypatch.setattr(generate, "rewrite", interrupted)
    monkeypatch.setattr(author, "_refresh", REFRESH)
    files = workshop.files()
    with pytest.raises(KeyboardInterrupt):
        workshop.write(f"{SCHEMA} ALTER TABLE reader ADD COLUMN nick text;")
    assert [path.read_text() for path in generated] == ["before", "before"]
    assert workshop.files() == files


@pytest.mark.slow
def test_what_is_computed_waits_for_what_is_filled(workshop: Workshop) -> None:
    """A column that is computed from another one has its old values until that one has its own."""
    size = "ALTER TABLE reader ADD COLUMN size int GENERATED ALWAYS AS (length({})) STORED;"
    workshop.begin_with(f"{SCHEMA} {size.format('email')}")
    workshop.write(
        f"{SCHEMA} ALTER TABLE reader ADD COLUMN nick text; {size.format('nick')}",
        Answers(fills={"reader.nick": "email"}, rewrites={"reader.size": "it is small"}),
    )
    texts = [path.read_text(encoding="utf-8") for path in workshop.written]
    assert ['"nick"' in texts[0], "SET nick" in texts[1], '"size"' in texts[2]] == [True] * 3
    assert '"size"' not in texts[0]


@pytest.mark.slow
def test_a_narrower_text_is_not_cut(workshop: Workshop) -> None:
    """A downgrade that would cut values fails on them, and says so."""
    workshop.write(f"{SCHEMA} ALTER TABLE reader ADD COLUMN nick varchar(3);")
    workshop.clear()
    base = f"{SCHEMA} ALTER TABLE reader ADD COLUMN nick varchar(3);"
    workshop.begin_with(base)
    workshop.write(f"{base} ALTER TABLE reader ALTER COLUMN nick TYPE varchar(9);")
    (path,) = workshop.written
    assert "::" not in path.read_text(encoding="utf-8").partition("def downgrade")[2]
