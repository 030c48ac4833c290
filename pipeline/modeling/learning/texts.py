"""pretrain and sft at work: the next token of documents, the tokens of answers. A unit is a token that has a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.modeling.forward import token_logits
from pipeline.modeling.learning.encoded import FromItems
from pipeline.modeling.learning.learner import Batch, Losses
from pipeline.modeling.objectives.likelihood import token_loss, tokens_right


class Texts(FromItems):
    """Learns the labelled tokens of single rows."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._learned = self.train.learned

    def units(self, places: Sequence[int]) -> float:
        return float(self._learned[list(places)].sum())

    def losses(self, batch: Batch) -> Losses:
        logits, targets, _ = token_logits(self.model, batch)
        return Losses(token_loss(logits, targets, smoothing=self.stage.label_smoothing))

    def evaluate(self, batch_size: int) -> dict[str, float]:
        """eval_loss: cross entropy a token; eval_token_accuracy: share of tokens that are thought likeliest."""
        loss, right, tokens = 0.0, 0, 0
        for _, batch in self.asked(self.held, batch_size):
            logits, targets, _ = token_logits(self.model, batch)
            loss += float(token_loss(logits, targets))
            right += int(tokens_right(logits, targets))
            tokens += len(targets)
        if not len(self.held):
            return {}
        return {"eval_loss": loss / max(tokens, 1), "eval_token_accuracy": right / max(tokens, 1)}
