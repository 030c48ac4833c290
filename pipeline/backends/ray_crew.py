"""Hands on a Ray cluster, seen from the process that has calls for them. Who answers is ray_hands.py's."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from pipeline.backends.ray_driver import Gateway, wordless
from pipeline.backends.ray_frames import FATAL, read_frame, write_frame

_AHEAD = 3
"""Calls for each worker that may wait at a time."""


class FarCrew:
    """Hands on the cluster. Implements ports.Crew. Until `worth` bytes of work are expected, calls are answered on the spot."""

    def __init__(self, job: Callable[[Any], Any], count: int, worth: int, start: Callable[[], Gateway]) -> None:
        self._job, self._count, self._worth, self._begin = job, count, worth, start
        self._expected = 0
        self._gateway: Gateway | None = None
        self._asked: dict[int, Future[Any]] = {}
        self._next = 0
        self._lock = threading.Lock()
        self._failed: BaseException | None = None

    def expect(self, size: int) -> None:
        self._expected += size
        if self._gateway is None and self._expected >= self._worth:
            self._gateway = self._begin()
            with contextlib.suppress(BrokenPipeError):
                write_frame(self._gateway.orders, 0, pickle.dumps(self._job, protocol=5))
            threading.Thread(target=self._hear, args=(self._gateway,), daemon=True, name="ray-answers").start()

    @property
    def depth(self) -> int:
        return _AHEAD * self._count if self._gateway is not None else 0

    def submit(self, item: Any) -> Future[Any]:
        answer: Future[Any] = Future()
        if self._gateway is not None:
            # What is nested too deep to be sent is worked on here.
            with contextlib.suppress(RecursionError):
                content = pickle.dumps(item, protocol=5)
                with self._lock:
                    if self._failed is not None:
                        answer.set_exception(self._failed)
                        return answer
                    number, self._next = self._next, self._next + 1
                    self._asked[number] = answer
                with contextlib.suppress(OSError):  # it has died, which the end of its answers tells
                    write_frame(self._gateway.orders, number, content)
                return answer
        answer.set_result(self._job(item))
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._gateway is not None:
            self._gateway.end(well=error is None)

    def _hear(self, gateway: Gateway) -> None:
        failed: BaseException
        try:
            while True:
                number, content = read_frame(gateway.answers)
                if number == FATAL:
                    failed = pickle.loads(content)
                    break
                done, value = pickle.loads(content)
                with self._lock:
                    answer = self._asked.pop(number)
                answer.set_result(value) if done else answer.set_exception(value)
        except (OSError, EOFError, ValueError):
            failed = wordless(gateway)
        with self._lock:
            self._failed = failed
            left, self._asked = list(self._asked.values()), {}
        for answer in left:
            answer.set_exception(failed)
