"""Calls handed to actors all over the cluster, each as soon as one is free, again to another where one was lost.

Runs in the gateway's process. Actors are never restarted in place: one that cannot be would keep its calls for ever, though
others are idle. A new one is asked for instead, and has work as soon as there is room for it.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import exceptions

from pipeline.backends.ray_actors import Hand
from pipeline.errors import Broken, Misuse, TryLater
from pipeline.modeling.parallel.alike import difference, environment
from pipeline.modeling.parallel.far import SAME

LOST = (
    exceptions.RayActorError,
    exceptions.NodeDiedError,
    exceptions.WorkerCrashedError,
    exceptions.OutOfMemoryError,
    exceptions.ObjectLostError,
)
_AT_ONCE = 2
"""Calls that a hand has at a time, so that the next is there when one is done."""


@dataclass(eq=False)
class _Hand:
    actor: Any
    ready: bool = False
    calls: dict[Any, _Call] = field(default_factory=dict)


@dataclass(eq=False)
class _Call:
    number: int
    item: Any
    lost: int = 0


class Hands:
    """`count` actors of `job`. tell: called with a call's number and its pickled answer, from `run`'s thread."""

    def __init__(
        self,
        job: bytes,
        count: int,
        *,
        cpus: float,
        gpus: float,
        attempts: int,
        patience: float,
        tell: Callable[[int, bytes], None],
    ) -> None:
        self._count, self._attempts, self._patience, self._tell = count, attempts, patience, tell
        # SPREAD: one a node before two on any, so that the loss of a node takes the fewest.
        self._kind = ray.remote(Hand).options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy="SPREAD", max_restarts=0)
        self._job = ray.put(job)
        self._hands: list[_Hand] = []
        self._refs: dict[Any, _Hand] = {}
        self._waiting: deque[_Call] = deque()
        self._asked: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._starts = 0
        self._idle_since = time.monotonic()

    def submit(self, number: int, item: bytes) -> None:
        """From any thread."""
        self._asked.put(_Call(number, item))

    def end(self) -> None:
        """Let `run` return. From any thread."""
        self._asked.put(None)

    def run(self) -> None:
        """Work until `end`. Raises TryLater when nobody could be had for `patience` seconds, Misuse for a node that is otherwise,
        Broken when hands are lost again and again."""
        while True:
            while len(self._hands) < self._count:
                self._start()
            busy = bool(self._refs)
            try:
                call = self._asked.get(timeout=0.0 if self._waiting or busy else 0.5)
                while call is not None:
                    call.item = ray.put(call.item)  # once, however many hands are lost over it
                    self._waiting.append(call)
                    call = self._asked.get_nowait()
                return
            except queue.Empty:
                pass
            self._assign()
            self._collect()
            if any(hand.ready for hand in self._hands):
                self._idle_since = time.monotonic()
            elif time.monotonic() - self._idle_since > self._patience:
                raise no_room(self._count, self._patience)

    def _start(self) -> None:
        self._starts += 1
        if self._starts > self._count + self._attempts * self._count:
            raise Broken(
                f"workers were lost {self._starts - self._count} times",
                where="the Ray cluster",
                fix="see why in Ray's logs of the node (often memory); raise compute.attempts where nodes come and go",
            )
        hand = _Hand(self._kind.remote(self._job))
        self._hands.append(hand)
        self._refs[hand.actor.about.remote()] = hand

    def _assign(self) -> None:
        for load in range(_AT_ONCE):
            for hand in self._hands:
                if self._waiting and hand.ready and len(hand.calls) == load:
                    call = self._waiting.popleft()
                    ref = hand.actor.work.remote(call.item)
                    hand.calls[ref] = call
                    self._refs[ref] = hand

    def _collect(self) -> None:
        if not self._refs:
            return
        done, _ = ray.wait(list(self._refs), num_returns=1, timeout=0.02)
        for ref in done:
            hand = self._refs.pop(ref, None)
            if hand is None:
                continue
            call = hand.calls.pop(ref, None)
            try:
                answer = ray.get(ref)
            except LOST as error:
                self._lost(hand, call, error)
                continue
            if call is not None:
                self._tell(call.number, answer)
            elif (other := difference(environment(), answer)) is not None:
                raise Misuse(f"a node of the cluster has {other}", where="the Ray cluster", fix=SAME)
            else:
                hand.ready = True

    def _lost(self, hand: _Hand, call: _Call | None, error: BaseException) -> None:
        again = [*([call] if call else []), *hand.calls.values()]
        for ref in hand.calls:
            self._refs.pop(ref, None)
        for ref in [ref for ref, other in self._refs.items() if other is hand]:
            del self._refs[ref]
        if hand in self._hands:
            self._hands.remove(hand)
        ray.kill(hand.actor)
        for one in again:
            one.lost += 1
            if one.lost > self._attempts + 1:
                raise Broken(
                    f"{one.lost} workers were lost over the same piece of work: {error}",
                    where="the Ray cluster",
                    fix="see why in Ray's logs of the node; where it was for want of memory, let there be fewer workers",
                )
        self._waiting.extendleft(reversed(again))


def no_room(count: int, seconds: float) -> TryLater:
    """Nobody came."""
    free = {name: amount for name, amount in ray.available_resources().items() if name in ("CPU", "GPU")}
    whole = {name: amount for name, amount in ray.cluster_resources().items() if name in ("CPU", "GPU")}
    return TryLater(
        f"the cluster had no room for a worker in {seconds:.0f} s: of {whole or 'nothing'} there is {free or 'nothing'} free, and"
        f" {count} workers were asked for",
        where="params.compute",
        fix="wait, add nodes, or ask for less: compute.workers, compute.least, compute.cpus, compute.gpus",
    )
