"""The stand-in's HTTP server: routes, keys, and the faults that a test orders."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from schema.postgres.embedded import Embedded
from tests.branch.stand_in.state import PROJECT, Object, Refusal, State

REFUSED = ("423", "429", "503", "dropped")
"""Faults before anything is done: a status, or a connection that breaks."""
UNCLEAR = ("500", "504", "lost")
"""Faults after it was done: a status instead of the answer, or a connection that breaks; `late`
breaks it after more than a second."""

_BRANCH = r"/branches/(?P<branch>[a-z0-9-]+)"
_ROUTES = (
    ("GET", r"/branches", "list_branches"),
    ("POST", r"/branches", "create"),
    ("POST", r"/branch_anonymized", "create_anonymised"),
    ("GET", _BRANCH, "show"),
    ("DELETE", _BRANCH, "delete"),
    ("PATCH", _BRANCH, "update"),
    ("POST", _BRANCH + r"/restore", "restore"),
    ("GET", _BRANCH + r"/anonymized_status", "status"),
    ("GET", _BRANCH + r"/databases", "databases"),
    ("POST", _BRANCH + r"/roles/(?P<role>[a-z_]+)/reset_password", "reset_password"),
    ("GET", _BRANCH + r"/endpoints", "endpoints"),
    ("POST", r"/endpoints", "add_endpoint"),
    ("GET", r"/connection_uri", "uri"),
    ("GET", r"/operations", "list_operations"),
    ("GET", r"/operations/(?P<operation>[a-z0-9-]+)", "operation"),
)


class StandIn:
    """The state, the address, and what was asked."""

    def __init__(self, state: State) -> None:
        """Listen on a free port of 127.0.0.1."""
        self.state = state
        self.asked: list[tuple[str, str]] = []
        """Every request: method and path."""
        self.faults: dict[int, str] = {}
        """Which request to spoil, counted from 0, and how."""
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def order(self, faults: dict[int, str]) -> None:
        """Count from the next request on, and spoil these."""
        self.asked.clear()
        self.faults = dict(faults)

    # ── the API ───────────────────────────────────────────────────────────────────────────────────

    def answer(
        self, method: str, path: str, query: dict[str, str], body: Object
    ) -> tuple[int, Any]:
        """Return the status and the document that answer a request."""
        prefix = f"/projects/{PROJECT}"
        if not path.startswith(f"{prefix}/"):
            raise Refusal(404, "", "project not found")
        for verb, pattern, name in _ROUTES:
            found = re.fullmatch(pattern, path.removeprefix(prefix))
            if found and verb == method:
                with self.state.lock:
                    status = 201 if name.startswith(("create", "add")) else 200
                    return status, getattr(self, f"_{name}")(query, body, **found.groupdict())
        raise Refusal(404, "", "no such route")

    def _list_branches(self, query: dict[str, str], _body: Object) -> Object:
        found = [
            one.api
            for one in self.state.branches.values()
            if query.get("search", "") in one.api["name"] or query["search"] == one.api["id"]
        ]
        page, pagination = self._page(found, query)
        return {"branches": page, "annotations": {}, "pagination": pagination}

    def _page(self, found: list[Object], query: dict[str, str]) -> tuple[list[Object], Object]:
        start = int(query.get("cursor") or 0)
        end = start + min(int(query.get("limit") or 100), self.state.page_size)
        more = {"next": str(end)} if end < len(found) else {}
        return found[start:end], more | {"sort_by": "updated_at", "sort_order": "DESC"}

    def _create(self, _query: dict[str, str], body: Object) -> Object:
        return self.state.create(body)

    def _create_anonymised(self, _query: dict[str, str], body: Object) -> Object:
        return self.state.create(body.get("branch_create") or {}, body.get("masking_rules") or [])

    def _show(self, _query: dict[str, str], _body: Object, branch: str) -> Object:
        return {"branch": self.state.get(branch).api, "annotation": _annotation(branch)}

    def _delete(self, _query: dict[str, str], _body: Object, branch: str) -> Object | None:
        if branch not in self.state.branches:
            return None
        return self.state.delete(self.state.get(branch))

    def _update(self, _query: dict[str, str], body: Object, branch: str) -> Object:
        return self.state.update(self.state.get(branch), body)

    def _restore(self, _query: dict[str, str], body: Object, branch: str) -> Object:
        return self.state.restore(self.state.get(branch), body)

    def _status(self, _query: dict[str, str], _body: Object, branch: str) -> Object:
        found = self.state.get(branch)
        if not found.anonymised:
            raise Refusal(404, "", "the branch is not anonymized")
        return {
            "project_id": PROJECT,
            "branch_id": branch,
            "state": found.anonymised,
            "created_at": found.api["created_at"],
            "updated_at": found.api["updated_at"],
        }

    def _databases(self, _query: dict[str, str], _body: Object, branch: str) -> Object:
        return {"databases": self.state.databases(self.state.get(branch))}

    def _reset_password(
        self, _query: dict[str, str], _body: Object, branch: str, role: str
    ) -> Object:
        return self.state.reset_password(self.state.get(branch), role)

    def _endpoints(self, _query: dict[str, str], _body: Object, branch: str) -> Object:
        endpoint = self.state.get(branch).endpoint
        return {"endpoints": [endpoint] if endpoint else []}

    def _add_endpoint(self, _query: dict[str, str], body: Object) -> Object:
        return self.state.add_endpoint(body)

    def _uri(self, query: dict[str, str], _body: Object) -> Object:
        branch = self.state.get(query.get("branch_id") or self.state.main.api["id"])
        return {"uri": self.state.uri(branch, query["database_name"], query["role_name"])}

    def _list_operations(self, query: dict[str, str], _body: Object) -> Object:
        newest = [one.shown for one in reversed(self.state.operations)]
        page, pagination = self._page(newest, query)
        cursor = {"cursor": pagination["next"]} if "next" in pagination else {}
        return {"operations": page, "pagination": pagination | cursor}

    def _operation(self, _query: dict[str, str], _body: Object, operation: str) -> Object:
        for one in self.state.operations:
            if one.api["id"] == operation:
                return {"operation": one.shown}
        raise Refusal(404, "", "operation not found")


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    stand_in: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the base class's name
        """Answer a request."""
        self._handle()

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  # the base class's names

    def log_message(self, *_: object) -> None:
        """Write no log."""

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        parts = urlsplit(self.path)
        number = len(self.stand_in.asked)
        self.stand_in.asked.append((self.command, parts.path))
        fault = self.stand_in.faults.get(number)
        if fault == "dropped":
            self._break()
        elif fault in REFUSED:
            self._send(int(fault), _error("ordered by a test"))
        else:
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            status, answer = self._answer(parts.path, query, body)
            if fault == "lost":
                self._break()
            elif fault == "late":
                time.sleep(1.5)
                self._break()
            elif fault is not None:
                self._send(int(fault), _error("ordered by a test"))
            else:
                self._send(status, answer)

    def _answer(self, path: str, query: dict[str, str], body: Object) -> tuple[int, Any]:
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        rights = self.stand_in.state.keys.get(key)
        if rights is None and path.startswith("/projects/"):
            return 401, _error("not authorized")
        if rights == "read" and self.command != "GET":
            return 403, _error("the key may only read")
        try:
            return self.stand_in.answer(self.command, path, query, body)
        except Refusal as error:
            return error.status, _error(str(error), error.code)

    def _send(self, status: int, document: object) -> None:
        status = 204 if document is None else status
        content = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        if status == 429:
            # Both forms are allowed.
            number = len(self.stand_in.asked)
            date = format_datetime(datetime.now(UTC), usegmt=True)
            self.send_header("Retry-After", "1" if number % 2 else date)
        if content:
            self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _break(self) -> None:
        """End the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def _error(message: str, code: str = "") -> Object:
    return {"request_id": "a-request", "code": code, "message": message}


def _annotation(branch: str) -> Object:
    return {"object": {"type": "console/branch", "id": branch}, "value": {}}


@contextmanager
def stand_in(parent: Embedded) -> Iterator[StandIn]:
    """Run a stand-in whose project begins as a copy of that server."""
    state = State(parent)
    found = StandIn(state)
    thread = threading.Thread(target=found.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        found.server.server_close()
        state.close()
