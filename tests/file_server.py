"""A local HTTP file server that can misbehave: ranges, redirects, broken-off answers, errors that pass."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What the server holds and how it behaves; `requests` records (path, Range header) of every request."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Content by path, e.g. {"/a.bin": b"..."}."""
    ranges: bool = True
    """Whether Range headers are honoured."""
    break_after: list[int] = field(default_factory=list)
    """For each of the next answers, how many bytes are sent before the connection is dropped."""
    fail_with: list[int] = field(default_factory=list)
    """Status codes of the next answers, before any file is given."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Paths that answer 302, and where to."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    """Answers for `served`, which `file_server` sets in a subclass of its own."""

    served: FileServer

    def log_message(self, *_: object) -> None:
        """Keep test output clean."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.served.requests.append((self.path, wanted))
        if self.served.fail_with:
            self._answer(self.served.fail_with.pop(0), b"not now")
        elif self.path in self.served.redirects:
            self._answer(302, b"", {"Location": self.served.redirects[self.path]})
        elif self.path not in self.served.files:
            self._answer(404, b"no such file")
        else:
            self._send_file(self.served.files[self.path], wanted)

    def _send_file(self, content: bytes, wanted: str | None) -> None:
        span = re.match(r"bytes=(\d+)-", wanted or "")
        if span is None or not self.served.ranges:
            self._answer(200, content)
            return
        start = int(span[1])
        if start >= len(content):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        else:
            self._answer(206, content[start:], {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if status in (200, 206) and self.served.break_after:
            body = body[: self.served.break_after.pop(0)]
            self.close_connection = True
        self.wfile.write(body)


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Serve until the block ends, on a free port of this machine only."""
    server = FileServer()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": server}))
    server.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
