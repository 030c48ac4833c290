"""kto at work: to give good answers and not bad ones, each judged by itself. A unit is an answer.

How far the model has moved from its reference at all is told by answers to other questions: each question is put with the answer
of the row before it, whatever the order of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.modeling.forward import answer_log_probs
from pipeline.modeling.learning.encoded import FromItems
from pipeline.modeling.learning.learner import Batch, Losses
from pipeline.modeling.learning.references import Reference
from pipeline.modeling.objectives.preference import kto_divergence, kto_loss
from pipeline.modeling.texts.rows import IGNORED, Encoded, Item, Row, by_length, of_items


class Judged(FromItems):
    """Single rows, each marked good or bad. reference: what the stage starts from; see pairs.Preferred."""

    def __init__(self, *given: Any, reference: Reference, **named: Any) -> None:
        super().__init__(*given, **named)
        self._reference = reference
        self._sides = {name: _Side(side, self.stage.max_length) for name, side in (("train", self.train), ("held", self.held))}
        self._divergence = 0.0

    def prepare(self) -> None:
        for side in self._sides.values():
            side.before = self._reference.log_probs(self, side.encoded)[:, 0]
            side.before_mismatched = self._reference.log_probs(self, side.mismatched)[:, 0]

    def begin_step(self, step: int, places: Sequence[int]) -> None:
        """The divergence over the whole step, so that it does not hang on how the step is cut."""
        self._divergence = self._moved(self._sides["train"], places, min(self.rows, self.stage.batch_size))

    def batch_of(self, side: Encoded, places: Sequence[int]) -> Batch:
        batch = super().batch_of(side, places)
        own = next((one for one in self._sides.values() if one.encoded is side), None)
        if own is None or not len(own.before):
            return batch
        at = list(places)
        return batch | {"before": torch.from_numpy(own.before[at]), "good": torch.from_numpy(own.good[at])}

    def losses(self, batch: Batch) -> Losses:
        return Losses(*self._loss(batch, self._divergence))

    def evaluate(self, batch_size: int) -> dict[str, float]:
        """eval_loss; eval_accuracy: answers that have moved to the right side of the divergence; eval_margin: how far, times
        beta; eval_divergence over the whole split."""
        if not len(self.held):
            return {}
        divergence = self._moved(self._sides["held"], range(len(self.held)), batch_size)
        totals = dict.fromkeys(("loss", "accuracy", "margin"), 0.0)
        for _, batch in self.asked(self.held, batch_size):
            loss, measures = self._loss(batch, divergence)
            for name, value in {"loss": loss, **measures}.items():
                totals[name] += float(value)
        return {f"eval_{name}": value / len(self.held) for name, value in totals.items()} | {"eval_divergence": divergence}

    def _loss(self, batch: Batch, divergence: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss and measures summed over answers."""
        ratios, chosen = answer_log_probs(self.model, batch) - batch["before"], self.stage.kto
        loss = kto_loss(
            ratios,
            batch["good"],
            divergence,
            beta=chosen.beta,
            desirable_weight=chosen.desirable_weight,
            undesirable_weight=chosen.undesirable_weight,
        )
        margin = chosen.beta * (ratios.detach() - divergence) * (batch["good"] * 2 - 1)
        return loss.sum(), {"accuracy": (margin > 0).sum(), "margin": margin.sum()}

    def _moved(self, side: _Side, places: Sequence[int], batch_size: int) -> float:
        """The divergence by the mismatched rows at `places`, in eval mode, which no random state is touched by."""
        was_training = self.model.training
        self.model.eval()
        try:
            lengths = side.mismatched.lengths
            found = np.zeros(len(places), np.float32)
            batches = by_length([lengths[place] for place in places], batch_size)
            for some, batch in self.on_device(side.mismatched, batches, of=places):
                found[some] = answer_log_probs(self.model, batch).cpu().numpy()
        finally:
            self.model.train(was_training)
        return kto_divergence(torch.from_numpy(found - side.before_mismatched[list(places)]))


class _Side:
    """The answers of one side, each question beside the answer of another, and what the reference makes of both."""

    def __init__(self, encoded: Encoded, max_length: int) -> None:
        self.encoded = encoded
        self.mismatched = of_items(_mismatched(encoded, max_length))
        self.good: npt.NDArray[np.bool_] = encoded.extra["good"].astype(bool)
        self.before: npt.NDArray[np.float32] = np.zeros(0, np.float32)
        self.before_mismatched: npt.NDArray[np.float32] = np.zeros(0, np.float32)


def _mismatched(encoded: Encoded, max_length: int) -> Iterator[Item]:
    """Each item's question with the answer of the nearest item before it, going round, that was made of another row; its own
    where there is none. An answer that does not fit loses its end."""
    origin = encoded.extra["origin"]
    for at in range(len(encoded)):
        other = at - 1
        while origin[other] == origin[at] and other > at - len(encoded):
            other -= 1
        [asked], [answered] = encoded[at], encoded[other % len(encoded)]
        prompt, start = asked.input_ids[: _answer_start(asked)], _answer_start(answered)
        room = start + max(max_length - len(prompt), 1)
        yield [Row(prompt + answered.input_ids[start:room], [IGNORED] * len(prompt) + answered.labels[start:room])]


def _answer_start(row: Row) -> int:
    return next(at for at, label in enumerate(row.labels) if label != IGNORED)
