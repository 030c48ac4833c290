"""Loss of classify: how likely the right label is. Pure functions over logits."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy


def label_loss(logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
    """Cross entropy summed over rows, a scalar. logits [rows, labels], labels [rows].

    smoothing: so much of the target is spread over all labels (Szegedy et al., 2016).
    """
    return cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)


def labels_right(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How many rows have the greatest logit at their label, a scalar."""
    return (logits.argmax(-1) == labels).sum()
