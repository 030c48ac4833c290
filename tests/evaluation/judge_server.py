"""A judge on loopback, with the manners that a test gives it: an HTTP server in a thread, asked over a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """content: what the model says; body: the whole body instead. drip: seconds between bytes."""

    content: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    wait: float = 0.0
    drip: float = 0.0


@dataclass
class Server:
    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    ending: threading.Event = field(default_factory=threading.Event)

    def told(self) -> list[dict[str, Any]]:
        """What stood in the user's messages."""
        return [json.loads(request["messages"][1]["content"]) for request in self.requests]


@contextmanager
def judge_server(behave: Callable[[dict[str, Any], int], Reply]) -> Iterator[Server]:
    """behave: given what stands in the user's message, and how many requests came before, what to reply."""
    lock, inside = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                before = len(server.requests)
                server.requests.append(body)
                server.headers.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
                inside[0] += 1
                server.most_at_once = max(server.most_at_once, inside[0])
            reply = behave(json.loads(body["messages"][1]["content"]), before)
            server.ending.wait(reply.wait)
            with lock:
                inside[0] -= 1
            self._send(reply)

        def _send(self, reply: Reply) -> None:
            said = {"choices": [{"message": {"role": "assistant", "content": reply.content}}]}
            data = json.dumps(said).encode() if reply.body is None else reply.body
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                for at in range(0, len(data), 1 if reply.drip else len(data) or 1):
                    self.wfile.write(data[at : at + (1 if reply.drip else len(data))])
                    if server.ending.wait(reply.drip):
                        break
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    server = Server(f"http://127.0.0.1:{web.server_address[1]}")
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ending.set()
        web.shutdown()
        web.server_close()
        thread.join()


def says(better: str) -> Reply:
    return Reply(json.dumps({"better": better}))


def honest(told: dict[str, Any], before: int) -> Reply:
    """Likes the answer with more exclamation marks."""
    ours, theirs = told["first"].count("!"), told["second"].count("!")
    return says("first" if ours > theirs else "second" if theirs > ours else "tie")
