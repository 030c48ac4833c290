"""The actors that stand on the cluster's side: the switchboard beside the driver, and hands that answer calls of one job.

Plain classes, made actors by ray_gateway.py and ray_hands.py. Between them and the driver go bytes: lines of JSON, and the two
sides' own pickles of a job and its answers, as between a process and those of curation/workers.py.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping

from pipeline.modeling.parallel.alike import environment
from pipeline.modeling.parallel.far import GO, LEAVE, STOP

Line = tuple[int, bytes]


class Switchboard:
    """What workers of a training say, until the driver takes it, and whether they are to go on.

    Of groups of workers only the newest is heard: one that Ray Train gave up may still live where nobody can reach it.
    """

    def __init__(self) -> None:
        self._groups: list[str] = []
        self._count = 0
        self._lines: list[Line] = []
        self._stop = False
        self._heard = time.monotonic()

    def begin(self, group: str, rank: int, count: int) -> None:
        """Worker `rank` of `count` is here."""
        if group not in self._groups:
            self._groups.append(group)
            self._lines.clear()  # the rest of what those before it said
            self._count = count
        self._heard = time.monotonic()

    def say(self, group: str, rank: int, line: bytes) -> bool:
        """Take a line to hand on; False from a group that is no longer heard."""
        if group != self._groups[-1]:
            return False
        self._lines.append((rank, line))
        return True

    def ask(self, group: str) -> str:
        """What a worker of `group` is to do."""
        if group != self._groups[-1]:
            return LEAVE
        self._heard = time.monotonic()
        return STOP if self._stop else GO

    def stop(self) -> None:
        """Let all stop after a checkpoint."""
        self._stop = True

    def take(self) -> tuple[int, int, float, list[Line]]:
        """How many groups began, how many workers are in the newest, seconds since any was heard, what was said since."""
        lines, self._lines = self._lines, []
        return len(self._groups), self._count, time.monotonic() - self._heard, lines


class Hand:
    """Answers calls of one job. job: pickled."""

    def __init__(self, job: bytes) -> None:
        self._pickled = job
        self._job = None

    def about(self) -> Mapping[str, str]:
        """What is installed where this hand is; it can work from now on."""
        return environment()

    def work(self, item: bytes) -> bytes:
        """The pickled pair of whether it went well and the answer, or the error."""
        if self._job is None:
            self._job = pickle.loads(self._pickled)
        try:
            answer = True, self._job(pickle.loads(item))  # type: ignore[misc]
        except Exception as error:
            answer = False, error
        return pickle.dumps(answer, protocol=5)
