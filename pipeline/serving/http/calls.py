"""One request under way: its answer sent whole or as a stream, watched for a client that leaves. No endpoint stands here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from pipeline.serving.http import wanted
from pipeline.serving.http.bodies import Gone
from pipeline.serving.http.problems import Problem
from pipeline.serving.http.shapes import event

GONE = 499
"""The status in logs and metrics of a request whose client left."""
_SAFE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Call:
    """What an endpoint answers through. status: 0 until something was sent. said: what the log's line adds, without any text."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request = Request(scope, receive)
        self.id = wanted.new_id("req")
        self.began = time.perf_counter()
        self.status = 0
        self.finished = False
        self.headers: dict[str, str] = {"x-request-id": self.id, **_SAFE}
        self.said: dict[str, str] = {}
        self._send = send

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    async def reply(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON."""
        await self.reply_bytes(orjson.dumps(value), "application/json", status, headers)

    async def reply_bytes(self, body: bytes, kind: str, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        await self._start(status, {"content-type": kind, "content-length": str(len(body)), **(headers or {})})
        await self._body(body, more=False)

    async def fail(self, problem: Problem) -> None:
        """Say what is wrong: as the answer, or, where one has begun, as the last event of its stream."""
        if not self.status:
            await self.reply(problem.body, problem.status, problem.headers)
        elif not self.finished:
            self.said["error"] = problem.code
            await self._body(event(problem.body), more=False)

    async def start_stream(self) -> None:
        await self._start(200, {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"})

    async def write(self, data: bytes) -> None:
        await self._body(data, more=True)

    async def end_stream(self, data: bytes = b"") -> None:
        await self._body(data, more=False)

    async def attended(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, and end it when the client leaves meanwhile. Raises Gone then."""
        task = asyncio.create_task(work)
        leaving = asyncio.create_task(self._left())
        try:
            await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not self.finished:
                raise Gone
            await task
        finally:
            task.cancel()
            leaving.cancel()
            await asyncio.wait({task, leaving})

    async def _left(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        merged = {**self.headers, **headers}
        sent = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in merged.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": sent})

    async def _body(self, data: bytes, *, more: bool) -> None:
        if not more:
            self.finished = True
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
