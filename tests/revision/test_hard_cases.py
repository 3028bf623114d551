"""What a revision must get right beyond single changes: order, dependents, and tables in use.

The theory: the files lead to the models' schema and back (`schema revision` proves it); the tests
here say how. The history has rows; each file runs while other sessions use the tables.
"""

from dataclasses import dataclass

import pytest

from schema.revision.decisions import Answers
from tests.revision.workshop import SCHEMA, Workshop


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
            ("VALIDATE CONSTRAINT",),
            ("UNIQUE USING INDEX", "if_exists=True"),
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
            ("VALIDATE CONSTRAINT reader_kind_required",),
            ("nullable=False",),
        ),
        Answers(fills={"reader.kind": "lower(email)"}),
        irreversible=True,
    ),
    "two tables in use": Case(
        "ALTER TABLE reader ADD COLUMN a text; ALTER TABLE thing ADD COLUMN b text;",
        (("reader",), ("thing",)),
    ),
    "colons, percent signs and quotes": Case(
        "CREATE FUNCTION odd() RETURNS text LANGUAGE sql RETURN E'a:b %s \\\\:c \"\"\" ''';"
        " ALTER TABLE reader ADD CHECK (path <> ':x %(y)s');",
        (("CREATE OR REPLACE FUNCTION",), ("VALIDATE",)),
    ),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", CASES)
def test_the_files(workshop: Workshop, name: str) -> None:
    """Each file has the statements that it should, in their order, and its rows survive."""
    case = CASES[name]
    workshop.write(f"{SCHEMA}\n{case.sql}", case.answers)
    texts = [path.read_text(encoding="utf-8") for path in workshop.written]
    upgrades = [text.partition("def upgrade")[2].partition("def downgrade")[0] for text in texts]
    for text, upgrade, parts in zip(texts, upgrades, case.files, strict=True):
        places = [(upgrade if one in upgrade else text).find(one) for one in parts]
        assert -1 not in places, (parts, text)
        assert places == sorted(places), (parts, text)
    with workshop.at_head() as url:
        walk = workshop.walk(url)
    assert bool(walk.irreversible) == case.irreversible
    if not case.irreversible:
        assert walk.downgraded == walk.before


@pytest.mark.slow
def test_a_column_changes_under_a_chain_of_views(workshop: Workshop) -> None:
    """The views are dropped first and made again, with their grants and comments."""
    views = (
        "CREATE VIEW first AS SELECT id, weight FROM reader; GRANT SELECT ON first TO rich_app;"
        " CREATE VIEW second AS SELECT weight FROM first; COMMENT ON VIEW second IS 'Of the first';"
    )
    workshop.begin_with(f"{SCHEMA}\n{views}")
    answers = Answers(conversions={"reader.weight": "weight::numeric(9,3)"})
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
