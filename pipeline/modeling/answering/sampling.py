"""Which token comes next, for rows that each have their own way to choose: the likeliest, or one that is drawn.

A row draws from a stream of random numbers of its own, so what it draws does not depend on who else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(slots=True)
class Choice:
    """How a row chooses. temperature 0: the likeliest. top_p: of the likeliest tokens that have this share together."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    _random: torch.Generator | None = None

    @property
    def draws(self) -> bool:
        return self.temperature > 0.0

    def number(self) -> float:
        """The next of this row's random numbers, in [0, 1)."""
        if self._random is None:
            self._random = torch.Generator().manual_seed(self.seed & (2**63 - 1))
        return float(torch.rand((), generator=self._random, dtype=torch.float64))


def choose(logits: torch.Tensor, choices: Sequence[Choice]) -> list[int]:
    """A token for each row of logits [rows, vocabulary]; what a row may not say is -inf there."""
    found: list[int] = logits.argmax(-1).tolist()
    rows = [row for row, choice in enumerate(choices) if choice.draws]
    if rows:
        drawn = _draw(logits[rows].float(), [choices[row] for row in rows])
        for row, token in zip(rows, drawn, strict=True):
            found[row] = token
    return found


def _draw(logits: torch.Tensor, choices: Sequence[Choice]) -> list[int]:
    column = {"dtype": torch.float64, "device": logits.device}
    heat = torch.tensor([max(choice.temperature, 1e-4) for choice in choices], **column).unsqueeze(1)
    shares = torch.tensor([choice.top_p for choice in choices], **column).unsqueeze(1)
    numbers = torch.tensor([choice.number() for choice in choices], **column).unsqueeze(1)
    chances, order = (logits.double() / heat).softmax(-1).sort(dim=-1, descending=True, stable=True)
    below = chances.cumsum(-1)
    kept = (below - chances < shares).long().sum(-1, keepdim=True).clamp(min=1)
    whole = below.gather(1, kept - 1)
    places = torch.minimum((below <= numbers * whole).long().sum(-1, keepdim=True), kept - 1)
    return order.gather(1, places).squeeze(1).tolist()  # type: ignore[no-any-return]
