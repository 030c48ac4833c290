"""classify at work: the label of a text. A unit is a row."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.modeling.forward import pooled_logits
from pipeline.modeling.learning.encoded import FromItems
from pipeline.modeling.learning.learner import Batch, Losses
from pipeline.modeling.objectives.classes import label_loss, labels_right
from pipeline.modeling.texts.rows import Encoded


class Labels(FromItems):
    """Learns the one label of single rows."""

    per_token = False

    def batch_of(self, side: Encoded, places: Sequence[int]) -> Batch:
        labels = torch.tensor([side[place][0].labels[0] for place in places], dtype=torch.long)
        return super().batch_of(side, places) | {"labels": labels}

    def losses(self, batch: Batch) -> Losses:
        return Losses(label_loss(pooled_logits(self.model, batch), batch["labels"], smoothing=self.stage.label_smoothing))

    def evaluate(self, batch_size: int) -> dict[str, float]:
        """eval_loss: cross entropy a row; eval_accuracy."""
        loss, right = 0.0, 0
        for _, batch in self.asked(self.held, batch_size):
            logits = pooled_logits(self.model, batch)
            loss += float(label_loss(logits, batch["labels"]))
            right += int(labels_right(logits, batch["labels"]))
        rows = len(self.held)
        return {"eval_loss": loss / rows, "eval_accuracy": right / rows} if rows else {}
