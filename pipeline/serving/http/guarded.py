"""Connections that can be held open by nobody: uvicorn's HTTP/1.1 protocol with the time-outs and the bound that it lacks.

uvicorn times nothing but the pause between two requests. Here the head of a request, its body, an answer that nobody reads, and a
connection that is closing each have their time, and of too many connections the one that has been silent longest gives way.
What a request means is not known here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.params.serve import TimeoutParams

Waiting = Literal["header", "idle", "body"]
_ERROR = b'{"error":{"message":"%s","type":"%s","param":null,"code":"%s"}}'
_SAID = {
    408: _ERROR % (b"the request took too long to arrive", b"invalid_request_error", b"request_timeout"),
    503: _ERROR % (b"too many connections", b"server_error", b"too_many_connections"),
}
_PHRASES = {408: b"Request Timeout", 503: b"Service Unavailable"}
_LINGER = 2.0
"""So long what a client still sends is read and thrown away after its request was refused, so that it can read why."""


@dataclass(slots=True)
class Guard:
    """What the connections of one server share. silent: those that wait for a request, longest first. closed: how many, why."""

    timeouts: TimeoutParams
    connections: int
    silent: dict[GuardedProtocol, None] = field(default_factory=dict)
    closed: Counter[str] = field(default_factory=Counter)

    def make_room(self, newcomer: GuardedProtocol, there: int) -> bool:
        """Whether one more connection may stay; another may have to go for it."""
        if there <= self.connections:
            return True
        longest = next((connection for connection in self.silent if connection is not newcomer), None)
        if longest is None:
            self.closed["full"] += 1
            return False
        self.closed["gave_way"] += 1
        longest.transport.abort()
        self.silent.pop(longest, None)
        return True


class GuardedProtocol(H11Protocol):
    """One connection."""

    def __init__(self, guard: Guard, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False  # uvicorn's line holds the query; app.py writes one that holds nothing of the client's
        self._guard = guard
        self._waiting: Waiting | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._answered = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._guard.make_room(self, len(self.connections)):
            self._say_and_close(503)
            return
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_for(None)
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        self._answered += 1
        super().on_response_complete()
        if self._waiting == "body":
            # Refused before its body was there: what still comes is thrown away for a while, then the connection is closed.
            self._wait_for(None)
            self._waiting = "body"
            self._timer = self.loop.call_later(min(_LINGER, self._guard.timeouts.body), self._too_late)
        self._look()

    def shutdown(self) -> None:
        super().shutdown()
        self._look()

    def timeout_keep_alive_handler(self) -> None:
        self._guard.closed["idle"] += 1
        super().timeout_keep_alive_handler()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._bound_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def _look(self) -> None:
        """See what the client owes now, and give it its time."""
        if self.transport.is_closing():
            self._wait_for(None)
            self._bound_writing()  # what is left to be written must not keep it open for ever
            return
        theirs = self.conn.their_state
        if theirs is h11.SEND_BODY:
            self._wait_for("body")
        elif theirs is h11.IDLE:
            # uvicorn's own timer runs between two requests, until the next one begins.
            begun = self._answered == 0 or bool(self.conn.trailing_data[0])
            self._wait_for("header" if begun else "idle")
        else:
            self._wait_for(None)

    def _wait_for(self, waiting: Waiting | None) -> None:
        if waiting == self._waiting:
            return
        self._waiting = waiting
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if waiting in ("header", "idle"):
            self._guard.silent.pop(self, None)
            self._guard.silent[self] = None
        else:
            self._guard.silent.pop(self, None)
        if waiting in ("header", "body"):
            seconds = self._guard.timeouts.header if waiting == "header" else self._guard.timeouts.body
            self._timer = self.loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        """The client took too long: say so where it has begun to say anything, and close."""
        if self.transport.is_closing():
            return
        self._guard.closed[str(self._waiting)] += 1
        begun = self._waiting == "body" or bool(self.conn.trailing_data[0])
        started = self._waiting == "body" and self.cycle.response_started
        if begun and not started:
            self._say_and_close(408)
        else:
            self._close()

    def _say_and_close(self, status: int) -> None:
        body = _SAID[status]
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, _PHRASES[status], len(body)) + body)
        self._close()

    def _close(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._unset_keepalive_if_required()
        self.transport.close()
        self._look()

    def _bound_writing(self) -> None:
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._guard.timeouts.write, self._unread)

    def _unread(self) -> None:
        self._guard.closed["unread"] += 1
        self.transport.abort()
