"""Plain text in ids, without a chat template: as lm-evaluation-harness's Hugging Face backend (0.4.13) puts it to a model.

Prompt and continuation are tokenised together and parted at the prompt's own length; spaces at the prompt's end go to the
continuation, where tokenizers want them. Its rules are followed to the id, so that its numbers can be compared with ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.errors import Misuse

_LOT = 1024
"""Texts that are tokenised at once."""


def ids_of(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts with what the tokenizer puts around a text by itself; a text that brings its start token gets no second."""
    start = tokenizer.decode([_start(tokenizer)])
    found: list[list[int]] = [[] for _ in texts]
    for special in (True, False):
        places = [place for place, text in enumerate(texts) if text.startswith(start) is not special]
        for low in range(0, len(places), _LOT):
            lot = places[low : low + _LOT]
            # Not padded, not cut, no questions asked of length: what does not fit is cut later, at its start.
            made = tokenizer([texts[place] for place in lot], add_special_tokens=special, verbose=False)["input_ids"]
            for place, ids in zip(lot, made, strict=True):
                found[place] = list(ids)
    return found


def pairs(tokenizer: Any, prompts: Sequence[str], choices: Sequence[Sequence[str]]) -> list[list[tuple[list[int], list[int]]]]:
    """For each prompt and each of its choices: the ids before, and those of the choice. Raises Misuse for an empty choice."""
    bare = [prompt.rstrip() for prompt in prompts]
    whole = [prompt + choice for prompt, some in zip(prompts, choices, strict=True) for choice in some]
    contexts = iter(ids_of(tokenizer, [text for text in bare if text]))
    together = iter(ids_of(tokenizer, [text for text, own in _with(whole, bare, choices) if own]))
    alone = iter(_without_start(tokenizer, [text for text, own in _with(whole, bare, choices) if not own]))
    found = []
    for own, some in zip(bare, choices, strict=True):
        context = next(contexts) if own else [_start(tokenizer)]
        row = []
        for choice in some:
            ids = next(together)[len(context) :] if own else next(alone)
            if not own and ids[:1] == context and len(ids) > 1:
                ids = ids[1:]
            if not ids:
                raise Misuse(f"the choice {choice[:60]!r} has no token of its own after its prompt", fix="leave no choice empty")
            row.append((context, ids))
        found.append(row)
    return found


def _with(whole: Sequence[str], bare: Sequence[str], choices: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Each prompt with choice, and the prompt alone."""
    owners = [own for own, some in zip(bare, choices, strict=True) for _ in some]
    return list(zip(whole, owners, strict=True))


def _without_start(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]] if texts else []


def _start(tokenizer: Any) -> int:
    """What a text without a prompt follows."""
    return int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)
