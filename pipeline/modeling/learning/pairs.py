"""dpo and orpo at work: to prefer the better of two answers. A unit is a pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.modeling.forward import answer_log_probs, label_log_probs, row_sums, token_logits
from pipeline.modeling.learning.encoded import FromItems
from pipeline.modeling.learning.learner import Batch, Losses
from pipeline.modeling.learning.references import Reference
from pipeline.modeling.objectives.preference import dpo_loss, log_odds, odds_loss
from pipeline.modeling.texts.rows import IGNORED, Encoded


class Preferred(FromItems):
    """dpo: pairs, the better answer first in each, beside how likely both were at the start.

    reference: what the stage starts from; its log-probabilities are computed in prepare, once for the same rows and start.
    """

    def __init__(self, *given: Any, reference: Reference, **named: Any) -> None:
        super().__init__(*given, **named)
        self._reference = reference
        self._before: dict[bool, npt.NDArray[np.float32]] = {}

    def prepare(self) -> None:
        for side in (self.train, self.held):
            self._before[side is self.train] = self._reference.log_probs(self, side)

    def batch_of(self, side: Encoded, places: Sequence[int]) -> Batch:
        batch, before = super().batch_of(side, places), self._before.get(side is self.train)
        return batch if before is None else batch | {"before": torch.from_numpy(before[list(places)].T.flatten())}

    def losses(self, batch: Batch) -> Losses:
        return Losses(*self._loss(batch))

    def evaluate(self, batch_size: int) -> dict[str, float]:
        """eval_loss, without smoothing; eval_accuracy: pairs of which the better answer has become the likelier one;
        eval_margin: by how much, times beta."""
        totals = dict.fromkeys(("loss", "accuracy", "margin"), 0.0)
        for _, batch in self.asked(self.held, batch_size):
            loss, measures = self._loss(batch, smoothed=False)
            for name, value in {"loss": loss, **measures}.items():
                totals[name] += float(value)
        return {f"eval_{name}": value / len(self.held) for name, value in totals.items()} if len(self.held) else {}

    def _loss(self, batch: Batch, *, smoothed: bool = True) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss and measures summed over pairs."""
        better, worse = (answer_log_probs(self.model, batch) - batch["before"]).chunk(2)
        better_tokens, worse_tokens = batch["tokens"].chunk(2)
        chosen = self.stage.dpo
        loss = dpo_loss(
            better,
            worse,
            beta=chosen.beta,
            kind=chosen.loss,
            smoothing=chosen.label_smoothing if smoothed else 0.0,
            tokens=(better_tokens, worse_tokens),
        )
        margin = chosen.beta * (better - worse).detach()
        return loss.sum(), {"accuracy": (margin > 0).sum(), "margin": margin.sum()}


class Odds(FromItems):
    """orpo: pairs, of which the whole better text is learned, and its answer's odds are raised above the worse one's."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._better_tokens = self.train.row_lengths[:, 0] - 1 if len(self.train) else np.zeros(0, np.int64)
        self._weight = 1.0

    def begin_step(self, step: int, places: Sequence[int]) -> None:
        """The texts' loss is a mean over the tokens of the step, the odds' over its pairs."""
        self._weight = len(places) / float(self._better_tokens[list(places)].sum())

    def batch_of(self, side: Encoded, places: Sequence[int]) -> Batch:
        """Beside the rows, `answer`: which of the predicted tokens belong to answers. The worse text has labels there alone, and
        the same prompt."""
        items = [side[place] for place in places]
        better, worse = [item[0] for item in items], [item[1] for item in items]
        starts = [next(at for at, label in enumerate(row.labels) if label != IGNORED) for row in worse]
        marks = [np.arange(1, len(row.labels)) >= start for row, start in zip(better, starts, strict=True)]
        rest = sum(sum(label != IGNORED for label in row.labels[1:]) for row in worse)
        answer = torch.from_numpy(np.concatenate([*marks, np.ones(rest, bool)]))
        return self.together(better + worse) | {"answer": answer}

    def losses(self, batch: Batch) -> Losses:
        text, odds, measures = self._parts(batch)
        return Losses(text * self._weight + odds, measures)

    def evaluate(self, batch_size: int) -> dict[str, float]:
        """eval_loss; eval_accuracy: pairs of which the better answer is the likelier a token; eval_margin: the log of how many
        times its odds are the other's."""
        if not len(self.held):
            return {}
        totals = dict.fromkeys(("text", "odds", "accuracy", "margin"), 0.0)
        for _, batch in self.asked(self.held, batch_size):
            text, odds, measures = self._parts(batch)
            for name, value in {"text": text, "odds": odds, **measures}.items():
                totals[name] += float(value)
        pairs, tokens = len(self.held), float((self.held.row_lengths[:, 0] - 1).sum())
        loss = totals["text"] / tokens + totals["odds"] / pairs
        return {"eval_loss": loss, "eval_accuracy": totals["accuracy"] / pairs, "eval_margin": totals["margin"] / pairs}

    def _parts(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Summed: the better texts' loss over tokens, the odds' over pairs, and measures over pairs."""
        logits, targets, owners = token_logits(self.model, batch)
        log_probs = label_log_probs(logits, targets)
        rows = len(batch["tokens"])
        answer = batch["answer"].to(log_probs.dtype)
        means = row_sums(log_probs * answer, owners, rows) / row_sums(answer, owners, rows)
        better, worse = means.chunk(2)
        odds = self.stage.orpo.beta * odds_loss(better, worse)
        text = -log_probs[owners < rows // 2].sum()
        with torch.no_grad():
            return text, odds.sum(), {"accuracy": (better > worse).sum(), "margin": log_odds(better, worse).sum()}
