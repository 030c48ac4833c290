"""Elastic weight consolidation: weights that mattered to what a stage starts from are held where they were.

Source: Kirkpatrick et al., 2017, "Overcoming catastrophic forgetting in neural networks". How much a weight mattered is the
diagonal of the Fisher information on old rows, here the empirical one: squared gradients of the rows' own losses. Which weights
learn is tuners/'s to say, and what a row's loss is the learner's.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import nn

from pipeline.domain.tuning import Objective
from pipeline.errors import Broken, Misuse
from pipeline.modeling.job import Job
from pipeline.modeling.learning.learner import Learner
from pipeline.modeling.loading import device_class, half_precision
from pipeline.modeling.loop.guard import check_measures
from pipeline.modeling.loop.micro import memory_ran_out
from pipeline.modeling.loop.random_state import untouched
from pipeline.modeling.loop.trained import trainable
from pipeline.modeling.parallel.ranks import ranks
from pipeline.modeling.texts.kept import kept
from pipeline.modeling.texts.rows import Encoded
from pipeline.ports import Progress, silent

log = logging.getLogger(__name__)

VERSION = 1
"""Raise it when the same rows and weights give other numbers: what was kept before is then made again."""
_NO_MATTER = {
    "name", "start", "kinds", "mix", "epochs", "max_steps", "batch_size", "gradient_accumulation", "eval_batch_size", "seed",
    "learning_rate", "scheduler", "warmup_share", "adam_beta2", "weight_decay", "max_grad_norm", "neftune_alpha", "dropout",
    "logging_steps", "eval_steps", "save_steps", "keep_checkpoints", "keep", "early_stopping", "overfitting", "ewc", "ppo",
}  # fmt: skip
"""Params of a stage that a row's loss before the first step does not hang on."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A learner.Penalty: weight / 2 * sum of fisher * (w - start) ** 2 over all weights that learn.

    fisher, start: by the weight's name, of its shape, fp32, on its device. With weight 1 it is, to second order, how much the
    mean loss of the old rows has risen: they then count as much as what is learned.
    """

    weight: float
    fisher: Mapping[str, torch.Tensor]
    start: Mapping[str, torch.Tensor]

    def __call__(self, model: Any) -> torch.Tensor:
        weights = trainable(model)
        parts = []
        for name, fisher in self.fisher.items():
            moved = weights[name].float() - self.start[name]
            parts.append((fisher * moved * moved).sum())
        return self.weight / 2 * torch.stack(parts).sum()


def anchor(job: Job, learner: Learner, train: Encoded, progress: Progress = silent) -> Anchor | None:
    """What holds the model of `learner` where it is now, before its first step; None when the stage asks for none.

    train: the items of the learner; the old ones tell what mattered, or all of them where there is no champion. The Fisher
    information is kept in job.cache by content, so a resumed training has the same to the last bit. Raises Misuse for ppo, which
    is held near its start by its own divergence; TrainingDiverged for a loss that is not finite; Broken when memory runs out.
    """
    stage = job.stage
    if not stage.ewc.weight:
        return None
    if job.objective is Objective.PPO:
        fix = "leave it out: ppo.kl and ppo.kl_target hold the model near its start"
        raise Misuse("ppo has no loss of old rows to tell which weights matter", where="train.ewc.weight", fix=fix)
    places = _old_rows(train, stage.ewc.rows, stage.seed)
    weights = trainable(learner.model)
    start = {name: weight.detach().float().clone() for name, weight in weights.items()}

    def make(sink: IO[bytes]) -> None:
        sink.write(save({name: tensor.cpu().contiguous() for name, tensor in diagonal(learner, places, progress).items()}))

    of = _identity(job, train, places, start)
    found = load(bytes(ranks().in_turn(lambda: kept(job.cache, of, make))))
    fisher = {name: found[name].to(start[name].device) for name in start}
    still = [name for name, tensor in fisher.items() if not tensor.any()]
    if len(still) == len(fisher):
        log.warning("train.ewc: no weight that learns mattered to the %d rows looked at, so none is held", len(places))
    elif still:
        # The way in of a LoRA that has not learned yet: while its way out is zero, what is put in makes no difference.
        log.info("train.ewc: %d of %d tensors made no difference to the rows looked at and are free", len(still), len(fisher))
    return Anchor(stage.ewc.weight, fisher, start)


def diagonal(learner: Learner, places: Sequence[int], progress: Progress = silent) -> dict[str, torch.Tensor]:
    """The empirical Fisher information of each weight that learns: sum over `places` of (gradient of the row's loss) ** 2,
    divided by the units of all of them. fp32, by name, of the weight's shape, on its device.

    A row's loss is the sum over its units (its tokens, or the row as a whole), so that this approximates the curvature of the
    mean loss of a unit, which is what training lowers. Without dropout; random state and gradients are left as they were.
    """
    weights = trainable(learner.model)
    sums = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    place = next(iter(weights.values())).device
    units = 0.0
    was_training = learner.model.training
    learner.model.eval()
    try:
        with untouched(), torch.enable_grad():
            learner.rows = 1
            learner.prepare()
            for done, at in enumerate(places):
                progress("looking at what mattered", done, len(places))
                units += learner.units([at])
                for name, gradient in _gradients(learner, at, weights, place).items():
                    sums[name] += gradient.float().square()
    except (RuntimeError, MemoryError) as error:
        if not memory_ran_out(error):
            raise
        raise Broken(
            "memory ran out over a single row", where="train.ewc", fix="lower train.max_length, or drop train.ewc"
        ) from error
    finally:
        learner.model.train(was_training)
    return {name: total / (units or 1.0) for name, total in sums.items()}


def _gradients(learner: Learner, at: int, weights: Mapping[str, nn.Parameter], place: torch.device) -> dict[str, torch.Tensor]:
    """Of one row's loss, by the name of each weight that it hangs on."""
    learner.begin_step(1, [at])
    batch = {name: tensor.to(place) for name, tensor in learner.batch([at]).items()}
    with torch.autocast(place.type, torch.bfloat16, enabled=place.type == "cuda" and half_precision()):
        loss = learner.losses(batch).total
    check_measures({"loss of an old row": float(loss.detach())}, step=0)
    if not loss.requires_grad:
        return {}
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(weights, found, strict=True) if gradient is not None}


def _old_rows(train: Encoded, most: int, seed: int) -> list[int]:
    """At most so many of the old items, drawn by the seed; of all where none is old."""
    old = np.flatnonzero(train.old)
    if not len(old):
        log.warning("train.ewc: none of the rows is known to be old, so rows of all tell what mattered")
        old = np.arange(len(train))
    return [int(n) for n in np.sort(np.random.default_rng(seed).permutation(old)[:most])]


def _identity(job: Job, train: Encoded, places: Sequence[int], start: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """All that the Fisher information hangs on."""
    weights = hashlib.sha256()
    for name, tensor in start.items():
        weights.update(f"{name} {list(tensor.shape)}".encode())
        weights.update(tensor.cpu().contiguous().numpy().tobytes())
    return {
        "fisher": VERSION,
        "base": job.ref.digest,
        "start": job.start_digest,
        "weights": weights.hexdigest(),
        "rows": [train.digest, list(places)],
        "stage": job.stage.model_dump(mode="json", exclude=_NO_MATTER),
        "machine": job.machine.model_dump(mode="json"),
        "made_by": [torch.__version__, device_class(), torch.get_num_threads()],
    }
