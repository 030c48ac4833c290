"""What answers are worth: the weighted sum of reward models, asked as adapters of the policy's base, and of checked rules.

A reward model's folder is admitted as strictly as any adapter's. It was trained as a sequence classifier with one number; its
LoRA has the same places on a causal model, whose body is the same, and its head stands beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.modeling.learning.ppo.cast import Cast
from pipeline.modeling.learning.ppo.rules import judged
from pipeline.modeling.loading import inference
from pipeline.modeling.rows import by_length, pad
from pipeline.params.train import RewardSource


@dataclass(frozen=True, slots=True)
class Worth:
    """Of answers, in their order. total: the weighted sum; parts: what each source gave before its weight, by its name."""

    total: torch.Tensor
    parts: dict[str, torch.Tensor]


def name_of(source: RewardSource) -> str:
    """What a source is called in curves: its reward stage or its rule."""
    return source.stage or str(source.rule)


def appraise(
    cast: Cast,
    sources: Sequence[RewardSource],
    texts: Sequence[list[int]],
    answers: Sequence[str],
    wanted: Sequence[str],
    *,
    pad_id: int,
    rows: int,
) -> Worth:
    """What each answer is worth. texts: ids of prompt and answer; answers: as text; wanted: what each row itself answers.

    rows: texts in memory at once. Scores are fp64 on the CPU.
    """
    total = torch.zeros(len(texts), dtype=torch.float64)
    parts = {}
    for source in sources:
        if source.stage is not None:
            found = scores(cast, source.stage, texts, pad_id=pad_id, rows=rows)
        else:
            found = torch.tensor(judged(source, answers, wanted), dtype=torch.float64)
        parts[name_of(source)] = found
        total += source.weight * found
    return Worth(total, parts)


def scores(cast: Cast, name: str, texts: Sequence[list[int]], *, pad_id: int, rows: int) -> torch.Tensor:
    """What the reward model `name` gives each text, fp64 on the CPU; the model is in eval mode."""
    found = torch.zeros(len(texts), dtype=torch.float64)
    place = cast.value_head.weight.device
    with inference():
        for places in by_length([len(ids) for ids in texts], rows):
            batch = {key: tensor.to(place) for key, tensor in pad([texts[n] for n in places], pad_id).items()}
            found[places] = cast.scores(name, batch).double().cpu()
    return found
