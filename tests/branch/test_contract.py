"""The stand-in and our requests keep to Neon's own API document.

The theory: prism, between the command and the stand-in, validates every request and answer against
the document that Neon publishes. npm fetches it; none of it is committed. An answer and a request
that do not keep to it show that the proxy would notice.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from schema.postgres.dev_server import free_port
from schema.project import ROOT
from tests.branch.conftest import KEY, Schema
from tests.branch.stand_in.server import StandIn
from tests.branch.stand_in.state import PROJECT
from tests.branch.test_branches import done
from tests.support.npm import find_node, install

pytestmark = pytest.mark.slow

SOURCE = ROOT / "tests" / "branch" / "prism"
INSTALLED = ROOT / ".venv" / "prism"
DOCUMENT = "node_modules/@neondatabase/api-client/public-v2-for-users.gen.yaml"


class Proxy:
    """A validating proxy in front of the stand-in."""

    def __init__(self, address: str, log: Path) -> None:
        """Know where it listens and what it writes."""
        self.address = address
        self._log = log

    @property
    def violations(self) -> list[str]:
        """What did not keep to the document."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if "Violation" in line]


@contextmanager
def prism(upstream: str, log: Path) -> Iterator[Proxy]:
    """Run the proxy for the length of a block."""
    node = find_node()
    install(SOURCE, INSTALLED)
    port = free_port(0)
    command: list[str | Path] = [
        node,
        INSTALLED / "node_modules/@stoplight/prism-cli/dist/index.js",
        "proxy",
        INSTALLED / DOCUMENT,
        upstream,
        f"--port={port}",
    ]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            while "listening" not in log.read_text(encoding="utf-8"):
                assert process.poll() is None, log.read_text(encoding="utf-8")
                time.sleep(0.05)
            yield Proxy(f"http://127.0.0.1:{port}", log)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def proxy(neon: StandIn, tmp_path: Path) -> Iterator[Proxy]:
    """The proxy in front of this test's stand-in."""
    with prism(neon.address, tmp_path / "prism.log") as started:
        yield started


def test_every_request_and_answer(neon: StandIn, schema: Schema, proxy: Proxy) -> None:
    """The whole life of branches of every kind, and refusals, through the proxy."""

    def through(*arguments: str) -> str:
        return done(schema(*arguments, NEON_API_URL=proxy.address))

    through("create", "--pr", "1", "--parent", "main", "--copy")
    through("create", "--pr", "1", "--parent", "main", "--copy")
    through("create", "mine", "--parent", "main", "--schema-only")
    through("create", "masked", "--parent", "main", "--anonymised")
    through("create", "--restore-point")
    through("reset", "mine", "--parent", "main")
    through("url", "mine")
    assert len(json.loads(through("list", "--json"))["branches"]) == 4
    made = neon.state.named("schema-pr-1")
    assert made is not None
    made.endpoint = None
    through("create", "--pr", "1", "--parent", "main", "--copy")
    for name in ("pr-1", "mine", "masked"):
        through("delete", name)
    assert schema("try", NEON_API_URL=proxy.address).code == 1  # there is no TLS
    neon.state.limit = 1
    refused = schema("create", "mine", "--parent", "main", "--copy", NEON_API_URL=proxy.address)
    assert "as many branches as its plan allows" in refused.err
    assert proxy.violations == []


def test_the_proxy_would_notice(neon: StandIn, proxy: Proxy) -> None:
    """An answer without a required field, and a request with a wrong value."""
    with httpx.Client(
        base_url=f"{proxy.address}/projects/{PROJECT}", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        assert client.get("branches").status_code == 200
        assert proxy.violations == []
        taken = neon.state.main.api.pop("creation_source")
        try:
            client.get("branches")
        finally:
            neon.state.main.api["creation_source"] = taken
        assert "'creation_source'" in " ".join(proxy.violations)
        before = len(proxy.violations)
        client.post("branches", json={"branch": {"name": ""}})
        assert len(proxy.violations) > before
