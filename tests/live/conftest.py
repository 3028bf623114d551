"""Fixtures for the commands that read an existing database."""

from contextlib import nullcontext

import pytest

from schema.live import history_schemas
from schema.postgres.scratch import Server


@pytest.fixture(autouse=True)
def _use_running_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the history on the tests' server: starting another takes longer than the rest."""
    monkeypatch.setattr(
        history_schemas, "open_closest_server", lambda _live, _progress: nullcontext(server)
    )
