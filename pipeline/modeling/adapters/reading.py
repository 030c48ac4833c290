"""What a loaded model makes of whole texts: the likeliest of its labels, or the mean of its hidden states. It says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from pipeline.modeling.forward import pooled_logits
from pipeline.modeling.loading import device, inference
from pipeline.modeling.texts.rows import by_length, pad

Told = Callable[[int], None]
"""Is called with how many texts are done."""


def likeliest(model: Any, texts: Sequence[list[int]], *, pad_id: int, batch_size: int, told: Told) -> list[tuple[int, float]]:
    """For each text in ids the place of the label that the model finds likeliest, and its probability."""
    found = [(0, 0.0)] * len(texts)
    for places, batch in _batches(texts, pad_id, batch_size, told):
        scores, picks = pooled_logits(model, batch).softmax(-1).max(-1)
        for place, pick, score in zip(places, picks.tolist(), scores.tolist(), strict=True):
            found[place] = (pick, score)
    return found


def mean_states(model: Any, texts: Sequence[list[int]], *, pad_id: int, batch_size: int, told: Told) -> torch.Tensor:
    """Mean of the last hidden states over each text's tokens: [texts, hidden], fp32 on the CPU."""
    bare = getattr(model, "get_base_model", lambda: model)()
    found = torch.zeros(len(texts), model.config.hidden_size)
    for places, batch in _batches(texts, pad_id, batch_size, told):
        states = getattr(bare, bare.base_model_prefix)(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1)
        found[places] = ((states * mask).sum(1) / mask.sum(1)).cpu()
    return found


def _batches(
    texts: Sequence[list[int]], pad_id: int, batch_size: int, told: Told
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    done = 0
    for places in by_length([len(ids) for ids in texts], batch_size):
        batch = pad([texts[place] for place in places], pad_id)
        with inference():
            yield places, {name: tensor.to(device()) for name, tensor in batch.items()}
        done += len(places)
        told(done)
