"""The random state that training draws from, as one value: of Python, numpy, torch and the GPU.

What must leave no trace in it (measuring, doing a step again) is put between a capture and a restore.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class RandomState:
    """All of it at one moment."""

    python: Any
    numpy: Any
    cpu: torch.Tensor
    cuda: torch.Tensor | None
    """Of the GPU in use. To ask for those of others would take memory on each."""

    def restore(self) -> None:
        """Draw again what was drawn since."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.random.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)


def capture() -> RandomState:
    """The present random state."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return RandomState(random.getstate(), np.random.get_state(), torch.random.get_rng_state(), cuda)


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Whatever is drawn within, the random state afterwards is that from before."""
    before = capture()
    try:
        yield
    finally:
        before.restore()
