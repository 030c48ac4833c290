"""What the loop asks of whatever is to be learned: items in an order, batches of them, a loss, a measurement.

One implementation an objective stands in this folder; the arithmetic of their losses is objectives/'s. The loop (loop.py) owns
steps, gradients, checkpoints and memory, and knows no objective.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Losses:
    """What a batch came to. total: the summed loss of its units, differentiable, a scalar. measures: sums over the same units,
    for the curves, tensors where they lie on a GPU that need not be waited for yet; the loop divides both by the units of the
    whole step, so a step is the same however it is cut into batches."""

    total: torch.Tensor
    measures: Mapping[str, float | torch.Tensor] = field(default_factory=dict)


class Order(Protocol):
    """In which order items are drawn: a function of seed and epoch alone, so that a resumed training sees the same."""

    epoch: int

    def __len__(self) -> int:
        """Items of an epoch."""
        ...

    def __iter__(self) -> Iterator[int]: ...


class Learner(Protocol):
    """An objective at work on one model and its data."""

    model: nn.Module
    """Holds every trainable parameter; what the Trainer is given."""
    order: Order
    rows: int
    """At most so many items may be in memory at once. The loop sets it before prepare and before each step, and lowers it when
    memory ran out: what was being done (prepare; begin_step and what follows it) is then done again from its beginning."""

    def prepare(self) -> None:
        """Called once before the first step and before any resume, with the model as it starts: reference log-probabilities and
        the like. Must give the same each time."""
        ...

    def begin_step(self, step: int, places: Sequence[int]) -> None:
        """Called before the gradients of optimizer step `step` (from 1) over the items at `places`: what has to be known of the
        whole step (kto's divergence) or made for it (ppo's answers). May use the model without gradients."""
        ...

    def lengths(self, places: Sequence[int]) -> list[int]:
        """Tokens of the items at `places`: what a batch of them costs."""
        ...

    def units(self, places: Sequence[int]) -> float:
        """How many units (tokens with loss, rows, pairs) losses at `places` are summed over; known without the model."""
        ...

    def batch(self, places: Sequence[int]) -> Batch:
        """The items at `places` as tensors on the CPU."""
        ...

    def losses(self, batch: Batch) -> Losses:
        """Loss of a batch that lies on the model's device, in training mode; see Losses."""
        ...

    def evaluate(self, batch_size: int) -> dict[str, float]:
        """Measures on the eval split, `eval_loss` among them, without gradients, without dropout and smoothing; {} when it is
        empty. The model comes in eval mode. Must not touch random state that training uses."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """What a resume needs beyond weights and random state (ppo's answers and coefficient), CPU tensors by name."""
        ...

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up where `state` left off."""
        ...

    def closing(self) -> tuple[dict[str, float], tuple[str, ...]]:
        """At the end, with the weights that are kept and in eval mode: measures for the record, and alarms, a sentence each."""
        ...


@runtime_checkable
class OwnRates(Protocol):
    """A learner of which some parameters have a learning rate of their own; the scheduler moves it as it does the stage's."""

    def rate(self, name: str) -> float | None:
        """Of the parameter of `model` that is called so; None: the stage's."""
        ...


class Penalty(Protocol):
    """Something added to the loss of every step whatever the objective: elastic weight consolidation."""

    def __call__(self, model: Any) -> torch.Tensor:
        """The penalty at the model's present weights, differentiable, a scalar."""
        ...
