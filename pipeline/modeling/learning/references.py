"""How likely answers were before training: log-probabilities under the reference, computed once and kept by their content.

The reference is what the stage starts from. Where that is the bare base, a fresh adapter is switched off for it, so the same base
and rows need asking once, whatever adapter is trained.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.modeling.learning.encoded import FromItems
from pipeline.modeling.loading import device_class
from pipeline.modeling.texts.kept import kept
from pipeline.modeling.texts.rows import Encoded


@dataclass(frozen=True, slots=True)
class Reference:
    """What a stage starts from. start: its digest. bare: whether it is the base itself, without anything. how: what else decides
    the numbers (quantised or not). cache: the folder where they are kept; None keeps nothing."""

    start: str
    bare: bool
    how: str = ""
    cache: Path | None = None

    def log_probs(self, learner: FromItems, side: Encoded) -> npt.NDArray[np.float32]:
        """FromItems.log_probs of `side` with the reference in the place of the learner's model: [items, rows of an item]."""
        model = learner.model
        of = {
            "reference": self.start,
            "how": [self.how, "" if self.bare else learner.stage.tuner],
            "rows": side.digest,
            "batched": learner.batched,
            "attention": getattr(model.config, "_attn_implementation", ""),
            "numbers": str(next(model.parameters()).dtype),
            "device": device_class(),
            "threads": torch.get_num_threads(),
            "versions": [importlib.metadata.version(name) for name in ("torch", "transformers", "peft")],
        }

        def make(sink: IO[bytes]) -> None:
            with _as_reference(model, bare=self.bare):
                found = learner.log_probs(side)
            sink.write(np.ascontiguousarray(found, np.float32).tobytes())

        return np.frombuffer(kept(self.cache, of, make), np.float32).reshape(side.row_lengths.shape).copy()


@contextlib.contextmanager
def _as_reference(model: Any, *, bare: bool) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with model.disable_adapter() if bare and hasattr(model, "disable_adapter") else contextlib.nullcontext():
            yield
    finally:
        model.train(was_training)
