"""Soft prompts: vectors before the text (Lester et al., 2021), or keys and values before each layer's own (Li and Liang, 2021).

peft holds them. They start from tokens of the base's own vocabulary, drawn from torch's random state. A model that carries a soft
prompt carries nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model

from pipeline.domain.tuning import Output
from pipeline.errors import Misuse
from pipeline.modeling.adapters.handshake import NAME, Shape
from pipeline.modeling.loading import context_length, head_modules, inference
from pipeline.params import StageParams

_FAINT = 0.02
"""Spread of a prefix for a base without a cache of keys and values to take it from, as weights of such bases have at first."""


def soft_shape(model: Any, stage: StageParams, output: Output) -> Shape:
    """The soft prompt that `stage` asks for on the bare `model`. Raises Misuse when it leaves no room for text."""
    room, tokens = context_length(model), stage.soft_prompt.tokens
    if room is not None and tokens >= room:
        what = f"the base has room for {room} tokens, and the prompt takes {tokens}"
        raise Misuse(what, where="train.soft_prompt.tokens", fix=f"fewer than {room}")
    head = tuple(sorted(head_modules(model, output)))
    return Shape(tuner=stage.tuner, output=output, soft_prompt=stage.soft_prompt.kind, tokens=tokens, head=head)


def soft_config(shape: Shape, *, frozen: bool = False) -> PromptTuningConfig | PrefixTuningConfig:
    """peft's configuration of it; sizes that follow from the base are left for peft to fill in."""
    options: dict[str, Any] = {
        "task_type": TaskType.CAUSAL_LM if shape.output is Output.TEXT else TaskType.SEQ_CLS,
        "num_virtual_tokens": shape.tokens,
        "modules_to_save": list(shape.head) or None,
        "inference_mode": frozen,
    }
    return PrefixTuningConfig(**options) if shape.soft_prompt == "prefix" else PromptTuningConfig(**options)


def put_prompt(model: Any, shape: Shape, *, name: str = NAME, frozen: bool = False) -> Any:
    """The bare `model` with a soft prompt on it that is still to be filled. Raises Misuse where peft cannot put one on it."""
    try:
        return get_peft_model(model, soft_config(shape, frozen=frozen), adapter_name=name)
    except ValueError as error:
        what = f"no soft prompt can be put on this base: {error}"
        raise Misuse(what, where="train.tuner", fix="choose lora, last_layers or full") from error


def new_prompt(model: Any, shape: Shape) -> Any:
    """The bare `model` with a fresh trainable soft prompt: embeddings of random tokens, or what the layers make of such tokens.

    Prefixes far from what a layer is used to hardly learn (Li and Liang, 2021, section 7.4). Raises Misuse for a base whose
    layers take no keys and values from before.
    """
    place = next(model.parameters()).device
    ids = torch.randint(0, int(model.config.vocab_size), (1, shape.tokens)).to(place)
    prefix = _keys_and_values(model, ids) if shape.soft_prompt == "prefix" else None
    if shape.soft_prompt == "prefix":
        # With it the library would forget the keys and values from before: it raises where it knows that it cannot have it.
        model.supports_gradient_checkpointing = False
    tuned = put_prompt(model, shape)
    weight = tuned.prompt_encoder[NAME].embedding.weight
    with torch.no_grad():
        if shape.soft_prompt == "prompt":
            weight.data = tuned.word_embeddings(ids)[0].detach().float().clone()
        elif prefix is None:
            weight.normal_(std=_FAINT)
        elif prefix.shape == weight.shape:
            weight.copy_(prefix)
        else:
            what = f"the base's layers do not all keep keys and values of one size ({prefix.shape[1]}, not {weight.shape[1]})"
            raise Misuse(what, where="train.soft_prompt.kind", fix="choose prompt")
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    _try(tuned, ids)
    return tuned


def _try(tuned: Any, ids: torch.Tensor) -> None:
    """Raise Misuse where the base has no place for the prompt, which peft finds out when it is asked."""
    try:
        with inference():
            tuned(input_ids=ids[:, :1], attention_mask=torch.ones_like(ids[:, :1]))
    except ValueError as error:
        what = f"no such soft prompt can be put on this base: {error}"
        raise Misuse(what, where="train.soft_prompt.kind", fix="choose prompt, or another tuner") from error


def _keys_and_values(model: Any, ids: torch.Tensor) -> torch.Tensor | None:
    """What each layer of a decoder keeps of the tokens `ids`, as peft lays a prefix out: [tokens, layers * 2 * width].

    None for an encoder, which keeps nothing.
    """
    with torch.no_grad():
        kept = getattr(model, model.base_model_prefix)(input_ids=ids, use_cache=True)
    cache = getattr(kept, "past_key_values", None)
    if cache is None:
        return None
    sides: list[Any] = [getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values")]
    if any(side is None for side in sides):
        raise Misuse("some of the base's layers keep no keys and values", where="train.soft_prompt.kind", fix="choose prompt")
    return torch.cat([side[0].transpose(0, 1).flatten(1) for side in sides], dim=1).float()
