"""What a model keeps of the text it has read (keys and values of its attention), held once and shared by what follows.

A soft prompt is the beginning of every text here: its states are made once, and no later call need know that there is one. Models
whose memory is of another kind (sliding windows, recurrent states) or that reckon positions their own way are not `shareable`:
they are asked by the library's own ways.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from pipeline.modeling.loading import device, virtual_tokens


def shareable(model: Any) -> bool:
    """Whether this model's states can be held and shared: plain attention over all before, positions as they are told."""
    bare = bare_of(model)
    if not {"position_ids", "past_key_values", "logits_to_keep"} <= set(inspect.signature(bare.forward).parameters):
        return False
    if getattr(bare.config, "is_encoder_decoder", False) or getattr(bare.config, "_attn_implementation", "") != "sdpa":
        return False
    layers = DynamicCache(config=bare.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def bare_of(model: Any) -> Any:
    """The model beneath a peft adapter; a LoRA acts within it, a soft prompt does not."""
    return getattr(model, "get_base_model", lambda: model)()


def pair_cost(model: Any) -> float:
    """About what it costs that one token looks at one other, in tokens that are read. In small models it is much.

    Fitted to one core (nanoseconds): 40 a thousand weights and 8,000 a layer for a token; 4 a head for a pair, and what its size
    adds. A GPU's share is smaller; only what is worth sharing hangs on it.
    """
    config = bare_of(model).config.get_text_config()
    layers, heads, hidden = config.num_hidden_layers, config.num_attention_heads, config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    weights = layers * hidden * (4 * hidden + 3 * inner)
    return float(layers * (4 * heads + hidden / 8) / (weights / 25 + 8000 * layers))


class Layer(DynamicLayer):  # type: ignore[misc]
    """Keys and values in a buffer with room to grow: the library's own copies all of them with every token."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self._room = [self.keys, self.values]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.keys.shape[2]
        after = before + key_states.shape[2]
        if after > self._room[0].shape[2]:
            self.hold([self.keys, self.values], after + max(16, before // 4) if before else after)
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, before:after] = new
        self.keys, self.values = (room[:, :, :after] for room in self._room)
        return self.keys, self.values

    def hold(self, states: Sequence[torch.Tensor], room: int) -> None:
        """Begin with these keys and values [rows, heads, places, size], copied, and room for `room` places."""
        if not self.is_initialized:
            self.lazy_initialization(*states)
        self._room = []
        for held in states:
            buffer = held.new_empty((*held.shape[:2], room, held.shape[3]))
            buffer[:, :, : held.shape[2]] = held
            self._room.append(buffer)
        self.keys, self.values = (buffer[:, :, : states[0].shape[2]] for buffer in self._room)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        room, length = self._room[0].shape[2], self.keys.shape[2]
        self.hold([part[:, :, :length][indices] for part in self._room], room)


def beginning(model: Any, shared: Sequence[int]) -> Cache | None:
    """States of one row: the soft prompt that is on `model`, if any, then the ids `shared`. None where there is neither."""
    bare, states = bare_of(model), None
    if virtual_tokens(model):
        if model.active_peft_config.peft_type == "PREFIX_TUNING":
            states = _held([(layer.keys, layer.values) for layer in model.get_prompt(batch_size=1).layers], 1, 0)
        else:
            states = _empty()
            vectors = model.get_prompt(batch_size=1).to(next(bare.parameters()).dtype)
            bare(inputs_embeds=vectors, past_key_values=states, use_cache=True, logits_to_keep=1)
    if shared:
        states = _empty() if states is None else states
        before = states.get_seq_length()
        ids = torch.tensor([list(shared)], device=device())
        positions = torch.arange(before, before + len(shared), device=device()).unsqueeze(0)
        bare(input_ids=ids, position_ids=positions, past_key_values=states, use_cache=True, logits_to_keep=1)
    return states


def spread(states: Cache | None, rows: int, room: int) -> tuple[Cache, int]:
    """The same beginning for each of `rows` rows, with room for so many places more; and how many places it takes."""
    if states is None:
        return _empty(), 0
    return _held([(layer.keys, layer.values) for layer in states.layers], rows, room), states.get_seq_length()


def _held(layers: Sequence[tuple[torch.Tensor, torch.Tensor]], rows: int, room: int) -> Cache:
    made = []
    for keys, values in layers:
        layer = Layer()
        layer.hold([part.expand(rows, -1, -1, -1) for part in (keys, values)], keys.shape[2] + room)
        made.append(layer)
    return Cache(layers=made)


def _empty() -> Cache:
    return Cache(layer_class_to_replicate=Layer)
