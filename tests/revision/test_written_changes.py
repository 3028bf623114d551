"""Every change that a database's owner can make is written as revisions, or refused by name.

The theory: for each change of tests/snapshot/changes.sql, `schema revision` writes files that lead
to the models' schema and back, which it tries itself before it keeps them; and the rows that were
there are there after the way up and down, unless a person decided otherwise. REFUSED says which
changes it does not write, and why: then nothing is left behind.
"""

import re

import pytest
from sqlalchemy.exc import IntegrityError

from schema.errors import CannotRunError
from schema.postgres.installation import VERSIONS
from schema.revision.decisions import UndecidedError
from tests.revision.answers import answers_to
from tests.revision.refused import reason
from tests.revision.workshop import SCHEMA, Workshop
from tests.snapshot.test_snapshot import CHANGES, UNCHANGED, Change

NO_CHANGE_HERE = ("database: comment", "database: setting removed")
"""The database of these tests has neither."""
OWNERS = [
    one for one in CHANGES if "superuser" not in one.remarks and one.name not in NO_CHANGE_HERE
]
OLDER_SAMPLE = 10
"""On the oldest version, one of so many changes is written."""
DECIDED = r"column: (dropped|renamed|type|array)"
"""Changes by which values are lost, as a person decided."""
MADE_ANEW = r"table: (renamed|moved to another schema)"
"""Changes that a person took for a drop and a new table: rows that reference it stop them."""


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("workshop", "change"),
    [
        pytest.param(version, change, id=f"pg{version} {change.name}")
        for version in VERSIONS
        for number, change in enumerate(OWNERS)
        if version == VERSIONS[0]
        or (number % OLDER_SAMPLE == 0 and "since 18" not in change.remarks)
    ],
    indirect=["workshop"],
)
def test_a_change_is_written_or_refused(workshop: Workshop, change: Change) -> None:
    """The files lead there and back with all rows, or nothing is written."""
    models = f"{SCHEMA}\n{change.sql}"
    files = set(workshop.files())
    if reason(change.name) is not None:
        with pytest.raises(CannotRunError, match="Nothing is written"):
            write(workshop, models)
        assert set(workshop.files()) == files
        return
    write(workshop, models)
    assert workshop.written
    with workshop.at_head() as url:
        if re.fullmatch(MADE_ANEW, change.name):
            with pytest.raises(IntegrityError):
                workshop.walk(url)
            return
        walk = workshop.walk(url)
    if walk.irreversible is not None:
        assert "raise NotImplementedError" in walk.irreversible
        assert re.match("type: enum value", change.name)
    elif not re.fullmatch(DECIDED, change.name):
        assert walk.downgraded == walk.before


def write(workshop: Workshop, models: str) -> None:
    """Write the revisions, and decide what is asked."""
    try:
        workshop.write(models)
    except UndecidedError as question:
        workshop.write(models, answers_to(question))


@pytest.mark.sample(1)
@pytest.mark.parametrize("spelling", [pytest.param(one, id=one.name) for one in UNCHANGED])
def test_another_spelling_is_no_change(workshop: Workshop, spelling: Change) -> None:
    """What changes no schema writes nothing."""
    if "superuser" in spelling.remarks:
        pytest.skip("the owner cannot make it")
    assert workshop.write(f"{SCHEMA}\n{spelling.sql}").paths == ()
