"""A real HTTP server on this machine that does what servers on the way to a data set do."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Hub:
    """Files by path, how they are served, and what was asked."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """For each of the next answers, the bytes of the body after which the connection is cut."""
    failures: list[int] = field(default_factory=list)
    """Status codes of the next answers."""
    ranges: bool = True
    etags: bool = True
    linked_hash: str = "right"
    """The X-Linked-ETag of a redirect to the file: right, wrong, or none for no redirect."""
    requests: list[dict[str, str]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return self.address + path


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        hub = self.hub
        if hub.failures:
            self.send_error(hub.failures.pop(0))
            return
        content = hub.files.get(self.path.removeprefix("/storage"))
        if content is None:
            self.send_error(404)
            return
        if hub.linked_hash != "none" and not self.path.startswith("/storage"):
            right = hashlib.sha256(content).hexdigest()
            self.send_response(302)
            self.send_header("Location", "/storage" + self.path)
            linked = right if hub.linked_hash == "right" else "0" * 64
            self.send_header("X-Linked-ETag", f'"{linked}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        hub.requests.append(dict(self.headers))
        self._send(content)

    def _send(self, content: bytes) -> None:
        hub, etag = self.hub, f'"{hashlib.md5(content).hexdigest()}"'
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        if not hub.ranges or self.headers.get("If-Range", etag) != etag:
            start = 0
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if hub.etags:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if hub.cuts:
            body = body[: hub.cuts.pop(0)]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("lmray.corpus.download._BACKOFF_SECONDS", 0.001)
    state = Hub()
    handler = type("Handler", (_Handler,), {"hub": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.address = f"http://127.0.0.1:{server.server_port}"
        yield state
        server.shutdown()
        thread.join()
