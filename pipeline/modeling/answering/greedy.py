"""The likeliest answer, token by token, for a batch of prompts: the same as for each by itself, whatever is tuned.

What prompts share is computed once. A row that has ended leaves the batch, so that the others go on faster. Prompts of a batch
are padded between what they share and what is their own: everything stands next to the text that it follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.cache_utils import Cache

from pipeline.modeling.answering.by_library import answered
from pipeline.modeling.answering.prefixes import CALL, grouped
from pipeline.modeling.answering.states import bare_of, beginning, shareable, spread
from pipeline.modeling.loading import device, inference
from pipeline.modeling.texts.rows import by_length, pad

Ended = Callable[[list[int]], bool]
"""Whether an answer of these ids is whole, for another reason than an end token."""


def generation(max_new_tokens: int, ends: tuple[int, ...], pad_id: int) -> GenerationConfig:
    """Greedy search, up to one of the ids `ends`."""
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(ends),
        pad_token_id=pad_id,
    )


def greedy(
    model: Any,
    prompts: list[list[int]],
    how: GenerationConfig,
    *,
    batch_size: int = 32,
    ended: Ended | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """New ids for each prompt, its end token included. told: is called with how many prompts are done."""
    found: list[list[int]] = [[] for _ in prompts]
    done = 0
    able = shareable(model)
    # A batch takes as many calls as its longest answer has tokens, so a group that fills no batch must save a lot.
    call = CALL + 4 * how.max_new_tokens
    for group in grouped(prompts, batch_size=batch_size, call=call):
        rests = [prompts[place][group.length :] for place in group.places]
        states = None
        if able:
            with inference():
                states = beginning(model, prompts[group.places[0]][: group.length])
        for batch in by_length([len(ids) for ids in rests], batch_size):
            places = [group.places[n] for n in batch]
            with inference():
                if able:
                    made = _answered(bare_of(model), states, [rests[n] for n in batch], how, ended)
                else:
                    made = answered(model, [prompts[place] for place in places], how)
            for place, ids in zip(places, made, strict=True):
                found[place] = ids
            done += len(batch)
            told(done)
    return found


def _answered(
    bare: Any, beginning: Cache | None, rests: list[list[int]], how: GenerationConfig, ended: Ended | None
) -> list[list[int]]:
    """Go on from `beginning` with each of `rests`, all of them at once, until each has ended."""
    batch = {name: tensor.to(device()) for name, tensor in pad(rests, how.pad_token_id, left=True).items()}
    states, before = spread(beginning, len(rests), batch["input_ids"].shape[1] + how.max_new_tokens)
    ahead = torch.ones(len(rests), before, dtype=torch.bool, device=device())
    own = batch["attention_mask"].bool()
    seen = torch.cat([ahead, own], 1)
    places = (own.long().cumsum(1) - 1).clamp(min=0) + before
    even = bool(own.all())
    logits = _next(bare, batch["input_ids"], places, states, None if even else seen)
    made: list[list[int]] = [[] for _ in rests]
    live, ends = list(range(len(rests))), set(how.eos_token_id)
    following = places[:, -1:] + 1
    while True:
        ids = logits.argmax(-1)
        going = []
        for at, (row, token) in enumerate(zip(live, ids.tolist(), strict=True)):
            if row >= 0:
                made[row].append(token)
                if len(made[row]) < how.max_new_tokens and token not in ends and not (ended and ended(made[row])):
                    going.append(at)
        if not going:
            return made
        if len(going) <= len(live) * 3 // 4:  # copying what is kept costs something: not for each row that ends
            chosen = torch.tensor(going, device=device())
            states.batch_select_indices(chosen)
            ids, following, seen = ids[chosen], following[chosen], seen[chosen]
            live = [live[at] for at in going]
        else:
            still = set(going)
            live = [row if at in still else -1 for at, row in enumerate(live)]
        if not even:
            seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
        logits = _next(bare, ids.unsqueeze(1), following, states, None if even else seen[:, None, None, :])
        following = following + 1


def _next(bare: Any, ids: torch.Tensor, places: torch.Tensor, states: Cache, mask: torch.Tensor | None) -> torch.Tensor:
    """Logits [rows, vocabulary] of what follows the last of `ids`."""
    made = bare(input_ids=ids, position_ids=places, attention_mask=mask, past_key_values=states, use_cache=True, logits_to_keep=1)
    return made.logits[:, -1]
