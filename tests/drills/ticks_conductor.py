"""Wakes several workers for one tick after the other, twice, late and by wrong clocks; kills, stops and replaces them, and
restarts the database meanwhile. Then it tells what is wrong: one candidate for each tick with a fresh file, none for the others.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ticks_workers import EVERY, FIRST, LEASE, PLACES, Order, Place, batch_of, work_off

from pipeline.backends.git import Git
from pipeline.backends.run_book import RunBook
from pipeline.domain.release import registrations, version_record
from pipeline.errors import TryLater

FORK = multiprocessing.get_context("fork")
MODEL = "desk"
SKEWS = (0.0, 0.0, 0.0, 2.0, -3600.0, 3600.0, -56 * 365 * 86_400.0)
"""How far a worker's clock may be off, in seconds: an hour either way, and 1970."""


@dataclass
class Worker:
    process: Any
    orders: Connection
    stopped: float | None = None
    """When it was seen to stand still."""


@dataclass
class Conductor:
    """near and far: how many workers see one another's processes, and how many are as on other machines. harm: the share of ticks
    at which somebody comes to harm; places and ways: where in a run, and how. restart: restarts the database, if one can."""

    place: Place
    seed: int
    near: int = 2
    far: int = 2
    fresh: float = 0.35
    harm: float = 0.3
    places: tuple[str, ...] = PLACES
    ways: tuple[str, ...] = ("kill", "stop")
    bug: str | None = None
    restart: Callable[[], None] | None = None
    restarts: float = 0.01
    patience: float = 60.0
    counts: Counter[str] = field(default_factory=Counter)
    with_file: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._names = [f"near-{n}" for n in range(self.near)] + [f"far-{n}" for n in range(self.far)]
        self._workers: dict[str, Worker] = {}
        self._born = 0
        self.book = RunBook.beside(self.place.ledger)

    def conduct(self, ticks: int) -> list[str]:
        """Let `ticks` ticks come, one after the other, and tell what is wrong."""
        try:
            for name in self._names:
                self._start(name)
            for number in range(ticks):
                if not self._tick(number):
                    return [f"tick {number} did not end within {self.patience:g} s", *self.wrong(number)]
            self._wind_up()
            return list(self.wrong(ticks))
        finally:
            for worker in self._workers.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGKILL)
                worker.process.join()

    def wrong(self, ticks: int) -> Iterator[str]:
        """What does not hold of the first `ticks` ticks."""
        ledger, repository = self.place.world("state-conductor").ledger, Git(self.place.root)
        events = ledger.events(MODEL)
        runs = {f"run-r{int(name.rsplit('/', 1)[1])}": commit for name, commit in repository.refs(f"{MODEL}/run").items()}
        made = Counter[int]()
        tags = [version_record(events, version).tag for version in registrations(events)]
        for tag in tags:
            batch = [int(Path(source.name).stem) for source in batch_of(repository, runs[tag]).batch]
            made.update(batch)
            if len(batch) != 1:
                yield f"{tag} was made of {len(batch)} ticks' files: {batch}"
        for number in range(ticks):
            wanted = 1 if number in self.with_file else 0
            if made[number] != wanted:
                yield f"tick {number} {'had a' if wanted else 'had no'} fresh file, and came to {made[number]} candidates"
        if sorted(tags) != sorted(runs):
            yield f"{len(runs)} runs are kept, {len(tags)} are registered"
        written = Counter(tick.at for tick in self.book.ticks(MODEL, 10 * ticks + 100))
        for at, times in written.items():
            if times != 1:
                yield f"the tick of {at} stands {times} times in the run book"
        for number in range(ticks):
            if written[FIRST + number * EVERY] == 0:
                yield f"tick {number} does not stand in the run book"
        for tick in self.book.ticks(MODEL, 10 * ticks + 100):
            if not tick.done:
                yield f"the tick of {tick.at} has not ended: {tick.ending}"
        yield from ledger.verify()

    def _tick(self, number: int) -> bool:
        if self._rng.random() < self.fresh:
            self.place.put(number)
            self.with_file.add(number)
        if self.restart and self._rng.random() < self.restarts:
            self.counts["database restarts"] += 1
            self.restart()
        chosen = [self._rng.choice(self._names) for _ in range(self._rng.choice((1, 2, 3)))]
        harm = (self._rng.choice(self.places), self._rng.choice(self.ways)) if self._rng.random() < self.harm else None
        for place, name in enumerate(chosen):
            self._send(name, Order(number, self._rng.choice(SKEWS), harm if place == 0 else None))
        if number > 5 and self._rng.random() < 0.1:
            # A schedule that was made anew, or a server that came back, wakes for what is long past.
            self._send(self._rng.choice(self._names), Order(number - self._rng.randint(1, 5), due=number))
            self.counts["woken late"] += 1
        struck = self._strike_at() if self._rng.random() < self.harm / 2 else None
        deadline, again = time.monotonic() + self.patience, time.monotonic() + 2 * LEASE
        while not self._ended(number):
            if time.monotonic() > deadline:
                return False
            if self._look_after():
                again = min(again, time.monotonic() + 0.2)
            if struck and time.monotonic() > struck[0]:
                self._strike(struck[1])
                struck = None
            if time.monotonic() > again:
                # Whoever was woken is dead or stands still: the scheduler wakes another.
                self._send(self._rng.choice(self._names), Order(number))
                self.counts["woken again"] += 1
                again = time.monotonic() + 2 * LEASE
            time.sleep(0.01)
        return True

    def _ended(self, number: int) -> bool:
        try:
            return any(tick.done and tick.at == FIRST + number * EVERY for tick in self.book.ticks(MODEL, 3))
        except TryLater:
            return False

    def _look_after(self) -> bool:
        """Replace the dead; let those that stand still go on once their lease is over. Whether anybody was replaced."""
        born = self._born
        for name, worker in list(self._workers.items()):
            if not worker.process.is_alive():
                self.counts["killed"] += 1
                self._start(name)
            elif _stands_still(worker.process.pid):
                worker.stopped = worker.stopped or time.monotonic()
                if time.monotonic() - worker.stopped > 2.5 * LEASE:
                    self.counts["stopped and woken"] += 1
                    worker.stopped = None
                    os.kill(worker.process.pid, signal.SIGCONT)
        return self._born > born

    def _strike_at(self) -> tuple[float, str]:
        """When, wherever it is by then, a worker is to come to harm, and which."""
        return time.monotonic() + self._rng.uniform(0.0, 0.5), self._rng.choice(self._names)

    def _strike(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._workers[name].process.pid, self._rng.choice((signal.SIGKILL, signal.SIGSTOP)))

    def _wind_up(self) -> None:
        """Let all go on, and wait until each has done what it was told."""
        deadline = time.monotonic() + self.patience
        for name in self._names:
            with contextlib.suppress(OSError):
                self._workers[name].orders.send(None)
        while any(worker.process.is_alive() for worker in self._workers.values()) and time.monotonic() < deadline:
            for worker in self._workers.values():
                if _stands_still(worker.process.pid):
                    os.kill(worker.process.pid, signal.SIGCONT)
            time.sleep(0.01)

    def _start(self, name: str) -> None:
        if name in self._workers:
            self._workers[name].process.join()
            self._workers[name].orders.close()
        mine, its = FORK.Pipe()
        self._born += 1
        process = FORK.Process(target=work_off, args=(self.place, f"{name}-{self._born}", its, self.bug), daemon=True)
        process.start()
        its.close()
        self._workers[name] = Worker(process, mine)

    def _send(self, name: str, order: Order) -> None:
        with contextlib.suppress(OSError):
            self._workers[name].orders.send(order)


def _stands_still(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False
