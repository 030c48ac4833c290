"""reward at work: a number that is higher for the better of two answers. A unit is a pair."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest

from pipeline.modeling.forward import pooled_logits
from pipeline.modeling.learning.encoded import FromItems
from pipeline.modeling.learning.learner import Batch, Losses
from pipeline.modeling.objectives.preference import reward_loss

_SURE = 0.05
"""A p-value below this is taken for more than chance."""


class Scores(FromItems):
    """Learns from pairs, the better text first in each."""

    per_token = False

    def losses(self, batch: Batch) -> Losses:
        better, worse = self._scores(batch)
        loss = reward_loss(better, worse, centre=self.stage.reward.centre).sum()
        with torch.no_grad():
            measures = {"accuracy": (better > worse).sum(), "margin": (better - worse).sum(), "score": (better + worse).sum() / 2}
        return Losses(loss, measures)

    def evaluate(self, batch_size: int) -> dict[str, float]:
        """eval_loss; eval_accuracy: pairs of which the better one has the higher score; eval_margin between them; eval_score: the
        mean of all."""
        if not len(self.held):
            return {}
        better, worse = torch.from_numpy(self._held_scores(batch_size)).unbind(1)
        return {
            "eval_loss": float(reward_loss(better, worse, centre=self.stage.reward.centre).mean()),
            "eval_accuracy": float((better > worse).double().mean()),
            "eval_margin": float((better - worse).mean()),
            "eval_score": float(((better + worse) / 2).mean()),
        }

    def closing(self) -> tuple[dict[str, float], tuple[str, ...]]:
        """Pair accuracy on the eval split beside that of the rule that the longer answer wins, and an alarm unless it is better
        by more than chance (a one-sided sign test over the pairs on which they differ)."""
        if not len(self.held):
            return {}, ("there is no eval split: nobody knows whether the reward model is better than 'the longer answer wins'",)
        scores, lengths = self._held_scores(self.stage.eval_batch_size or self.stage.batch_size), self.held.row_lengths
        return against_length(scores, lengths)

    def _held_scores(self, batch_size: int) -> npt.NDArray[np.float32]:
        """Scores of the eval split: [pairs, 2]."""
        found = np.zeros((len(self.held), 2), np.float32)
        for places, batch in self.asked(self.held, batch_size):
            found[places] = torch.stack(self._scores(batch), 1).cpu().numpy()
        return found

    def _scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        better, worse = pooled_logits(self.model, batch).squeeze(-1).chunk(2)
        return better, worse


def against_length(scores: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Measures and alarms of scores and lengths, both [pairs, 2] with the better answer first. A tie is half right."""
    right, by_length = (np.sign(values[:, 0] - values[:, 1].astype(np.float64)) / 2 + 0.5 for values in (scores, lengths))
    won, lost = int((right > by_length).sum()), int((right < by_length).sum())
    p = float(binomtest(won, won + lost, alternative="greater").pvalue) if won + lost else 1.0
    measures = {"pair_accuracy": float(right.mean()), "longer_wins_accuracy": float(by_length.mean()), "longer_wins_p": p}
    if p < _SURE:
        return measures, ()
    return measures, (
        f"the reward model puts the better answer first in {right.mean():.1%} of {len(right)} held pairs, and 'the longer answer "
        f"wins' does so in {by_length.mean():.1%}: that it is better may be chance (p = {p:.2f})",
    )
