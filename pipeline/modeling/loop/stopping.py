"""Why a training ends before its last step, in words that say how to go on: a signal, a full disk, memory that ran out.

Caps are caps.py's, verdicts on the losses watch.py's.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import Broken, TunelineError
from pipeline.modeling.loop.micro import memory_ran_out

_ASKED = threading.Event()


def ask_to_stop() -> None:
    """Let all trainings of this process stop as if SIGTERM had come: for a process whose main thread is somebody else's."""
    _ASKED.set()


class Signal:
    """Whether SIGTERM has come while it was listened for, or this process was asked to stop."""

    def __init__(self) -> None:
        self._come = threading.Event()

    @property
    def come(self) -> bool:
        return self._come.is_set() or _ASKED.is_set()

    def note(self) -> None:
        """It has come to another process of this training."""
        self._come.set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within, SIGTERM only leaves a note. Only the main thread may say so; elsewhere the last regular checkpoint must do."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self._come.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def failing_plainly(folder: Path, taken: Callable[[], int]) -> Iterator[None]:
    """A disk that is full, or memory that smaller pieces do not help, is said in our words, wherever in a step it comes.

    folder: of the checkpoints. taken: how many steps were.
    """
    try:
        yield
    except TunelineError:
        raise
    except (OSError, RuntimeError, MemoryError) as error:
        if memory_ran_out(error):
            fix = "tune less (lora, qlora) or take a smaller base, and run again: checkpoints are whole"
            raise Broken(f"memory ran out after step {taken()}, beside the rows: {error}", fix=fix) from error
        if isinstance(error, OSError):
            said = f"something could not be read or written after step {taken()}: {error}"
            fix = "make room on the disk and run again: checkpoints are whole"
            raise Broken(said, where=str(folder), fix=fix) from error
        raise
