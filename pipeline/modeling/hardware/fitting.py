"""Chooses how a stage is computed here: first what has to be known before the base is loaded, then the micro-batch that fits.

What was chosen is written beside the checkpoints and read again, so that a resumed training computes as it began. Predictions
are memory.py's, what is free room.py's, what a GPU does faster probe.py's.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.domain.tuning import Objective, Tuner
from pipeline.errors import Misuse
from pipeline.modeling.hardware.choices import MIB, Choices, Fitted, read_fitted, write_fitted
from pipeline.modeling.hardware.memory import SPREAD, Batch, Means, Prediction, predict
from pipeline.modeling.hardware.room import LIMITS, Room, has_gpu, room, status
from pipeline.modeling.hardware.shape import Shape, read_shape
from pipeline.modeling.job import Job
from pipeline.params.train import MachineParams, StageParams

log = logging.getLogger(__name__)

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


def choose(job: Job) -> Choices:
    """Before the base is loaded: precision, attention, compiling, kernels; the same as before when the job is taken up again.

    Raises Misuse when the machine cannot do what params ask for, or when the base does not fit whatever the micro-batch is.
    """
    kept = read_fitted(job.folder)
    if kept is not None:
        return kept.choices
    chosen, shape = choose_for(job.base, job.stage, job.machine), read_shape(job.base)
    least = Data(min(16, job.stage.max_length), 1, len(job.labels))
    tried, free = largest(shape, job.stage, job.objective, least, chosen, job.machine, loaded=False)
    if not tried.fits:
        raise _too_large(job, shape, tried, free)
    return chosen


def fit(job: Job, lengths: Sequence[int], *, labelled: Sequence[int] | None = None) -> Fitted:
    """The largest micro-batch, halving from stage.batch_size, that is predicted to fit beside the model, which is loaded in this
    process; with gradient checkpointing where even one item would not fit without.

    lengths: tokens of each item to train on, of its longer row where it is a pair. labelled: tokens with a loss of each, of the
    row that has more; default: all. Written to job.folder before it returns, and what is there already is returned. Raises Misuse when not even
    one item fits.
    """
    kept = read_fitted(job.folder)
    if kept is not None:
        return kept
    data = data_of(job, lengths, labelled)
    chosen, shape = choose_for(job.base, job.stage, job.machine), read_shape(job.base)
    tried, free = largest(shape, job.stage, job.objective, data, chosen, job.machine, loaded=True)
    if not tried.fits:
        raise _too_large(job, shape, tried, free)
    found = _fitted(job, chosen, tried, free)
    write_fitted(found, job.folder)
    return found


def data_of(job: Job, lengths: Sequence[int], labelled: Sequence[int] | None) -> Data:
    """What the largest micro-batch would hold, a row: the longest, and as many labelled tokens as the batch that has most."""
    stage, longest = job.stage, max(lengths, default=1)
    if job.objective is Objective.PPO:
        return Data(min(longest + stage.ppo.max_new_tokens, stage.max_length), stage.ppo.max_new_tokens)
    most = heapq.nlargest(stage.batch_size, lengths if labelled is None else labelled)
    return Data(longest, math.ceil(sum(most) / max(len(most), 1)), len(job.labels))


def choose_for(base: Path, stage: StageParams, machine: MachineParams) -> Choices:
    """What params leave open: on a GPU by a short measurement, on a CPU always the same. Raises Misuse for what cannot be."""
    if has_gpu():
        from pipeline.modeling.hardware.probe import choose_on_gpu

        return choose_on_gpu(base, stage, machine)
    impossible = {
        "precision": ("bf16", "bf16 is tens of times slower than fp32 on most CPUs", "fp32"),
        "attention": ("flash_attention_2", "it is a GPU's", "sdpa"),
        "kernels": ("on", "Liger kernels are a GPU's", "off"),
    }
    for key, (refused, reason, instead) in impossible.items():
        if getattr(machine, key) == refused:
            where, fix = f"train.machine.{key}", f"leave it at auto, or write {instead}"
            raise Misuse(f"{refused} was asked for on a machine without a GPU: {reason}", where=where, fix=fix)
    return Choices(
        precision="fp32",
        attention="sdpa" if machine.attention == "auto" else machine.attention,
        compile=machine.compile == "on",
        kernels=False,
        because={"machine": "a CPU: fp32 and SDPA, compiled only where params ask for it; nothing was probed"},
    )


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
    """From the fastest to the one that takes least memory."""
    recomputed = {"auto": (False, True), "on": (True,), "off": (False,)}[machine.gradient_checkpointing]
    tried = (
        [(False, again) for again in recomputed] if gpu else [(False, recomputed[0]), *((True, again) for again in recomputed)]
    )
    return [Means(chosen.half, chosen.attention, again, tight, gpu) for tight, again in tried]


def _fitted(job: Job, chosen: Choices, tried: Trial, free: Room) -> Fitted:
    size, left = f"{tried.predicted.total / MIB:,.0f} MiB predicted", f"{free.bytes / MIB:,.0f} MiB free ({free.bound})"
    most = job.stage.batch_size
    because = {"micro_rows": f"batch_size: {size}, {left}"}
    if tried.items < most:
        because["micro_rows"] = f"{most} at once would not fit: {size} for {tried.items}, {left}; a step still sees all its rows"
        log.warning("micro-batches of %d, not %d: %s", tried.items, most, because["micro_rows"])
    if job.machine.gradient_checkpointing != "auto":
        because["gradient_checkpointing"] = "params say so"
    elif tried.means.checkpointing:
        because["gradient_checkpointing"] = "not even one row would fit without it"
        log.warning("gradient checkpointing is on: %s", because["gradient_checkpointing"])
    else:
        because["gradient_checkpointing"] = "not needed"
    if tried.means.tight:
        because["tight_memory"] = "not even one row would fit without it"
    return Fitted(tried.items, tried.means.checkpointing, tried.means.tight, chosen, tried.predicted.total, because)


def _too_large(job: Job, shape: Shape, tried: Trial, free: Room) -> Misuse:
    """Says what one row would take, and of what; what is free; what would fit instead."""
    stage, parts = job.stage, tried.predicted.parts
    named = ", ".join(f"{name} {size / MIB:,.0f}" for name, size in parts.items() if size >= MIB)

    def fits(tokens: int, **changes: object) -> bool:
        batch = Batch(1, tokens, tokens, len(job.labels), whole=False)
        other = predict(shape, stage.model_copy(update=changes), job.objective, batch, tried.means)
        return wanted(other, free, loaded=False) <= free.bytes

    lighter = [tuner for tuner in (Tuner.LORA, Tuner.QLORA) if tuner is not stage.tuner]
    fixes = [f"train.tuner: {tuner}" for tuner in lighter if fits(stage.max_length, tuner=tuner)]
    shorter = next((n for n in (stage.max_length >> k for k in range(1, 8)) if n >= 16 and fits(n)), None)
    fixes += [f"train.max_length: {shorter}"] if shorter else []
    fixes.append("a smaller base, or a machine with more memory")
    return Misuse(
        f"one row at a time would take {tried.predicted.total / MIB:,.0f} MiB ({named}), and "
        f"{free.bytes / MIB:,.0f} MiB are free ({free.bound})",
        where=f"train: {stage.name} ({stage.tuner}) on {job.ref.id}",
        fix=", or ".join(fixes),
    )
