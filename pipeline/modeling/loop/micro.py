"""Cuts a step into pieces that fit into memory, and goes on with smaller ones when one did not.

How much is expected to fit is hardware/'s. What is done again, and what of it must be forgotten first, is the loop's.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from pipeline.errors import Broken

log = logging.getLogger(__name__)

T = TypeVar("T")

_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "alloc_failed")
"""How torch, oneDNN and cuBLAS say it when they raise no error of its own kind."""


def longest_first(places: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """`places` by falling length, so that little is padded and a piece that does not fit is met at once; ties as they came."""
    return [places[n] for n in sorted(range(len(places)), key=lambda n: -lengths[n])]


def pieces(places: Sequence[int], rows: int) -> list[list[int]]:
    """`places` in order, at most `rows` in a piece."""
    return [list(places[start : start + rows]) for start in range(0, len(places), rows)]


def memory_ran_out(error: BaseException) -> bool:
    """Whether that is what an error says, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


@dataclass(slots=True)
class Room:
    """How many rows are in memory at once: of those trained on (`training`) or measured (`evaluation`). Both only ever fall."""

    training: int
    evaluation: int

    def fit(self, what: Literal["training", "evaluation"], work: Callable[[], T], *, step: int) -> T:
        """Do `work`; while memory runs out, do it again with half as many rows. `work` asks for the number itself, and begins by
        forgetting what an attempt may have left.

        Raises Broken when even one row is too much. step: how many were taken, for messages.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not memory_ran_out(error):
                    raise
                said = str(error).split("\n")[0]
            # Here, not in the handler: until that is left, the traceback holds all that the attempt had in memory.
            _free_memory()
            now = getattr(self, what)
            if now <= 1:
                fix = "lower train.max_length, set train.machine.gradient_checkpointing to on, or tune less (lora, qlora)"
                raise Broken(f"memory ran out in {what} after step {step}, with one row at a time: {said}", fix=fix)
            log.warning("memory ran out in %s after step %d: from now on %d rows at a time, not %d", what, step, now // 2, now)
            setattr(self, what, now // 2)


def _free_memory() -> None:
    """Give back what is held for nothing."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
