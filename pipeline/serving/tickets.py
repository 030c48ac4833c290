"""Asks on their way to the thread that owns the models: what waits, bounded, and how what is made comes back. No torch."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.domain.serving import Full
from pipeline.errors import TryLater


class Ticket:
    """One ask in the queue or under way. voice: who answers; row: of an answer; text: ids that are to be labelled instead."""

    __slots__ = ("_items", "_loop", "_wake", "began", "cancelled", "made", "row", "text", "voice")

    def __init__(self, voice: Any, loop: asyncio.AbstractEventLoop, *, row: Any = None, text: list[int] | None = None) -> None:
        self.voice, self.row, self.text = voice, row, text
        self.made = 0
        self.cancelled = False
        self.began = time.monotonic()
        self._loop = loop
        self._items: deque[tuple[Any, int]] = deque()
        self._wake: asyncio.Future[None] | None = None

    async def next(self) -> Any:
        """The next thing that was made; raises it when it is an error. On the ticket's own loop only."""
        while not self._items:
            self._wake = self._loop.create_future()
            await self._wake
        item, self.made = self._items.popleft()
        if isinstance(item, Exception):
            raise item
        return item

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def arrive(self, item: Any, made: int) -> None:
        """Called on the loop. made: tokens of the answer by then."""
        self._items.append((item, made))
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Waiting:
    """The queue. rows: how many are answered at once; queue: how many more may wait; beyond that Full is raised."""

    def __init__(self, *, rows: int, queue: int) -> None:
        self.rows, self._most = rows, rows + queue
        self.changed = threading.Condition()
        self._line: deque[Ticket] = deque()
        self._running = 0
        self._closed = False
        self._pace = 0.5  # seconds an answer takes, of late
        self.stirred = False

    def check_room(self) -> None:
        """Raise Full before anything is done for an ask that would find no place."""
        with self.changed:
            self._check()

    def put(self, ticket: Ticket) -> None:
        with self.changed:
            self._check()
            self._line.append(ticket)
            self.changed.notify()

    def cancel(self, ticket: Ticket) -> None:
        """Whoever waited for it is gone, or has all of it."""
        with self.changed:
            if not ticket.cancelled:
                ticket.cancelled = True
                if ticket in self._line:
                    self._line.remove(ticket)
                self.changed.notify()

    def take(self, under_way: int) -> list[Ticket]:
        """As many from the front as there are places left beside those under way, for the thread."""
        with self.changed:
            found = [self._line.popleft() for _ in range(min(self.rows - under_way, len(self._line)))]
            self._running = under_way + len(found)
            return found

    def take_all(self) -> list[Ticket]:
        with self.changed:
            found = list(self._line)
            self._line.clear()
            return found

    def running(self, count: int) -> None:
        """The thread says how many it has under way."""
        with self.changed:
            self._running = count

    def took(self, ticket: Ticket) -> None:
        """An answer is whole."""
        self._pace += 0.05 * (time.monotonic() - ticket.began - self._pace)

    def wait(self, seconds: float) -> None:
        """Until something comes, is cancelled or is to be done, or the queue is closed."""
        with self.changed:
            if not (self._line or self._closed or self.stirred):
                self.changed.wait(seconds)
            self.stirred = False

    def stir(self) -> None:
        with self.changed:
            self.stirred = True
            self.changed.notify()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def load_now(self) -> tuple[int, int]:
        with self.changed:
            return len(self._line), self._running

    def _check(self) -> None:
        if self._closed:
            raise TryLater("the server stops", fix="ask another server, or try again")
        if len(self._line) + self._running >= self._most:
            seconds = min(60.0, max(1.0, self._pace * len(self._line) / max(1, self.rows)))
            raise Full(f"{len(self._line)} asks wait already", fix=f"try again in {seconds:.0f} s", retry_after=seconds)


def hand_out(made: Iterable[tuple[Ticket, Any, int]]) -> None:
    """Bring what a step made to those who wait for it: one call for each event loop, however many rows moved."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Any, int]]] = {}
    for one in made:
        by_loop.setdefault(one[0].loop, []).append(one)
    for loop, some in by_loop.items():
        try:
            loop.call_soon_threadsafe(_arrive, some)
        except RuntimeError:  # the loop is closed: nobody is there to hear it
            for ticket, *_ in some:
                ticket.cancelled = True


def _arrive(some: Sequence[tuple[Ticket, Any, int]]) -> None:
    for ticket, item, made in some:
        ticket.arrive(item, made)
