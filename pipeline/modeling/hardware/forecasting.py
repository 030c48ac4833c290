"""One tuner's forecast for one stage: what fits of it, what it takes at its peak, how long it lasts, what that costs.

What is predicted is memory.py's and speed.py's; what is tried out before is trying.py's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.domain.planning import Forecast, Span
from pipeline.domain.tuning import Objective, Tuner
from pipeline.modeling.hardware.choices import MIB, Choices
from pipeline.modeling.hardware.room import Room
from pipeline.modeling.hardware.searching import Data, Trial, largest
from pipeline.modeling.hardware.shape import Shape, read_shape
from pipeline.modeling.hardware.speed import count_steps, measure_flops, stage_seconds, step_seconds
from pipeline.modeling.hardware.work import Work
from pipeline.modeling.job import Job
from pipeline.params.train import MachineParams, StageParams

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Here:
    """This machine: what it has free, what was chosen for it, operations a second, what params say of it, and what it costs."""

    free: Room
    chosen: Choices
    flops: float
    params: MachineParams
    price_per_hour: float | None = None


def forecast(
    shape: Shape, stage: StageParams, objective: Objective, work: Work, here: Here, *, step: float | None = None
) -> Forecast:
    """What `stage` would take. step: seconds of one of its steps, where that was measured."""
    tried, free = fitting(shape, stage, objective, work, here)
    seconds = step if step is not None else reckon_step(shape, stage, objective, work, here, tried)
    whole = stage_seconds(shape, stage, objective, work, seconds, measured=step is not None)
    predicted = tried.predicted
    return Forecast(
        tuner=stage.tuner,
        trainable=predicted.trainable,
        memory=Span(value=predicted.total, low=predicted.low, high=predicted.high),
        parts=dict(predicted.parts),
        micro_rows=tried.items,
        gradient_checkpointing=tried.means.checkpointing,
        seconds=whole,
        measured=step is not None,
        cost=whole.times(here.price_per_hour / 3600) if here.price_per_hour is not None else None,
        problem=_problem(shape, stage, tried, free),
    )


def fitting(shape: Shape, stage: StageParams, objective: Objective, work: Work, here: Here) -> tuple[Trial, Room]:
    """The micro-batch that a process which has loaded nothing yet would take, and what it may take."""
    labelled = min(round(work.labelled) or work.longest, work.longest)
    data = Data(work.longest, labelled, work.labels)
    return largest(shape, stage, objective, data, here.chosen, here.params, loaded=False, free=here.free)


def reckon_step(shape: Shape, stage: StageParams, objective: Objective, work: Work, here: Here, tried: Trial) -> float:
    """Seconds of a step by the machine's speed alone, each process taking its share."""
    return step_seconds(
        shape,
        stage,
        objective,
        work,
        flops=here.flops * here.params.processes,
        trainable=tried.predicted.trainable,
        micro_rows=tried.items * here.params.processes,
        checkpointing=tried.means.checkpointing,
    )


def warn_of_cap(job: Job, chosen: Choices, tried: Trial, free: Room, lengths: Sequence[int]) -> None:
    """Say before the start when the stage is expected to last longer than job.max_hours leave."""
    if job.max_hours is None or free.gpu:
        return
    mean = sum(lengths) / max(len(lengths), 1)
    work = Work(len(lengths), 0, mean, max(lengths, default=1), mean, len(job.labels))
    here, shape = Here(free, chosen, measure_flops(), job.machine), read_shape(job.base)
    step = reckon_step(shape, job.stage, job.objective, work, here, tried)
    seconds = stage_seconds(shape, job.stage, job.objective, work, step, measured=False)
    if seconds.value > job.max_hours * 3600:
        steps = count_steps(job.stage, job.objective, work.items)
        log.warning(
            "%s: %d steps are expected to last %.2g hours (%.2g to %.2g) and the caps leave %.2g: it will stop at a checkpoint",
            job.stage.name,
            steps,
            seconds.value / 3600,
            seconds.low / 3600,
            seconds.high / 3600,
            job.max_hours,
        )


def _problem(shape: Shape, stage: StageParams, tried: Trial, free: Room) -> str | None:
    if stage.tuner is Tuner.LAST_LAYERS and stage.layers > shape.depth:
        return f"the base has {shape.depth} layers, and the last {stage.layers} are to be tuned"
    if tried.fits:
        return None
    return f"one row at a time would take {tried.predicted.total / MIB:,.0f} MiB, {free.bytes / MIB:,.0f} are free ({free.bound})"
