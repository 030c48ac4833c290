"""Counts what a tuner has learn on a base of a given shape, and what of the base an objective uses. Numbers only."""

from __future__ import annotations

from pipeline.domain.tuning import OUTPUT_OF, Objective, Output, Tuner
from pipeline.modeling.hardware.shape import Shape, adapted
from pipeline.params.train import StageParams


def rows_of(objective: Objective) -> int:
    """Rows of an item: a pair has two."""
    return 2 if objective in (Objective.DPO, Objective.ORPO, Objective.REWARD) else 1


def count_trainable(shape: Shape, stage: StageParams, objective: Objective, labels: int) -> int:
    """Numbers that learn."""
    head = _new_head(shape, objective, labels)
    if stage.tuner is Tuner.FULL:
        return base_weights(shape, objective) + head - (shape.pooler if head else 0)
    if stage.tuner is Tuner.LAST_LAYERS:
        count = min(stage.layers, shape.depth)
        last = sum(matrix.size for layer in shape.layers[shape.depth - count :] for matrix in layer)
        return last + sum(shape.layer_small[shape.depth - count :]) + shape.last_norm + (head or shape.head)
    if stage.tuner is Tuner.SOFT_PROMPT:
        width = shape.width if stage.soft_prompt.kind == "prompt" else shape.depth * 2 * shape.keys
        return stage.soft_prompt.tokens * width + head
    targets = adapted(shape, stage.target_modules)
    heads = 2 if objective is Objective.PPO else 1  # the policy's and the value's, which has a head of its own
    each = sum(stage.rank * (m.outputs + m.inputs) + (m.outputs if stage.dora else 0) for m in targets)
    return heads * each + head + (shape.width + 1 if heads == 2 else 0)


def _new_head(shape: Shape, objective: Objective, labels: int) -> int:
    """What stands between the last layer and the labels or the score, learned whole."""
    if OUTPUT_OF[objective] is Output.TEXT:
        return 0
    outputs = labels if OUTPUT_OF[objective] is Output.LABEL else 1
    return shape.pooler + outputs * (shape.width + (0 if shape.rms else 1))


def base_weights(shape: Shape, objective: Objective) -> int:
    """Weights of the base that an objective uses: labels and scores do without the output embedding."""
    return shape.weights - (shape.head if OUTPUT_OF[objective] is not Output.TEXT else 0)
