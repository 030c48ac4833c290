"""How long a training has taken in all its attempts, and whether it may go on. Where money is capped it comes here as hours.

Time is noted beside the checkpoints while it passes, so that of a killed attempt little is forgotten, and in each checkpoint, so
that one that is moved takes it along. Nothing here looks at the clock of the world: only at how far it moves.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import CapReached

log = logging.getLogger(__name__)

_NAME = "seconds.json"
_EVERY = 10.0


class Stopwatch:
    """Seconds of training, this attempt's and those before. max_hours: the cap; None: there is none. clock: only ever grows."""

    def __init__(self, folder: Path, max_hours: float | None, clock: Callable[[], float]) -> None:
        self._path = folder / _NAME
        self._cap = math.inf if max_hours is None else max_hours * 3600
        self._clock = clock
        self._before = self._read()
        self._start: float | None = None
        self._noted = self._before

    @property
    def seconds(self) -> float:
        """Of all attempts."""
        return self._before + (self._clock() - self._start if self._start is not None else 0.0)

    @property
    def over(self) -> bool:
        """Whether the cap is reached."""
        return self.seconds >= self._cap

    def check(self, step: int, total: int) -> None:
        """Raise CapReached when it is, at a step of so many from which training can go on."""
        if self.over:
            raise CapReached(
                f"the cap of time is reached at step {step} of {total}, {self.seconds / 3600:.2f} hours into this stage",
                where=str(self._path.parent),
                fix="raise train.max_hours or train.max_cost and run again: nothing is lost, it goes on from there",
            )

    def restore(self, seconds: float) -> None:
        """Take over what a checkpoint says, unless more is known here: of an attempt that was killed after it."""
        self._before = max(self._before, seconds)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Time passes within."""
        self._start = self._clock()
        try:
            yield
        finally:
            self._before, self._start = self.seconds, None
            with contextlib.suppress(OSError):  # whatever ended the attempt is of more interest
                self._write()

    def note(self) -> None:
        """Write down how much it has been, every ten seconds."""
        if self.seconds - self._noted >= _EVERY:
            self._write()

    def _write(self) -> None:
        """For a reader there is always a whole file."""
        self._noted = self.seconds
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_name(f".staging-{os.getpid()}-{_NAME}")
        aside.write_text(json.dumps(self._noted), encoding="ascii")
        aside.replace(self._path)

    def _read(self) -> float:
        try:
            found = float(json.loads(self._path.read_text(encoding="ascii")))
        except FileNotFoundError:
            return 0.0
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s cannot be read, time is counted from the checkpoint on: %s", self._path, error)
            return 0.0
        return found if math.isfinite(found) and found >= 0 else 0.0
