"""What steps ask of machines beyond this one: many hands for one job, and the training of a stage. Signatures only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Protocol, Self

from pipeline.ports.rows import Progress
from pipeline.ports.runs import Tracker


class Crew(Protocol):
    """Many that answer calls of one job, which is sent to each of them once. Whoever is done first, each answer is its call's."""

    def expect(self, size: int) -> None:
        """Work on `size` more bytes is about to be submitted; with little of it nobody is called."""
        ...

    @property
    def depth(self) -> int:
        """How many answers the caller should let wait before it takes the oldest: nobody is idle, and memory is bounded."""
        ...

    def submit(self, item: Any) -> Future[Any]:
        """The job's answer to `item`, or the exception that it raised."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Engine(Protocol):
    """Machines that heavy work is handed to. What comes of it is what would have come of it here."""

    @property
    def workers(self) -> int:
        """How many share a work."""
        ...

    @property
    def from_rows(self) -> int:
        """Fewer questions than this are not worth handing over."""
        ...

    @property
    def made_by(self) -> Mapping[str, str]:
        """What makes an adapter there: device class, threads, workers, versions of libraries."""
        ...

    def check(self) -> None:
        """Raise Misuse or TryLater, with what to do, where nothing could be handed over. Takes no time worth telling."""
        ...

    def crew(self, job: Callable[[Any], Any], *, at_least: int | None = None) -> Crew:
        """Hands for `job`, which must be picklable. at_least: bytes of work that are worth calling them; default: by params."""
        ...

    def tune(self, job: Any, *, tracker: Tracker, progress: Progress) -> Any:
        """Run one training stage (modeling.job.Job) to its end, as modeling.training.tune does, through the loss of workers."""
        ...
