"""Puts a tuner on a base, fresh or from what an earlier stage, a release or somebody else left. See domain/tuning.start_refusal.

What a stage goes on from is admitted strictly. Same tuner, same shape: it is trained further. A LoRA goes on top of tuned
weights; under full tuning a LoRA is melted into them. A head is kept where it gives the same, and fresh otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pipeline.domain.model import BaseModelRef
from pipeline.domain.tuning import Output, Tuner, start_refusal
from pipeline.errors import Broken, Misuse
from pipeline.modeling.adapters.adapter import Making, is_inner, peft_state
from pipeline.modeling.adapters.admission import Admitted, admit, fill_peft, replaced_names
from pipeline.modeling.adapters.foreign import admit_foreign, is_foreign
from pipeline.modeling.adapters.handshake import WEIGHTS, Shape
from pipeline.modeling.adapters.probing import bare_states
from pipeline.modeling.loading import head_modules, load_base
from pipeline.modeling.tuners.lora import lora_shape, new_lora
from pipeline.modeling.tuners.soft_prompt import new_prompt, soft_shape
from pipeline.modeling.tuners.weights import fill, make_trainable, tuned_names
from pipeline.params import StageParams

_SHAPE = ("rank", "alpha", "rslora", "dora", "target_modules", "layers", "soft_prompt", "tokens")
_PARAMS = {"soft_prompt": "soft_prompt.kind", "tokens": "soft_prompt.tokens"}


def begin(
    base: Path, ref: BaseModelRef, stage: StageParams, output: Output, labels: tuple[str, ...], *, start: Path | None
) -> Any:
    """See tuners.tunable."""
    came = _admit(start, ref, stage, output) if start is not None else None
    melts = came is not None and came.handshake.tuner is Tuner.LORA and stage.tuner is Tuner.FULL
    whole = torch.float32 if stage.tuner is Tuner.FULL else None
    model = load_base(base, output, labels, quantize=stage.tuner is Tuner.QLORA, dtype=whole)
    bare = bare_states(model)
    own = stage.tuner in (Tuner.FULL, Tuner.LAST_LAYERS)
    trained = tuned_names(model, stage.tuner, stage.layers, output) if own else ()
    make_trainable(model, trained)  # in fp32 before anything is put in their place
    keeps_head = came is not None and (came.handshake.output, came.handshake.labels) == (output, labels)
    if came is not None and came.handshake.weights is not None:
        _bring_weights(model, came, output, keeps_head=keeps_head)
    if came is not None and melts:
        lora = _bring_peft(new_lora(model, _of_start(came, model, output)), came, keeps_head=keeps_head)
        model = lora.merge_and_unload(safe_merge=True)
    if own:
        return _tune_weights(make_trainable(model, trained), stage, output, came, bare).eval()
    return _tune_beside(model, stage, output, came, keeps_head=keeps_head).eval()


def _tune_weights(model: Any, stage: StageParams, output: Output, came: Admitted | None, bare: torch.Tensor) -> Any:
    over = came.handshake.weights if came is not None else None
    weights = Tuner.FULL if Tuner.FULL in (stage.tuner, over) else Tuner.LAST_LAYERS
    layers = stage.layers if Tuner.LAST_LAYERS in (stage.tuner, weights) else 0
    shape = Shape(tuner=stage.tuner, output=output, layers=layers, weights=weights)
    if came is not None and came.handshake.tuner is stage.tuner:
        _check_same_shape(came, shape)
    model.making = Making(shape, replaced=tuned_names(model, weights, layers, output), bare=bare)
    return model


def _tune_beside(model: Any, stage: StageParams, output: Output, came: Admitted | None, *, keeps_head: bool) -> Any:
    """A LoRA or a soft prompt; on the tuned weights of the start, if it has some."""
    shape = soft_shape(model, stage, output) if stage.tuner is Tuner.SOFT_PROMPT else lora_shape(model, stage, output)
    if came is not None:
        shape = shape.model_copy(update={"weights": came.handshake.weights, "layers": came.handshake.layers})
    replaced = replaced_names(model, shape)
    if came is not None and came.handshake.tuner is stage.tuner:
        _check_same_shape(came, shape)
    tuned = new_prompt(model, shape) if stage.tuner is Tuner.SOFT_PROMPT else new_lora(model, shape)
    if came is not None and came.handshake.tuner is stage.tuner:
        _bring_peft(tuned, came, keeps_head=keeps_head)
    tuned.making = Making(shape, replaced=replaced)
    return tuned


def _admit(start: Path, ref: BaseModelRef, stage: StageParams, output: Output) -> Admitted:
    """What a stage begins from, judged; see domain/tuning.start_refusal. Raises Misuse for what cannot be gone on from."""
    came = admit_foreign(start, ref) if is_foreign(start) else admit(start, ref)
    said = came.handshake
    reason = start_refusal(stage.tuner, said.tuner)
    if said.output is Output.SCORE is not output:
        reason = "a reward model gives a number, not a text"
    if reason is not None:
        raise Misuse(f"{stage.tuner} cannot start from what {said.tuner} made: {reason}", where=str(start))
    if None not in (said.base.template, ref.template) and said.base.template != ref.template:
        what = "the start was trained with another chat template than the one in force"
        raise Broken(what, where=str(start), fix="name its chat_template.jinja as model.chat_template, or start from the base")
    return came


def _check_same_shape(came: Admitted, shape: Shape) -> None:
    for key in _SHAPE:
        theirs, ours = getattr(came.handshake, key), getattr(shape, key)
        if theirs != ours:
            raise Misuse(
                f"what the stage starts from has {_PARAMS.get(key, key)} {_said(theirs)}, and the stage asks for {_said(ours)}",
                where=f"train.{_PARAMS.get(key, key)}",
                fix="give the stage the same, or start it from the base",
            )


def _bring_weights(model: Any, came: Admitted, output: Output, *, keeps_head: bool) -> None:
    """Put the start's tuned weights into the bare model; without a head of its own only those of the body."""
    names = replaced_names(model, came.handshake.model_copy(update={"output": output}))
    if keeps_head:
        fill(model, came.replaced, names)
        return
    body, heads = f"{model.base_model_prefix}.", _tops(model, output)
    inner = tuple(name for name in names if name.startswith(body) and not name.startswith(heads))
    fill(model, came.replaced, inner, skip=lambda key: not key.startswith(body) or key.startswith(heads))


def _of_start(came: Admitted, model: Any, output: Output) -> Shape:
    """The start's LoRA on a model that may have another head."""
    shape = Shape(**{key: getattr(came.handshake, key) for key in Shape.model_fields})
    return shape.model_copy(update={"output": output, "head": tuple(sorted(head_modules(model, output)))})


def _bring_peft(tuned: Any, came: Admitted, *, keeps_head: bool) -> Any:
    """Give the peft adapter on `tuned` the start's tensors; a head only where it gives the same."""
    heads = {} if keeps_head else {key: tensor for key, tensor in peft_state(tuned).items() if not is_inner(key)}
    inner = {key: tensor for key, tensor in came.tensors.items() if keeps_head or is_inner(key)}
    fill_peft(tuned, inner | heads, where=str(came.folder / WEIGHTS))
    return tuned


def _tops(model: Any, output: Output) -> tuple[str, ...]:
    return tuple(f"{name}." for name in head_modules(model, output))


def _said(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
