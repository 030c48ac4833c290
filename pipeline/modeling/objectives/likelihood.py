"""Losses of pretrain and sft: how likely the right tokens are. Pure functions over log-probabilities and logits."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy


def token_loss(logits: torch.Tensor, targets: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
    """Cross entropy summed over tokens, a scalar. logits [n, vocabulary], targets [n].

    smoothing: so much of the target is spread over the whole vocabulary (Szegedy et al., 2016), which is what both
    torch.nn.functional.cross_entropy and transformers' LabelSmoother compute.
    """
    return cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)


def tokens_right(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """How many targets have the greatest logit, a scalar."""
    return (logits.argmax(-1) == targets).sum()
