"""What steps ask of runs under way: curves, and the memory of a sweep. Signatures only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pipeline.domain.sweeping import Point, Trial


class Tracker(Protocol):
    """One tracked run: curves, parameters, files. Steps log through it; they never open or close it."""

    @property
    def run_id(self) -> str: ...

    def log_params(self, params: Mapping[str, Any]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None: ...

    def log_dataset(self, name: str, digest: str, *, source: str, rows: int, context: str) -> None: ...

    def log_file(self, path: Path, folder: str = "") -> None: ...

    def log_folder(self, path: Path, folder: str) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...


class Study(Protocol):
    """The memory of one sweep, and what it makes of it: which point to try next, which trial to end. Written as it happens."""

    def trials(self) -> tuple[Trial, ...]:
        """All there are, by number; one that is running was interrupted, unless it is under way here."""
        ...

    def begin(self, point: Point | None) -> Trial | None:
        """A new trial of `point`, or of one that promises most. None when no point is left that was not tried."""
        ...

    def report(self, number: int, step: int, value: float) -> bool:
        """Note an evaluation of a running trial after training step `step`, once; True when the trial should end here."""
        ...

    def should_end(self, number: int) -> bool:
        """What `report` said last."""
        ...

    def spent(self, number: int, seconds: float) -> None:
        """Note how much training a trial has taken so far."""
        ...

    def finish(self, number: int, value: float) -> None: ...

    def prune(self, number: int) -> None: ...

    def fail(self, number: int, why: str) -> None: ...
