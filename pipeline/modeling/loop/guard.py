"""Stops a training whose numbers have gone bad, in the step in which they do.

A logged loss is no evidence: the library logs NaN as 0.0. So the raw loss is looked at before it is differentiated, the
gradient before it is applied, and the weights after. Only checks here; what happens next is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from pipeline.errors import TrainingDiverged

_FIX = "lower train.learning_rate or train.alpha, raise train.warmup_share, or look at the rows of this step"


def check_loss(loss: torch.Tensor, *, step: int, what: str = "loss") -> None:
    """Raise TrainingDiverged unless the loss (any shape) is finite."""
    if not bool(torch.isfinite(loss).all()):
        raise TrainingDiverged(f"the {what} became {_kind(loss)} in step {step}", fix=_FIX)


def check_measures(measures: Mapping[str, float], *, step: int) -> None:
    """Raise TrainingDiverged, naming the first bad one, unless all numbers are finite."""
    for name, value in measures.items():
        if not math.isfinite(value):
            raise TrainingDiverged(f"the measure {name} became {'NaN' if math.isnan(value) else 'Inf'} in step {step}", fix=_FIX)


def check_gradient(norm: float, model: nn.Module, *, step: int) -> None:
    """Raise TrainingDiverged, naming the first bad tensor, unless the norm over all gradients is finite."""
    if math.isfinite(norm):
        return
    bad = _first_bad((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    raise TrainingDiverged(f"the gradient{bad} became {'NaN' if math.isnan(norm) else 'Inf'} in step {step}", fix=_FIX)


def check_weights(model: nn.Module, *, step: int) -> None:
    """Raise TrainingDiverged, naming the first bad tensor, unless all trainable weights are finite."""
    weights = [p.detach() for p in model.parameters() if p.requires_grad]
    # One number for all tensors, so that a GPU is waited for once.
    total = torch.stack([norm.float() for norm in torch._foreach_norm(weights)]).sum()
    if not bool(torch.isfinite(total)):
        bad = _first_bad((name, p.detach()) for name, p in model.named_parameters() if p.requires_grad)
        raise TrainingDiverged(f"the weights{bad} became {_kind(total)} in step {step}", fix=_FIX)


def _first_bad(tensors: object) -> str:
    for name, tensor in tensors:  # type: ignore[attr-defined]
        if not bool(torch.isfinite(tensor).all()):
            return f" of {name}"
    return ""


def _kind(values: torch.Tensor) -> str:
    return "NaN" if bool(torch.isnan(values).any()) else "Inf"
