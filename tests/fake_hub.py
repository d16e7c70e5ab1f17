"""A small server that answers the few requests that the hub library makes for a download."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FakeHub:
    """One dataset at one commit, and a folder of plain files; `gated` closes the dataset."""

    dataset: str
    commit: str
    files: dict[str, bytes]
    pages: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    asked: list[str] = field(default_factory=list)
    """`METHOD path` of every request."""
    sent: int | None = None
    """Bytes of a body after which the connection is closed; None: all."""
    address: str = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of the answer to a request."""
        if path.startswith("/pages/"):
            body = self.pages.get(path.removeprefix("/pages/"))
            return (404, {}, b"") if body is None else (200, {}, body)
        if path == f"/api/datasets/{self.dataset}":
            return 200, {}, json.dumps({"id": self.dataset, "sha": self.commit, "tags": []}).encode()
        _, found, name = path.partition(f"/datasets/{self.dataset}/resolve/{self.commit}/")
        if self.gated and self.dataset in path:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if not found:
            code = "RevisionNotFound" if f"/{self.dataset}/resolve/" in path else "RepoNotFound"
            return 404, {"X-Error-Code": code}, b""
        if name not in self.files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit}, b""
        body = self.files[name]
        etag = hashlib.sha256(body).hexdigest()
        return 200, {"X-Repo-Commit": self.commit, "ETag": f'"{etag}"'}, body


@contextmanager
def running(hub: FakeHub) -> Iterator[FakeHub]:
    """Serves `hub` on a free local port and sets `hub.address`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: hub.sent])

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
