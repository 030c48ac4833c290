"""A real HTTP server on loopback that notices are sent to: it answers, answers wrongly, or is slow."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Listener:
    """heard: what was posted and answered well. asked: how often somebody posted. status: its answer, once the gate is open."""

    def __init__(self, port: int = 0) -> None:
        self.heard: list[dict[str, Any]] = []
        self.asked = 0
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked += 1
                outer.gate.wait(60)
                if outer.status == 200:
                    outer.heard.append(body)
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def titles(self) -> list[str]:
        return [one["title"] for one in self.heard]

    def address(self, secret: str = "hunter2-s3cret") -> str:
        return f"json://tuner:{secret}@127.0.0.1:{self.port}/{secret}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def listening(port: int = 0) -> Iterator[Listener]:
    listener = Listener(port)
    try:
        yield listener
    finally:
        listener.close()
