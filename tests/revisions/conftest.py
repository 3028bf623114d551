"""Data tests: a file `test_<revision>.py` gets that revision, on a database at the one before."""

from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.support.revision import Revision, at_parent_of


@pytest.fixture
def revision(request: pytest.FixtureRequest, empty: URL) -> Revision:
    """Return the revision that the test's file is named after."""
    return at_parent_of(Path(request.path).stem.removeprefix("test_"), empty)
