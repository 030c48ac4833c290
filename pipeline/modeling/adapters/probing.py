"""Asks a tuned model a fixed question, and measures what its tuning changes in the answer.

The answer goes into the handshake and is asked for again whenever the adapter is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from pipeline.domain.tuning import Tuner
from pipeline.modeling.adapters.handshake import NAME, Shape
from pipeline.modeling.loading import inference

_ROWS, _PLACES = 2, 12


@dataclass(frozen=True, slots=True)
class Probe:
    """What the fixed question gives. values: some logits, for the handshake. change: largest difference that tuning makes."""

    values: tuple[float, ...]
    change: float
    finite: bool


def probe(model: Any, shape: Shape, *, name: str = NAME, bare: torch.Tensor | None = None) -> Probe:
    """Logits on two fixed rows, and how far they are from those without the tuning.

    A LoRA's part is scaled to nothing, a soft prompt left out: the head stays in place for both, so that labels are not fooled
    by a new head alone. Of tuned weights the last hidden states are compared with `bare`, those of the base (bare_states).
    """
    ids = _ids(model)
    was_training = model.training
    model.eval()
    try:
        with inference():
            on, change = _on_and_change(model, ids, shape, name, bare)
    finally:
        model.train(was_training)
    finite = bool(torch.isfinite(on).all())
    values = tuple(float(f"{v:.3e}") for v in on[:, :8].flatten().tolist()) if finite else ()
    return Probe(values=values, change=change, finite=finite)


def bare_states(model: Any) -> torch.Tensor:
    """Last hidden states of a bare model's body on the fixed rows: [rows, places, hidden], fp32 on the CPU."""
    ids, was_training = _ids(model), model.training
    model.eval()
    with inference():
        states = getattr(model, model.base_model_prefix)(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    model.train(was_training)
    return torch.as_tensor(states).float().cpu()


def _on_and_change(
    model: Any, ids: torch.Tensor, shape: Shape, name: str, bare: torch.Tensor | None
) -> tuple[torch.Tensor, float]:
    if not shape.has_peft:
        change = float((bare_states(model) - bare).abs().max()) if bare is not None else 0.0
        return _logits(model, ids), change
    if shape.tuner is Tuner.SOFT_PROMPT:
        on = _logits(model, ids)
        return on, float((on - _logits(model.get_base_model(), ids)).abs().max())
    layers = [m for m in model.modules() if isinstance(m, LoraLayer) and name in m.scaling]
    scales = [layer.scaling[name] for layer in layers]
    was_active = model.active_adapter
    if was_active != name:
        model.set_adapter(name, inference_mode=True)
    try:
        on = _logits(model, ids)
        for layer in layers:
            layer.scaling[name] = 0.0
        off = _logits(model, ids)
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[name] = scale
        if was_active != name:
            model.set_adapter(was_active, inference_mode=True)
    return on, float((on - off).abs().max())


def _ids(model: Any) -> torch.Tensor:
    vocabulary = int(model.config.vocab_size)
    rows = [[(i * 7919 + row * 104729 + 13) % vocabulary for i in range(_PLACES)] for row in range(_ROWS)]
    return torch.tensor(rows, device=next(model.parameters()).device)


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The last place's logits (text), or the row's (labels, score), fp32 on the CPU: [rows, vocabulary or labels or 1]."""
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return torch.as_tensor(logits[:, -1] if logits.dim() == 3 else logits).float().cpu()
