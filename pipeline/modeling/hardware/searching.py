"""Looks for the largest micro-batch that is predicted to fit, and for what it takes to make one fit.

What is free is room.py's to know, what a batch takes memory.py's; what is then done is fitting.py's and forecasting.py's.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.domain.tuning import Objective
from pipeline.modeling.hardware.choices import MIB, Choices
from pipeline.modeling.hardware.memory import SPREAD, Batch, Means, Prediction, predict
from pipeline.modeling.hardware.room import LIMITS, Room, room, status
from pipeline.modeling.hardware.shape import Shape
from pipeline.params.train import MachineParams, StageParams

_SLACK = 32 * MIB
"""Kept free whatever is predicted: allocators round up, and other threads take some."""


@dataclass(frozen=True, slots=True)
class Data:
    """What is known of a stage's data. tokens: of the longest row; labelled: of those that have a loss, at most in a row;
    labels: how many a classifier tells apart."""

    tokens: int
    labelled: int
    labels: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """A micro-batch with what is predicted for it, and whether it fits."""

    items: int
    means: Means
    predicted: Prediction
    fits: bool


def largest(
    shape: Shape,
    stage: StageParams,
    objective: Objective,
    data: Data,
    chosen: Choices,
    machine: MachineParams,
    *,
    loaded: bool,
    free: Room | None = None,
) -> tuple[Trial, Room]:
    """The largest micro-batch that fits into what is free for each process, or the least one that was tried, and what is free.

    loaded: the model is in memory already; else it is to be counted too.
    """
    free = free or room()
    each = Room(free.bytes if free.gpu else free.bytes // machine.processes, free.bound, free.gpu)
    for means in _ways(chosen, machine, gpu=free.gpu):
        items = stage.batch_size
        while items:
            batch = Batch(items, data.tokens, data.labelled, data.labels, whole=items * machine.processes >= stage.step_rows)
            predicted = predict(shape, stage, objective, batch, means)
            tried = Trial(items, means, predicted, wanted(predicted, each, loaded=loaded) <= each.bytes)
            if tried.fits:
                return tried, each
            items //= 2
    return tried, each


def wanted(predicted: Prediction, free: Room, *, loaded: bool) -> int:
    """Bytes still to be taken by this process, on the safe side. Weights that were loaded are mapped and may not be read yet:
    they count as taken where addresses are limited, and not where memory is."""
    held = predicted.total - predicted.steps
    if not loaded:
        more = predicted.total - predicted.parts["process"]
    elif free.gpu or free.bound in LIMITS:
        more = predicted.steps
    else:
        more = predicted.steps + max(held - status("VmRSS"), 0)
    return int(more * (1 + SPREAD)) + _SLACK


def _ways(chosen: Choices, machine: MachineParams, *, gpu: bool) -> list[Means]:
    """From the fastest to the one that takes least memory. On a CPU activations that are computed again save hardly anything
    unless what is free is given back, so many blocks come and go."""
    recomputed = {"auto": (False, True), "on": (True,), "off": (False,)}[machine.gradient_checkpointing]
    if gpu:
        tried = [(again, False) for again in recomputed]
    else:
        tried = [(again, tight) for again in recomputed for tight in ((True,) if again else (False, True))]
    return [Means(chosen.half, chosen.attention, again, tight, gpu) for again, tight in tried]
