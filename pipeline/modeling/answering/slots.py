"""Keys and values of many answers under way, a slot each: every row has a length of its own, and rows come and go.

Rows stand close together at the beginning of the buffers, so that a step touches those that live and no others: whoever leaves is
replaced by the last one. What lies beyond a row's length is of others who left, and is masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

States = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, [heads, places, size]: what was read of one text."""


@dataclass(slots=True)
class _Cursor:
    """Where the next token of each row goes, and how far the longest row reaches with it."""

    rows: torch.Tensor
    places: torch.Tensor
    reach: int


class _SlotLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's buffers [slots, heads, places, size]; a token of each row is written at that row's own place."""

    def __init__(self, like: tuple[torch.Tensor, torch.Tensor], slots: int, room: int) -> None:
        super().__init__()
        self.lazy_initialization(*like)
        # Zeros, not whatever lay there: what is masked is still multiplied, by nothing, and nothing times NaN is NaN.
        self.held = [part.new_zeros((slots, part.shape[0], room, part.shape[2])) for part in like]
        self.cursor: _Cursor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        at = self.cursor
        assert at is not None
        for room, new in zip(self.held, (key_states, value_states), strict=True):
            room[at.rows, :, at.places] = new[:, :, 0]
        self.keys, self.values = (room[: len(at.rows), :, : at.reach] for room in self.held)
        return self.keys, self.values

    def before(self, cursor: _Cursor) -> None:
        """Get ready for a token of each row."""
        self.cursor = cursor
        self.keys, self.values = (room[: len(cursor.rows), :, : cursor.reach - 1] for room in self.held)

    def grow(self, slots: int, room: int) -> None:
        self.held = [_larger(part, slots, room) for part in self.held]


class Slots:
    """The memory of one model's rows. lengths: how many places each of them has taken, virtual ones included."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._layers: list[_SlotLayer] = []
        self._slots = self._room = 0

    def add(self, states: States) -> None:
        """One more row, behind all others, that begins with what was read."""
        length = states[0][0].shape[1]
        self._make_room(states, len(self.lengths) + 1, length + 1)
        for layer, own in zip(self._layers, states, strict=True):
            for room, part in zip(layer.held, own, strict=True):
                room[len(self.lengths), :, :length] = part
        self.lengths.append(length)

    def remove(self, row: int) -> None:
        """Forget a row; the last one takes its place."""
        last = len(self.lengths) - 1
        if row != last:
            length = self.lengths[last]
            for layer in self._layers:
                for room in layer.held:
                    room[row, :, :length] = room[last, :, :length]
            self.lengths[row] = length
        self.lengths.pop()

    def clear(self) -> None:
        """Forget all rows, and give their memory back."""
        self.lengths.clear()
        self._layers, self._slots, self._room = [], 0, 0

    def advance(self, device: torch.device) -> tuple[Cache, torch.Tensor, torch.Tensor | None]:
        """For a call with one token of each row: the memory, positions [rows, 1], and the mask, None where all are as long."""
        reach = max(self.lengths) + 1
        self._make_room(None, len(self.lengths), reach)
        places = torch.tensor(self.lengths, device=device)
        cursor = _Cursor(torch.arange(len(self.lengths), device=device), places, reach)
        for layer in self._layers:
            layer.before(cursor)
        mask = None
        if min(self.lengths) + 1 < reach:
            mask = (torch.arange(reach, device=device) <= places[:, None])[:, None, None, :]
        self.lengths = [length + 1 for length in self.lengths]
        return Cache(layers=list(self._layers)), places.unsqueeze(1), mask

    def _make_room(self, states: States | None, slots: int, room: int) -> None:
        if not self._layers:
            assert states is not None
            self._slots, self._room = max(4, slots), _rounded(room)
            self._layers = [_SlotLayer((keys, values), self._slots, self._room) for keys, values in states]
        elif slots > self._slots or room > self._room:
            self._slots = self._slots if slots <= self._slots else max(slots, 2 * self._slots)
            self._room = self._room if room <= self._room else _rounded(room)
            for layer in self._layers:
                layer.grow(self._slots, self._room)


def _rounded(room: int) -> int:
    """A little more than is needed, so that buffers do not grow with every token."""
    return (room + max(31, room // 4)) // 32 * 32 + 32


def _larger(part: torch.Tensor, slots: int, room: int) -> torch.Tensor:
    grown = part.new_zeros((slots, part.shape[1], room, part.shape[3]))
    grown[: part.shape[0], :, : part.shape[2]] = part
    return grown
