"""What steps and flows ask while Tuneline runs by itself: signals that may start a run, and who is told. Signatures only."""

from __future__ import annotations

from typing import Protocol

from pipeline.domain.notices import Notice
from pipeline.domain.signals import Signal, SignalKind
from pipeline.domain.ticks import Tick


class Signals(Protocol):
    """What was seen of a model, window by window, for triggers to decide on. Written by whoever watches, read by each tick."""

    def note(self, signal: Signal) -> None:
        """Keep a signal; one of the same model, sort and window takes the place of the one before."""
        ...

    def recent(self, model: str, what: SignalKind, *, count: int) -> tuple[Signal, ...]:
        """The last `count` signals of a sort, oldest first."""
        ...


class RunBook(Protocol):
    """Which tick of a model runs, and how the last ones ended. Claiming is the flows' and the backend's."""

    def running(self, model: str) -> Tick | None:
        """The tick whose lease is held now, whether its process lives or not."""
        ...

    def ticks(self, model: str, count: int) -> tuple[Tick, ...]:
        """The last `count` ticks that were claimed, oldest first."""
        ...


class Notifier(Protocol):
    """Tells people. What cannot be delivered is said in the log and never stops what it is about."""

    def tell(self, notice: Notice) -> None: ...
