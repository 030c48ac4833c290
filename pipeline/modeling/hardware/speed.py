"""The seconds of a training stage, from its arithmetic and the speed of the machine, or from steps that were measured.

Arithmetic is counted after Kaplan et al., 2020, section 2.1: two operations a weight and token forwards, two more for the
gradient of what a layer is given, two more for that of its weights. Constants marked measured come from bench/plan.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from pipeline.domain.planning import Span
from pipeline.domain.tuning import OUTPUT_OF, Objective, Output, Tuner
from pipeline.modeling.hardware.counting import rows_of
from pipeline.modeling.hardware.shape import Shape, adapted
from pipeline.modeling.hardware.work import Work
from pipeline.params.train import StageParams

_NARROW = 2.5
"""Measured: how many times slower LoRA's narrow products are, an operation."""
_LAYER_SECONDS = 0.002
"""Measured: of a layer and micro-batch beside its arithmetic: calls from Python, forwards and backwards."""
_ADAPTED_SECONDS = 0.0005
"""Measured: of each adapted matrix and micro-batch."""
_WEIGHT_SECONDS = 8e-9
"""Measured: of each trained number and step: clipping, checking, AdamW."""
_PADDING = 1.1
MEASURED_SPREAD, RECKONED_SPREAD = 1.5, 3.0
"""By what factor seconds may be off, where steps were measured, and where they were not."""


def count_steps(stage: StageParams, objective: Objective, items: int) -> int:
    """Optimizer steps of a stage over `items`."""
    if stage.max_steps is not None:
        return stage.max_steps
    if objective is Objective.PPO:
        items = math.ceil(items / stage.ppo.rollouts) * stage.ppo.rollouts * stage.ppo.epochs
    return math.ceil(stage.epochs * math.ceil(items / stage.step_rows))


def forward_flops(shape: Shape, work: Work, stage: StageParams, objective: Objective) -> float:
    """Operations of asking for one row."""
    tokens = work.tokens + (stage.soft_prompt.tokens if stage.tuner is Tuner.SOFT_PROMPT else 0)
    products = 2.0 * sum(matrix.size * matrix.active for layer in shape.layers for matrix in layer)
    attended = 4.0 * shape.queries * tokens * shape.depth
    return tokens * (products + attended) + _head_flops(shape, work, objective)


def step_flops(shape: Shape, stage: StageParams, objective: Objective, work: Work, *, checkpointing: bool = False) -> float:
    """Operations of one optimizer step over stage.step_rows items."""
    forward = forward_flops(shape, work, stage, objective)
    match stage.tuner:
        case Tuner.FULL:
            times = 3.0
        case Tuner.LAST_LAYERS:
            times = 1.0 + 2.0 * min(stage.layers, shape.depth) / shape.depth
        case _:
            times = 2.0
    each = forward * (times + (1.0 if checkpointing else 0.0))
    if stage.tuner in (Tuner.LORA, Tuner.QLORA):
        targets = adapted(shape, stage.target_modules)
        each += _NARROW * 6.0 * work.tokens * sum(stage.rank * (m.inputs + m.outputs) * m.active for m in targets)
    if objective is Objective.PPO:  # the policy and the value; the rollout's share: written, and asked of all four
        written = stage.ppo.max_new_tokens / max(work.tokens, 1) + 4.0
        each = 2.0 * each + forward * written / stage.ppo.epochs
    return each * stage.step_rows * rows_of(objective) * _PADDING


def step_seconds(
    shape: Shape,
    stage: StageParams,
    objective: Objective,
    work: Work,
    *,
    flops: float,
    trainable: int,
    micro_rows: int,
    checkpointing: bool = False,
) -> float:
    """Seconds of one optimizer step on a machine that does `flops` operations a second in a large matrix product."""
    pieces = math.ceil(stage.step_rows / micro_rows)
    calls = shape.depth * _LAYER_SECONDS
    if stage.tuner in (Tuner.LORA, Tuner.QLORA):
        calls += len(adapted(shape, stage.target_modules)) * _ADAPTED_SECONDS * (3.0 if stage.dora else 1.0)
    if stage.dora or stage.tuner is Tuner.QLORA:
        # Weights are made whole for each micro-batch, forwards and backwards, and DoRA takes the norms of their columns.
        calls += shape.matrices * (2.0 * stage.rank if stage.dora else 40.0) / flops
    if objective is Objective.PPO:
        calls = 2.0 * calls + shape.depth * _LAYER_SECONDS * stage.ppo.max_new_tokens / 3 / stage.ppo.epochs
    arithmetic = step_flops(shape, stage, objective, work, checkpointing=checkpointing) / (flops * efficiency(shape.width))
    return arithmetic + pieces * calls + trainable * _WEIGHT_SECONDS


def stage_seconds(shape: Shape, stage: StageParams, objective: Objective, work: Work, step: float, *, measured: bool) -> Span:
    """Seconds of a whole stage of steps that last `step`: with its evaluations, and where a reference is asked beforehand once
    all items. Asking takes of a step's time what it takes of its arithmetic."""
    steps = count_steps(stage, objective, work.items)
    forward = forward_flops(shape, work, stage, objective) * rows_of(objective) * _PADDING
    asked = step * forward / step_flops(shape, stage, objective, work)
    every = stage.eval_steps or max(math.ceil(work.items / stage.step_rows), 1)
    items = math.ceil(steps / every) * work.held
    if objective in (Objective.DPO, Objective.KTO):
        items += work.items + work.held
    value, off = steps * step + items * asked, MEASURED_SPREAD if measured else RECKONED_SPREAD
    return Span(value=value, low=value / off, high=value * off)


def efficiency(width: int) -> float:
    """Of a large matrix product's speed, what a step's arithmetic reaches on a base so wide. Measured at 192, 384 and 512."""
    return min(1.2 * width / (width + 300), 0.9)


def machine_flops(*, gpu: bool, half: bool) -> float:
    """Floating-point operations a second of whatever models are put on, in a large matrix product."""
    if not gpu:
        return measure_flops()
    from pipeline.modeling.hardware.probe import gpu_flops

    return gpu_flops(half=half)


def measure_flops(size: int = 768, seconds: float = 0.2, *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Floating-point operations a second of this machine in fp32 matrix products [size, size], by `clock`."""
    matrix = np.random.default_rng(7).standard_normal((size, size), np.float32)
    matrix @ matrix
    started, done = clock(), 0
    while (spent := clock() - started) < seconds:
        matrix @ matrix
        done += 1
    return done * 2 * size**3 / spent


def _head_flops(shape: Shape, work: Work, objective: Objective) -> float:
    if OUTPUT_OF[objective] is not Output.TEXT:
        return 2.0 * shape.pooler
    return 2.0 * min(work.labelled, work.tokens) * shape.vocabulary * shape.width
