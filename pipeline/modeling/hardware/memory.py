"""The peak memory of a training stage, predicted from the shape of its base: what is held, and what a micro-batch adds.

Counted is what autograd keeps for the backward pass of each kind of layer (after Korthikanti et al., 2022, section 4, for the
layers of transformers 5 as they are written) and what a step makes for a moment. Constants marked measured come from
bench/plan.py. No weight, no torch and no clock enters here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.domain.tuning import OUTPUT_OF, Objective, Output, Tuner
from pipeline.modeling.hardware.counting import base_weights, count_trainable, rows_of
from pipeline.modeling.hardware.shape import Matrix, Shape, adapted
from pipeline.params.train import StageParams

PROCESS = 600 << 20
"""Measured: the interpreter with torch, transformers, peft and the Trainer imported, and a tokenizer."""
GPU_CONTEXT = 600 << 20
SPREAD = 0.2
"""How far off a prediction may be, beside the process itself: the range that people are told, and the margin that is kept."""
_NF4 = 0.5 + 4 / 64 / 4 + 4 / 64 / 256
"""Bytes a weight: four bits, an 8-bit scale for each 64, and a 32-bit one for each 256 of those (Dettmers et al., 2023)."""
_SAVED_COPIES = 1
"""Measured: of what learns, made while a checkpoint is written."""
_LOST, _LOST_ADAPTED = 0.45, 0.45
"""Measured with glibc 2.36: what its allocator takes beside each byte that comes and goes on a CPU, where blocks below 32 MiB are
pooled; and as much again where all matrices are adapted, which makes many more blocks."""
_LOST_TIGHT = 0.1
"""The same where blocks are given back at once, which takes 30 % more time (see Means.tight)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is in memory at once. items: rows, or pairs. tokens: of the longest row. labelled: of those with a loss. labels: how
    many a classifier tells apart. whole: whether it is a whole step, so that no gradient is kept from one micro-batch while the
    next is computed."""

    items: int
    tokens: int
    labelled: int
    labels: int = 0
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Means:
    """How a step is computed. half: bf16 weights and activations. checkpointing: activations computed twice. tight: memory is
    given back as soon as it is free, which costs time (on a CPU)."""

    half: bool = False
    attention: str = "sdpa"
    checkpointing: bool = False
    tight: bool = False
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """Bytes by what they are for: what is held throughout (process, weights, trained, moments, held aside) and what the step adds
    at its peak (gradients, activations, logits, temporary, and what the allocator loses)."""

    parts: Mapping[str, int]
    trainable: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def steps(self) -> int:
        """What is taken once the model is loaded: all but process, weights and trained."""
        return self.total - sum(self.parts[name] for name in ("process", "weights", "trained"))

    @property
    def low(self) -> int:
        return int(self.total - SPREAD * (self.total - self.parts["process"]))

    @property
    def high(self) -> int:
        return int(self.total + SPREAD * (self.total - self.parts["process"]))


def predict(shape: Shape, stage: StageParams, objective: Objective, batch: Batch, means: Means = Means()) -> Prediction:
    """The peak of training `stage` on a base of `shape` when `batch` is in memory at once."""
    trainable = count_trainable(shape, stage, objective, batch.labels)
    number = 2 if means.half else 4
    rows = batch.items * rows_of(objective)
    tokens = batch.tokens + (stage.soft_prompt.tokens if stage.tuner is Tuner.SOFT_PROMPT else 0)
    # A causal model needs no mask where padding comes last; without one keys are shared by heads, with one they are repeated.
    masked = OUTPUT_OF[objective] is not Output.TEXT or stage.tuner is Tuner.SOFT_PROMPT
    layer, kept = _kept_numbers(shape, stage, tokens, means, masked=masked)
    activations, passing = _activations(shape, rows, tokens, number, layer, kept, means, masked=masked)
    activations *= 2 if objective is Objective.PPO else 1  # the policy's and the value's
    logits = _logits(shape, objective, rows, batch, number)
    weights, trained = _weights(shape, stage, objective, trainable, number)
    gradients = 4 * trainable
    passing += _temporary(shape, stage, objective, batch)
    # Gradients grow as activations are let go, so the peak is where a forward pass ends, where a backward pass ends, or where
    # a checkpoint is written; from one micro-batch of a step to the next gradients stay.
    phases = (
        {
            "gradients": 0 if batch.whole else gradients,
            "activations": activations,
            "logits": logits,
            "temporary": max(passing - logits, 0),
        },
        {"gradients": gradients, "activations": 0, "logits": 0, "temporary": passing},
        {"gradients": 0, "activations": 0, "logits": 0, "temporary": _SAVED_COPIES * 4 * trainable},
    )
    held = {
        "process": GPU_CONTEXT if means.gpu else PROCESS,
        "weights": weights,
        "trained": trained,
        "moments": 8 * trainable,
        "held aside": 8 * trainable if stage.ewc.weight else 0,
    }
    peak = max(phases, key=lambda phase: sum(phase.values()))
    if not means.gpu:
        peak["lost"] = int(_lost(shape, stage, means) * sum(peak.values()))
    return Prediction(held | peak, trainable)


def _lost(shape: Shape, stage: StageParams, means: Means) -> float:
    if means.tight:
        return _LOST_TIGHT
    if stage.tuner not in (Tuner.LORA, Tuner.QLORA):
        return _LOST
    return _LOST + _LOST_ADAPTED * len(adapted(shape, stage.target_modules)) / max(sum(len(layer) for layer in shape.layers), 1)


def _weights(shape: Shape, stage: StageParams, objective: Objective, trainable: int, number: int) -> tuple[int, int]:
    """Bytes of the frozen weights, and of those that learn, which are fp32 whatever the base is."""
    whole = base_weights(shape, objective)
    if stage.tuner is Tuner.FULL:
        return (whole * 2 if number == 2 else 0), 4 * trainable  # autocast keeps a copy in bf16 while a step lasts
    if stage.tuner is Tuner.LAST_LAYERS:
        return number * max(whole - trainable, 0), 4 * trainable
    if stage.tuner is Tuner.QLORA:
        return int(_NF4 * shape.matrices) + 4 * (whole - shape.matrices), 4 * trainable
    return number * whole, 4 * trainable


def _kept_numbers(shape: Shape, stage: StageParams, tokens: int, means: Means, *, masked: bool) -> tuple[float, float]:
    """Numbers a token that are kept for the backward pass: (by a layer that learns, by all layers). Layers below the last ones
    that learn keep nothing."""
    some = [_layer_numbers(shape, stage, layer, tokens, means, masked=masked) for layer in shape.layers]
    if stage.tuner is Tuner.LAST_LAYERS:
        some[: max(shape.depth - stage.layers, 0)] = [0.0] * max(shape.depth - stage.layers, 0)
    return max(some, default=0.0), sum(some)


def _layer_numbers(
    shape: Shape, stage: StageParams, layer: tuple[Matrix, ...], tokens: int, means: Means, *, masked: bool
) -> float:
    whole = stage.tuner in (Tuner.FULL, Tuner.LAST_LAYERS)
    targets = {m.name for m in adapted(shape, stage.target_modules)} if stage.tuner in (Tuner.LORA, Tuner.QLORA) else set()

    def learns(*names: str) -> bool:
        return whole or any(name in target for target in targets for name in names)

    width, inner, queries = shape.width, shape.inner * _active(layer), shape.queries
    into_attention = learns("q_proj", "k_proj", "v_proj", "query", "key", "value", "qkv", "c_attn")
    into_mlp = learns("gate", "up_proj", "intermediate", "c_fc", "fc1", "dense_h_to_4h") or (not shape.rms and learns("dense"))
    out_of_mlp = learns("down_proj", "output", "c_proj", "fc2", "dense")
    attended = 4.0 * queries if masked else 2.0 * queries + 2.0 * shape.keys
    if targets and stage.dropout:  # what LoRA saw is kept instead, and the mask
        into_attention = into_mlp = out_of_mlp = False
    if shape.rms:
        # Of an RMS norm the input stays, and what it was scaled to where its weight learns; in bf16 both are kept in fp32.
        norms = 2.0 * width * (2 if means.half else 1) * (2 if whole else 1)
        mlp = 3.0 * inner + (inner if out_of_mlp else 0.0)
    else:
        # Of a layer norm the input; its output is the residual stream, which the next matrix or norm keeps as well.
        norms = 2.0 * width
        mlp = (5.0 if shape.written_out_gelu else 1.0) * inner + (inner if out_of_mlp else 0.0)
        if shape.dropout:
            norms += 2.0 * width * (0.5 if means.gpu else 1.0)  # the masks
    kept = norms + attended + mlp + width * (into_attention + into_mlp)
    if shape.attention_dropout or means.attention == "eager":
        # Scores, what is left of them after dropout, and the mask, where no fused kernel does it.
        kept += shape.heads * tokens * (3.0 if shape.attention_dropout else 1.0) * (0.4 if means.gpu else 1.0)
    if targets:
        mine = [m for m in layer if m.name in targets]
        kept += sum(stage.rank * m.active for m in mine)
        if stage.dropout:
            kept += sum(2.0 * m.inputs * m.active for m in mine)
        if stage.dora:
            kept += sum(2.0 * m.outputs * m.active for m in mine)
    return kept


def _active(layer: tuple[Matrix, ...]) -> float:
    """Of experts, how many a token meets; one where there are none."""
    experts = [m for m in layer if m.active < 1]
    return max(1.0, sum(m.active for m in experts) / 3) if experts else 1.0


def _activations(
    shape: Shape, rows: int, tokens: int, number: int, layer: float, kept: float, means: Means, *, masked: bool
) -> tuple[int, int]:
    """(bytes that stay until the backward pass, bytes that pass by within a layer)."""
    seen = rows * tokens
    passing = number * seen * (3 * shape.inner + 2 * shape.width)
    if means.attention == "eager" or shape.attention_dropout:
        passing = max(passing, 2 * number * rows * shape.heads * tokens * tokens)
    mask = 4 * rows * tokens * tokens * shape.depth if masked else 0
    ends = 3 * number * seen * shape.width  # embeddings and the last norm
    if means.checkpointing:
        return int(number * seen * (shape.depth * shape.width + layer)) + ends + mask, passing
    return int(number * seen * kept) + ends + mask, passing


def _logits(shape: Shape, objective: Objective, rows: int, batch: Batch, number: int) -> int:
    """Bytes of logits at their peak: they, their logarithms and a gradient, in fp32; one more set for objectives of pairs."""
    if OUTPUT_OF[objective] is not Output.TEXT:
        return 0
    copies = 3 if objective in (Objective.SFT, Objective.PRETRAIN) else 4
    return rows * min(batch.labelled, batch.tokens) * shape.vocabulary * (4 * copies + (number if number == 2 else 0))


def _temporary(shape: Shape, stage: StageParams, objective: Objective, batch: Batch) -> int:
    """Bytes of what comes and goes: 4-bit weights made whole for one product, DoRA's column norms, PPO's keys and values."""
    found = 0
    if stage.tuner is Tuner.QLORA:
        found += 2 * 4 * shape.largest_matrix
    if stage.dora:
        found += 4 * max(3 * m.size + 2 * m.inputs**2 for m in adapted(shape, stage.target_modules))
    if objective is Objective.PPO:
        found += 2 * 4 * shape.depth * shape.keys * batch.items * (batch.tokens + stage.ppo.max_new_tokens)
    return found
