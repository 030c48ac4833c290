"""One thread that redacts and writes what a server keeps of requests, so that no answer waits for a disk or a pattern.

What waits is bounded: beyond it work is dropped and counted, never an answer delayed. What is written is not known here.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

LOG = logging.getLogger("tuneline.serve")


class Keeper:
    """Does work in the order in which it came. most: how much may wait."""

    def __init__(self, most: int = 1000) -> None:
        self.dropped = 0
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(most)
        self._thread = threading.Thread(target=self._work, name="tuneline-keeper", daemon=True)
        self._thread.start()

    def put(self, work: Callable[[], None]) -> bool:
        """Have it done soon; False when too much waits already."""
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            self.dropped += 1
            if self.dropped in (1, 100, 10_000):
                LOG.warning("%d times something of a request was not kept: too much waits to be written", self.dropped)
            return False
        return True

    def settle(self) -> None:
        """Wait until all that came before is done."""
        done = threading.Event()
        self._waiting.put(done.set)
        done.wait()

    def close(self, seconds: float = 10.0) -> None:
        """Do what waits, and end."""
        try:
            self._waiting.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            try:
                work()
            except Exception as error:
                # Its words could hold what was to be written.
                LOG.error("something of a request could not be kept: %s", type(error).__name__)
