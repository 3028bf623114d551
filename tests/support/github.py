"""A stand-in for GitHub's API, as far as comments, issues and pull requests go."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

REPOSITORY = "owner/name"

type Object = dict[str, Any]

_ROUTES = (
    (r"pulls/(\d+)", "pull"),
    (r"pulls", "pulls"),
    (r"issues/(\d+)/comments", "comments"),
    (r"issues/comments/(\d+)", "comment"),
    (r"releases", "releases"),
    (r"releases/(\d+)", "release"),
    (r"issues", "issues"),
    (r"issues/(\d+)", "issue"),
)


class GitHub:
    """What a repository holds."""

    def __init__(self) -> None:
        """Listen on a free port."""
        self.pull_requests: dict[int, Object] = {}
        self.comments: dict[int, list[Object]] = {}
        self.issues: list[Object] = []
        self.releases: list[Object] = []
        self.uploads: dict[str, bytes] = {}
        handler = type("Handler", (_Handler,), {"github": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, method: str, path: str, query: dict[str, str], body: Object) -> Any:  # noqa: ANN401  # any JSON
        """Return the document that answers a request; None for what there is not."""
        for pattern, name in _ROUTES:
            if found := re.fullmatch(pattern, path):
                return getattr(self, f"_{name}")(found.groups(), method, query, body)
        return None

    def _pull(self, parts: tuple[str], *_: object) -> Object | None:
        return self.pull_requests.get(int(parts[0]))

    def _pulls(
        self, _parts: tuple[()], _method: str, query: dict[str, str], _body: Object
    ) -> list[Object]:
        return [
            one
            for one in self.pull_requests.values()
            if one["state"] == query["state"] and one["head"]["label"] == query["head"]
        ]

    def _comments(
        self, parts: tuple[str], method: str, query: dict[str, str], body: Object
    ) -> list[Object] | Object:
        found = self.comments.setdefault(int(parts[0]), [])
        if method == "GET":
            size, page = int(query["per_page"]), int(query["page"])
            return found[size * (page - 1) : size * page]
        identity = 1 + sum(map(len, self.comments.values()))
        made = body | {"id": identity, "user": {"type": "Bot"}, "html_url": f"comment {identity}"}
        found.append(made)
        return made

    def _comment(
        self, parts: tuple[str], _method: str, _query: dict[str, str], body: Object
    ) -> Object:
        every = (one for comments in self.comments.values() for one in comments)
        return _updated(next(one for one in every if one["id"] == int(parts[0])), body)

    def _issues(
        self, _parts: tuple[()], method: str, query: dict[str, str], body: Object
    ) -> list[Object] | Object:
        if method == "GET":
            return [
                one
                for one in self.issues
                if one["state"] == query["state"] and query["labels"] in one["labels"]
            ]
        number = len(self.issues) + 1
        issue = body | {"number": number, "state": "open", "html_url": f"issue {number}"}
        self.issues.append(issue)
        return issue

    def _releases(
        self, _parts: tuple[()], _method: str, _query: dict[str, str], body: Object
    ) -> Object:
        upload = f"{self.address}/upload{{?name,label}}"
        self.releases.append(body | {"id": len(self.releases) + 1, "html_url": "a release"})
        return self.releases[-1] | {"upload_url": upload}

    def _release(
        self, parts: tuple[str], _method: str, _query: dict[str, str], body: Object
    ) -> Object:
        return _updated(self.releases[int(parts[0]) - 1], body)

    def _issue(
        self, parts: tuple[str], _method: str, _query: dict[str, str], body: Object
    ) -> Object:
        return _updated(self.issues[int(parts[0]) - 1], body)


def _updated(found: Object, body: Object) -> Object:
    found.update(body)
    return found


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    github: GitHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the base class's name
        """Answer a request."""
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = parts.path.removeprefix(f"/repos/{REPOSITORY}/")
        if path == "/upload":
            self.github.uploads[query["name"]] = content
            answer: Any = {"name": query["name"]}
        else:
            answer = self.github.answer(self.command, path, query, json.loads(content or b"{}"))
        content = json.dumps({"message": "Not Found"} if answer is None else answer).encode()
        self.send_response(404 if answer is None else 201 if self.command == "POST" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PATCH = do_GET  # noqa: N815  # the base class's names

    def log_message(self, *_: object) -> None:
        """Write no log."""


@contextmanager
def github() -> Iterator[GitHub]:
    """Run a stand-in for the length of a block."""
    found = GitHub()
    threading.Thread(target=found.server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield found
    finally:
        found.server.shutdown()
        found.server.server_close()
