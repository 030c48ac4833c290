"""Chooses how a stage is computed here: first what has to be known before the base is loaded, then the micro-batch that fits.

What was chosen is written beside the checkpoints and read again, so that a resumed training computes as it began. How the
micro-batch is found is searching.py's, what a GPU does faster probe.py's.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Sequence
from pathlib import Path

from pipeline.domain.tuning import Objective, Tuner
from pipeline.errors import Misuse
from pipeline.modeling.hardware.choices import MIB, Choices, Fitted, read_fitted, write_fitted
from pipeline.modeling.hardware.forecasting import warn_of_cap
from pipeline.modeling.hardware.memory import Batch, predict
from pipeline.modeling.hardware.room import Room, has_gpu
from pipeline.modeling.hardware.searching import Data, Trial, largest, wanted
from pipeline.modeling.hardware.shape import Shape, read_shape
from pipeline.modeling.job import Job
from pipeline.params.train import MachineParams, StageParams

log = logging.getLogger(__name__)


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
    row that has more; default: all. Written to job.folder before it returns, and what is there already is returned. Raises
    Misuse when not even one item fits.
    """
    kept = read_fitted(job.folder)
    if kept is not None:
        return kept
    data = data_of(job, lengths, labelled)
    chosen, shape = choose_for(job.base, job.stage, job.machine), read_shape(job.base)
    tried, free = largest(shape, job.stage, job.objective, data, chosen, job.machine, loaded=True)
    if not tried.fits:
        raise _too_large(job, shape, tried, free)
    warn_of_cap(job, chosen, tried, free, lengths)
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
        because["tight_memory"] = "memory is given back at once: not even one row would fit otherwise"
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
