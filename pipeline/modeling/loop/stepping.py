"""One optimizer step's gradients, in as many pieces as memory asks for; the result does not depend on how many.

A step is a sum over units (tokens, rows, pairs) divided by how many there are in the whole step, so pieces only add up. When
memory runs out all of it is done again with smaller ones. Applying the gradients is the Trainer's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch

from pipeline.modeling.learning.learner import Batch, Learner, Penalty
from pipeline.modeling.loop.guard import check_loss, check_measures
from pipeline.modeling.loop.micro import Room, longest_first, pieces
from pipeline.modeling.loop.random_state import capture
from pipeline.modeling.parallel.ranks import ranks
from pipeline.modeling.parallel.sharding import sharded

_LOSS = ""
"""A name that no measure has."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step came to, a unit: the learner's loss, its measures, and the penalty among them where there is one."""

    loss: float = 0.0
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stepping:
    """How steps of one training are made. to_device, accelerator: the Trainer's. seed: the stage's."""

    learner: Learner
    penalty: Penalty | None
    room: Room
    accelerator: Any
    to_device: Callable[[Batch], Batch]
    seed: int

    def prepare(self) -> None:
        """Let the learner prepare."""

        def attempt() -> None:
            self.learner.rows = self.room.training
            self.learner.prepare()

        self.room.fit("training", attempt, step=0)

    def take(self, step: int, places: Sequence[int]) -> Outcome:
        """Put the gradients of `step` (from 1) over the items at `places` in place.

        Raises TrainingDiverged when the loss or a measure is no finite number: nothing has been applied by then.
        """
        before, attempts = capture(), count()

        def attempt() -> Outcome:
            if next(attempts):  # the Trainer has seen to the first
                before.restore()
                self.learner.model.zero_grad()
            return self._gradients(step, places)

        # Of a spread model nobody can do a step again alone: the others are in the midst of it.
        return attempt() if sharded(self.learner.model) else self.room.fit("training", attempt, step=step - 1)

    def evaluate(self, step: int) -> dict[str, float]:
        """What the learner measures on the eval split after `step`."""

        def attempt() -> dict[str, float]:
            self.learner.model.eval()
            with torch.no_grad(), self.accelerator.autocast():
                return self.learner.evaluate(self.room.evaluation)

        return self.room.fit("evaluation", attempt, step=step)

    def _gradients(self, step: int, places: Sequence[int]) -> Outcome:
        learner, others = self.learner, ranks()
        learner.rows = self.room.training
        others.draw_apart(self.seed, step)
        learner.begin_step(step, places)
        if not learner.model.training:  # to say so to each of its modules takes longer than a small model's step
            learner.model.train()
        units = learner.units(places) or 1.0
        sums: dict[str, Any] = {}
        ordered = longest_first(places, learner.lengths(places))
        mine = pieces(others.share(ordered), self.room.training)
        for piece in mine:
            batch = self.to_device(learner.batch(piece))
            with self.accelerator.autocast():
                losses = learner.losses(batch)
            self.accelerator.backward(losses.total / units)
            for name, value in {**losses.measures, _LOSS: losses.total.detach()}.items():
                sums[name] = sums.get(name, 0.0) + value
            del batch, losses
        if sharded(learner.model):
            self._keep_step(ordered, len(mine))
        means = {name: value / units for name, value in others.total({k: float(v) for k, v in sums.items()}).items()}
        # Looked at once a step, so that a GPU is waited for once.
        loss = means.pop(_LOSS)
        check_loss(torch.tensor(loss), step=step)
        check_measures(means, step=step)
        if not sharded(learner.model):
            others.sum_gradients(learner.model)
        if self.penalty is not None:
            means["penalty"] = self._penalise(self.penalty, step)
        return Outcome(loss, means)

    def _keep_step(self, ordered: Sequence[int], done: int) -> None:
        """Compute, for nothing, as often as the process with the most pieces: of a spread model each pass is a meeting of all."""
        most = -(-len(ordered) // ranks().count)
        for _ in range(done, -(-most // self.room.training)):
            batch = self.to_device(self.learner.batch(ordered[-1:]))
            with self.accelerator.autocast():
                losses = self.learner.losses(batch)
            self.accelerator.backward(losses.total * 0.0)

    def _penalise(self, penalty: Penalty, step: int) -> float:
        """Add the penalty's gradients, and give its value. It is of the weights alone, so each process adds the same."""
        value = penalty(self.learner.model)
        check_loss(value.detach(), step=step, what="penalty")
        if value.requires_grad:
            self.accelerator.backward(value)
        return float(value.detach())
