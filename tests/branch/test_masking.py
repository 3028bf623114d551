"""Secrets and personal data are declared on the models, and masked on an anonymised branch.

The theory: the rules that follow from the declarations leave no declared value, break no
constraint, and suit columns that nobody has written yet. That each secret of Better Auth's is
declared is tested in tests/application/test_better_auth.py.
"""

from collections.abc import Callable

import pytest
from sqlalchemy import URL, Column, ForeignKey, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from schema.branch import masking
from schema.errors import CannotRunError
from schema.postgres.connection import connect
from tests.branch.conftest import Schema, scalar, url_of
from tests.branch.stand_in.server import StandIn
from tests.branch.stand_in.state import DATABASE
from tests.branch.test_branches import done


@pytest.mark.slow
def test_an_anonymised_branch(neon: StandIn, schema: Schema) -> None:
    """No declared value of the parent is left, every constraint is kept, a reset masks again."""
    source = url_of(neon.state.main)
    for _ in range(2):
        done(schema("create", "mine", "--parent", "main", "--anonymised"))
        made = neon.state.named("schema-mine")
        assert made is not None
        assert made.anonymised == "anonymized"
        for column in masking.declared_columns():
            before, after = (_values(url, column) for url in (source, url_of(made)))
            assert not before & after, column
        assert scalar(url_of(made), 'SELECT count(*) FROM "user"') == scalar(
            source, 'SELECT count(*) FROM "user"'
        )


@pytest.mark.slow
def test_a_mask_that_fails(neon: StandIn, schema: Schema) -> None:
    """A branch whose masking failed holds real rows: it is deleted, and the message says so."""
    main = neon.state.main.compute
    main.execute(DATABASE, "ALTER TABLE todo ADD CONSTRAINT c CHECK (title !~ '-') NOT VALID")
    try:
        result = schema("create", "mine", "--parent", "main", "--anonymised")
    finally:
        main.execute(DATABASE, "ALTER TABLE todo DROP CONSTRAINT c")
    assert result.code == 2
    assert "could not mask" in result.err
    assert "It was deleted." in result.err, result.everything
    assert neon.state.named("schema-mine") is None


@pytest.mark.slow
def test_the_url_of_rows_that_are_not_masked_is_not_given(neon: StandIn, schema: Schema) -> None:
    """While it is being masked, and when that has failed."""
    done(schema("create", "mine", "--parent", "main", "--anonymised"))
    made = neon.state.named("schema-mine")
    assert made is not None
    done(schema("url", "mine"))
    for state in ("anonymizing", "error"):
        made.anonymised = state
        refused = schema("url", "mine")
        assert (refused.code, refused.out) == (2, ""), refused.everything
        assert "are not masked" in refused.err


@pytest.mark.slow
def test_a_mark_that_the_models_do_not_know(neon: StandIn, schema: Schema) -> None:
    """The parent is ahead of the checkout: its new column would be copied as it is."""
    main = neon.state.main.compute
    main.execute(
        DATABASE,
        'ALTER TABLE "user" ADD COLUMN phone text',
        "COMMENT ON COLUMN \"user\".phone IS 'PERSONAL: where to call'",
    )
    try:
        result = schema("create", "mine", "--parent", "main", "--anonymised")
    finally:
        main.execute(DATABASE, 'ALTER TABLE "user" DROP COLUMN phone')
    assert result.code == 2, result.everything
    assert "user.phone" in result.err
    assert list(neon.state.branches.values()) == [neon.state.main]


def _values(url: URL, column: Column[object]) -> set[str]:
    query = f'SELECT DISTINCT "{column.name}"::text FROM "{column.table.name}"'
    with connect(url) as connection:
        return {value for value in connection.exec_driver_sql(query).scalars() if value is not None}


CASES: dict[str, tuple[Callable[[], Column[object]], object]] = {
    "nullable": (lambda: Column("a", JSONB, nullable=True), {"masking_value": "NULL"}),
    "short": (
        lambda: Column("a", String(8), nullable=False),
        {"masking_function": "pg_catalog.substr(pg_catalog.concat(anon.dummy_uuidv4(), ''), 1, 8)"},
    ),
    "named": (
        lambda: Column("a", JSONB, nullable=False, info={"mask": "'{}'::jsonb"}),
        {"masking_function": "'{}'::jsonb"},
    ),
    "unknown": (lambda: Column("a", JSONB, nullable=False), "name an expression"),
    "key": (lambda: Column("a", Text, primary_key=True), "part of a key"),
    "reference": (
        lambda: Column("a", Integer, ForeignKey("other.id"), nullable=False),
        "part of a key",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_for_any_column(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that nobody has written yet has a rule, or a message that says what to do."""
    make, expected = CASES[name]
    column = make()
    column.comment = "SECRET: a test's"
    Table("later", MetaData(), column)
    monkeypatch.setattr(masking, "declared_columns", lambda: [column])
    if isinstance(expected, str):
        with pytest.raises(CannotRunError, match=expected):
            masking.rules("db")
        return
    (rule,) = masking.rules("db")
    assert {name: rule[name] for name in rule if name.startswith("masking")} == expected
