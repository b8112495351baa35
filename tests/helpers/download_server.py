"""A local web server that can break connections, reply slowly, and continue files."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Server(ThreadingHTTPServer):
    """Serve ``files``, at most ``cut`` bytes per reply, with or without range requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None
        self.chunk: int | None = None
        self.pause_s = 0.0
        self.ranges = True
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        """The address of the files."""
        return f"http://127.0.0.1:{self.server_address[1]}/2018"


class Handler(BaseHTTPRequestHandler):
    """Reply to requests for whole files and their ends."""

    server: Server

    def do_GET(self) -> None:
        """Reply to a request."""
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        content = self.server.files.get(self.path.removeprefix("/2018/"))
        if content is None:
            self.send_error(404)
            return
        start = 0
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self._send(content[start:][: self.server.cut])
        self.close_connection = True

    def _send(self, content: bytes) -> None:
        size = self.server.chunk or max(len(content), 1)
        try:
            for start in range(0, len(content), size):
                self.wfile.write(content[start : start + size])
                self.wfile.flush()
                if self.server.pause_s:
                    time.sleep(self.server.pause_s)
        except OSError:  # the client was killed
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server in a thread."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
