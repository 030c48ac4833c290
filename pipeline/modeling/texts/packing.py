"""Whether several texts go into one sequence, and what a model can be trusted with: found out by asking it, not by its name."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from pipeline.errors import Misuse
from pipeline.modeling.loading import inference, virtual_tokens
from pipeline.params.train import StageParams

log = logging.getLogger(__name__)

_WORTH = 1.25
"""Packing has to save so many times the places of padding. In one sequence every token meets a mask as wide as the longest text,
and rows come grouped by length, so that there is little to save: measured on CPUs, less than this is slower."""
_LOOKED_AT = 200
"""Steps whose padding is counted."""


def packs(stage: StageParams, model: Any, lengths: Sequence[int], order: Iterable[int]) -> bool:
    """Whether rows of `lengths`, drawn in `order`, are packed: as stage.packing says; for `auto` where it is exact and pays.

    The answer is a function of the data, the params and the kind of model, never of a clock, so a resumed training packs as it
    did. Raises Misuse where packing is asked for and not exact.
    """
    if stage.packing == "off":
        return False
    if not _packs_exactly(model):
        if stage.packing == "auto":
            return False
        reason = "a soft prompt stands before every text" if virtual_tokens(model) else "texts in one sequence change one another"
        raise Misuse(f"rows cannot be packed for this model: {reason}", where="train.packing", fix="auto, or off")
    padded, packed = _places(np.asarray(lengths)[list(islice(order, _LOOKED_AT * stage.step_rows))], stage)
    pays = packed > 0 and padded > (1 if flat(model) else _WORTH) * packed
    log.info("padded, rows take %.2f times the places that they take packed", padded / max(packed, 1))
    return stage.packing == "on" or pays


def flat(model: Any) -> bool:
    """Whether packed texts go into a single sequence: flash attention knows from positions alone where each begins, but of one
    sequence only, and pays nothing for its length. Others pay for each token the width of the mask."""
    return "flash" in str(getattr(model.config, "_attn_implementation", ""))


def _packs_exactly(model: Any) -> bool:
    return not virtual_tokens(model) and sees_texts_apart(model)


def sees_texts_apart(model: Any) -> bool:
    """Whether a causal language model, given two texts in one sequence with positions that begin anew, gives the second the
    logits that it has alone, whatever the first is. Some models take no positions, or heed nothing but a mask."""
    first, other, second = _texts(model)
    rows = 1 if flat(model) else 2
    positions = torch.tensor([[*range(len(first)), *range(len(second))]] * rows, device=second.device)
    with _asked(model):
        try:
            behind = [
                model(input_ids=torch.cat([text, second]).expand(rows, -1), position_ids=positions, use_cache=False).logits
                for text in (first, other)
            ]
            alone = model(input_ids=second.expand(rows, -1), use_cache=False).logits
        except (TypeError, ValueError):
            return False
    behind = [logits[:, len(first) :] for logits in behind]
    close = 0.05 if alone.dtype == torch.bfloat16 else 1e-4
    near = bool((behind[0] - alone).abs().max() <= close * alone.abs().max())
    return bool(torch.equal(behind[0], behind[1])) and near


def looks_back_only(model: Any) -> bool:
    """Whether what comes later changes nothing before it, so that padding after a text needs no mask."""
    first, other, second = _texts(model)
    with _asked(model):
        batch = torch.stack([torch.cat([second, first]), torch.cat([second, other])])
        one, two = model(input_ids=batch, use_cache=False).logits[:, : -len(first)]
    return bool(torch.equal(one, two))


def _texts(model: Any) -> list[torch.Tensor]:
    vocabulary, device = int(model.config.get_text_config().vocab_size), next(model.parameters()).device
    random = np.random.default_rng(0)
    return [torch.from_numpy(random.integers(0, vocabulary, 7)).to(device) for _ in range(3)]


@contextlib.contextmanager
def _asked(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with inference():
            yield
    finally:
        model.train(was_training)


def _places(lengths: np.ndarray, stage: StageParams) -> tuple[int, int]:
    """Places that the first steps take padded and packed, padding included."""
    padded = packed = 0
    for start in range(0, len(lengths), stage.step_rows):
        step = np.sort(lengths[start : start + stage.step_rows])[::-1]
        for piece in (step[at : at + stage.batch_size] for at in range(0, len(step), stage.batch_size)):
            width = int(piece[0])
            padded += width * len(piece)
            packed += width * -(-int(piece.sum()) // width)
    return padded, packed
