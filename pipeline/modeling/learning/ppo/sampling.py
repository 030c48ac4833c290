"""Answers drawn from a model: in batches, with its key-value cache, by numbers that are drawn beforehand.

Each answer has its own numbers, one a token, so what is drawn is a function of them and the model, not of the batch it lies in
nor of any random state; the global one is not touched. Whose model it is and what answers are for is not known here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from pipeline.modeling.loading import inference
from pipeline.modeling.texts.rows import by_length, pad

Chances = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn. ends: ids that end one; temperature: what logits are divided by."""

    max_new_tokens: int
    temperature: float
    ends: tuple[int, ...]
    pad_id: int


def chances(answers: int, tokens: int, *key: int) -> Chances:
    """Uniform numbers in [0, 1) as [answers, tokens], a function of `key` alone."""
    return np.random.default_rng(list(key)).random((answers, tokens))


def sample(model: Any, prompts: Sequence[list[int]], drawn: Chances, how: Sampling, *, rows: int) -> list[list[int]]:
    """An answer to each prompt, in their order, at most `rows` at a time: ids up to and with the first that ends it.

    model: a causal language model in eval mode, or a peft one. drawn: [prompts, max_new_tokens], see chances.
    """
    found: list[list[int]] = [[] for _ in prompts]
    with _plain(model, how) as config, inference():
        for places in by_length([len(ids) for ids in prompts], rows):
            batch = pad([prompts[n] for n in places], how.pad_id, left=True)
            place = model.device
            made = model.generate(
                **{name: tensor.to(place) for name, tensor in batch.items()},
                generation_config=config,
                logits_processor=LogitsProcessorList([_Drawn(drawn[places], how.temperature)]),
            )
            for n, ids in zip(places, made[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
                found[n] = _ended(ids, how.ends)
    return found


class _Drawn(LogitsProcessor):  # type: ignore[misc]
    """Leaves the one token that the next number falls on, for greedy search to take (inverse transform sampling)."""

    def __init__(self, drawn: Chances, temperature: float) -> None:
        self._drawn = torch.from_numpy(np.ascontiguousarray(drawn.T))
        self._temperature = temperature
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        below = torch.softmax(scores.double() / self._temperature, -1).cumsum(-1)
        aim = self._drawn[self._step].to(scores.device).unsqueeze(-1) * below[:, -1:]
        # The first token whose share ends above the number: never one of probability zero.
        picked = torch.searchsorted(below, aim, right=True).clamp(max=scores.shape[-1] - 1)
        self._step += 1
        return torch.full_like(scores, -torch.inf).scatter(-1, picked, 0.0)


@contextlib.contextmanager
def _plain(model: Any, how: Sampling) -> Iterator[GenerationConfig]:
    """Settings for generate, with what the base's own config says of sampling out of the way: gaps would be filled from it."""
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=how.max_new_tokens,
        eos_token_id=list(how.ends),
        pad_token_id=how.pad_id,
    )
    bare = getattr(model, "get_base_model", lambda: model)()
    own, bare.generation_config = bare.generation_config, GenerationConfig(pad_token_id=how.pad_id)
    try:
        yield config
    finally:
        bare.generation_config = own


def _ended(ids: list[int], ends: tuple[int, ...]) -> list[int]:
    last = next((n for n, i in enumerate(ids) if i in ends), len(ids) - 1)
    return ids[: last + 1]
