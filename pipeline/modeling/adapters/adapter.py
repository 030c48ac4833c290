"""Writes what was tuned into a folder: a peft adapter, or weights that replace the base's, or both, with a handshake.

The peft part (adapter_config.json, adapter_model.safetensors) needs nothing of ours; beside it lie tuned_weights.safetensors,
where the base's own weights were tuned, the chat template, and `tuneline.json`, the handshake: what it was trained on and how.
Reading such a folder is admission.py's, which trusts none of it. Same seed, same data, same machine: same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from pipeline.domain.data import Task
from pipeline.domain.model import BaseModelRef
from pipeline.domain.record import canonical_json
from pipeline.domain.tuning import Tuner
from pipeline.errors import Broken
from pipeline.modeling.adapters.handshake import CONFIG, HANDSHAKE, NAME, TEMPLATE, TUNED_WEIGHTS, WEIGHTS, Handshake, Shape
from pipeline.modeling.adapters.probing import probe
from pipeline.modeling.adapters.tensor_files import keys, tensors
from pipeline.modeling.tuners.lora import lora_config
from pipeline.modeling.tuners.soft_prompt import soft_config
from pipeline.params import StageParams


@dataclass(frozen=True, slots=True)
class Making:
    """What tuners.tunable notes on a model for the day it is written, as `model.making`.

    shape: of what is tuned. replaced: names of the parameters that stand in the base's place, trained or brought by the start.
    bare: the bare base's hidden states (probing.bare_states), where its weights are tuned.
    """

    shape: Shape
    replaced: tuple[str, ...] = ()
    bare: torch.Tensor | None = None


def write_adapter(
    model: Any,
    folder: Path,
    *,
    base: BaseModelRef,
    task: Task,
    labels: tuple[str, ...],
    stage: StageParams,
    template: str | None,
    start: Path | None,
) -> Handshake:
    """Write what was tuned on `model` (as tuners.tunable gave it) to the new folder `folder`.

    start: what it began from; weights that it brought and that were not trained are copied from there. Raises Broken when the
    tuning changes nothing or is not finite.
    """
    making: Making = model.making
    shape = making.shape
    seen = probe(model, shape, bare=making.bare)
    if not seen.finite or seen.change == 0.0:
        raise Broken("what was tuned leaves the base as it was" if seen.finite else "what was tuned gives no finite logits")
    folder.mkdir(parents=True, exist_ok=True)
    zero = _write_replaced(model, folder / TUNED_WEIGHTS, making, start) if shape.weights else ()
    if shape.has_peft:
        held = peft_state(model)
        save_file(held, folder / WEIGHTS, metadata={"format": "pt"})
        zero += untouched(held)
    handshake = Handshake(
        **shape.model_dump(),
        base=base,
        task=task,
        objective=stage.learns(task),
        labels=labels,
        max_length=stage.max_length,
        untouched=tuple(sorted(zero)),
        probe=seen.values,
    )
    if shape.has_peft:
        config = json.dumps(config_as_written(handshake), sort_keys=True, indent=2)
        (folder / CONFIG).write_text(config + "\n", encoding="utf-8")
    (folder / HANDSHAKE).write_text(canonical_json(handshake.model_dump(mode="json")) + "\n", encoding="utf-8")
    if template is not None:
        (folder / TEMPLATE).write_bytes(template.encode())
    return handshake


def peft_config(shape: Shape, *, frozen: bool = False) -> Any:
    """peft's configuration of a LoRA or a soft prompt."""
    return soft_config(shape, frozen=frozen) if shape.tuner is Tuner.SOFT_PROMPT else lora_config(shape, frozen=frozen)


def peft_state(model: Any, name: str = NAME) -> dict[str, torch.Tensor]:
    """A peft adapter's tensors by the keys they have on disk, contiguous fp32 on the CPU."""
    found = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    return {k: v.detach().to("cpu", torch.float32).contiguous().clone() for k, v in found.items()}


def is_inner(key: str) -> bool:
    """Whether a peft adapter's tensor is part of a LoRA or soft prompt, not of a head that is kept with it."""
    return ".lora_" in key or key == "prompt_embeddings"


def config_as_written(handshake: Handshake) -> dict[str, Any]:
    """The adapter_config.json that belongs to a handshake: the base as params name it, lists sorted, no machine's path."""
    written = peft_config(handshake, frozen=True).to_dict()
    written |= {"base_model_name_or_path": handshake.base.id, "revision": handshake.base.revision}
    listed = {k: sorted(v) if isinstance(v, set | list | tuple) else v for k, v in written.items()}
    return dict(json.loads(json.dumps(listed)))


def untouched(held: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Keys of those tensors that are zero throughout and without which tuning does nothing: lora_B, soft prompts."""
    does = {k: v for k, v in held.items() if ".lora_B." in k or k == "prompt_embeddings"}
    return tuple(sorted(k for k, v in does.items() if not bool(v.any())))


def _write_replaced(model: Any, path: Path, making: Making, start: Path | None) -> tuple[str, ...]:
    """Write the tensors that replace the base's; returns the names of those that are zero throughout."""
    came_from = start / TUNED_WEIGHTS if start is not None and (start / TUNED_WEIGHTS).is_file() else None
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad and name in set(making.replaced)}
    if not trained and came_from is not None and set(keys(came_from)) == set(making.replaced):
        shutil.copyfile(came_from, path)
        return tuple(name for name, tensor in tensors(path) if not bool(tensor.any()))
    brought = dict(tensors(came_from)) if came_from is not None else {}
    held = {name: brought[name] for name in making.replaced if name not in trained}
    held |= {name: p.detach().to("cpu", torch.float32).contiguous() for name, p in trained.items()}
    save_file(held, path, metadata={"format": "pt"})
    return tuple(name for name, tensor in held.items() if not bool(tensor.any()))
