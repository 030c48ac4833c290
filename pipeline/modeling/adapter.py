"""The adapter: put on a base for training, written to a folder, described by a handshake.

The folder is a plain peft adapter (adapter_config.json, adapter_model.safetensors) that needs nothing of ours, with the chat
template beside it and `tuneline.json`, the handshake: what it was trained on and how. Reading one back is admission.py's,
which trusts none of these files. Same seed, same data, same machine: same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, TaskType, get_peft_model, get_peft_model_state_dict, prepare_model_for_kbit_training
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from pipeline.domain.data import Task
from pipeline.domain.model import BaseModelRef
from pipeline.domain.record import Value, canonical_json
from pipeline.domain.tuning import Tuner
from pipeline.errors import Broken, Misuse
from pipeline.modeling.loading import head_modules, inference
from pipeline.params import TrainParams

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
HANDSHAKE = "tuneline.json"
TEMPLATE = "chat_template.jinja"
NAME = "default"


class Handshake(Value):
    """What an adapter says of itself, and must live up to when it is loaded.

    untouched: lora_B tensors that training left at zero (an expert never routed to, say); any other that is zero was zeroed
    since. probe: logits for a fixed input, four significant digits: base, adapter, alpha and template of one piece give these.
    """

    format: Literal[1] = 1
    base: BaseModelRef
    task: Task
    labels: tuple[str, ...]
    tuner: Tuner
    rank: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]
    head: tuple[str, ...]
    max_length: int
    untouched: tuple[str, ...]
    probe: tuple[float, ...]

    @property
    def quantized(self) -> bool:
        return self.tuner is Tuner.QLORA


@dataclass(frozen=True, slots=True)
class Probe:
    """What a fixed input gives. values: some logits, for the handshake. change: largest difference the adapter makes."""

    values: tuple[float, ...]
    change: float
    finite: bool


def new_adapter(model: Any, params: TrainParams, task: Task) -> Any:
    """`model` with a fresh trainable adapter, drawn from torch's random state. Raises Misuse for modules it has not."""
    head = head_modules(model, task)
    targets = target_modules(model, params.target_modules, head)
    if params.tuner == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    tuned = get_peft_model(model, lora_config(targets, params.rank, params.alpha, params.dropout, task, head), adapter_name=NAME)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return tuned


def lora_config(
    targets: tuple[str, ...],
    rank: int,
    alpha: int,
    dropout: float,
    task: Task,
    head: tuple[str, ...],
    *,
    frozen: bool = False,
) -> LoraConfig:
    """Our LoRA (Hu et al., 2021): scale alpha / rank, B starting at zero. Made from numbers, never from a file."""
    return LoraConfig(
        task_type=TaskType.SEQ_CLS if task is Task.CLASSIFY else TaskType.CAUSAL_LM,
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        modules_to_save=list(head) or None,
        inference_mode=frozen,
    )


def target_modules(model: Any, wanted: tuple[str, ...] | str, head: tuple[str, ...]) -> tuple[str, ...]:
    """The modules to adapt, by the ends of their names; all-linear means all but head and output embedding.

    Raises Misuse for a name that fits no linear module, listing those that would.
    """
    output = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not output]
    inner = [name for name in linear if not f"{name}.".startswith(tuple(f"{top}." for top in head) or "\0")]
    endings = sorted({name.rsplit(".", 1)[-1] for name in inner})
    if wanted == "all-linear":
        return tuple(endings)
    unknown = sorted(t for t in wanted if not any(name == t or name.endswith(f".{t}") for name in inner))
    if unknown:
        raise Misuse(
            f"the base has no linear module called {', '.join(unknown)}",
            where="train.target_modules",
            fix=f"choose among {', '.join(endings)}, or write all-linear",
        )
    return tuple(sorted(wanted))


def state(model: Any, name: str = NAME) -> dict[str, torch.Tensor]:
    """The adapter's tensors by the keys they have on disk, contiguous fp32 on the CPU."""
    found = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    return {k: v.detach().to("cpu", torch.float32).contiguous().clone() for k, v in found.items()}


def write_weights(model: Any, folder: Path, name: str = NAME) -> dict[str, torch.Tensor]:
    """Write the adapter's tensors alone, as a checkpoint holds them."""
    tensors = state(model, name)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return tensors


def write_adapter(
    model: Any,
    folder: Path,
    *,
    base: BaseModelRef,
    task: Task,
    labels: tuple[str, ...],
    params: TrainParams,
    template: str | None,
) -> Handshake:
    """Write the trained adapter `default` to the new folder `folder`. Raises Broken when it changes nothing or is not finite."""
    seen = probe(model, NAME)
    if not seen.finite or seen.change == 0.0:
        raise Broken(
            "the trained adapter leaves the base as it was" if seen.finite else "the trained adapter gives no finite logits"
        )
    tensors = write_weights(model, folder)
    config = model.peft_config[NAME]
    handshake = Handshake(
        base=base,
        task=task,
        labels=labels,
        tuner=params.tuner,
        rank=params.rank,
        alpha=params.alpha,
        dropout=params.dropout,
        target_modules=tuple(sorted(config.target_modules)),
        head=tuple(sorted(set(config.modules_to_save or ()) & set(head_modules(model.get_base_model(), task)))),
        max_length=params.max_length,
        untouched=untouched(tensors),
        probe=seen.values,
    )
    (folder / CONFIG).write_text(json.dumps(config_as_written(handshake), sort_keys=True, indent=2) + "\n", encoding="utf-8")
    (folder / HANDSHAKE).write_text(canonical_json(handshake.model_dump(mode="json")) + "\n", encoding="utf-8")
    if template is not None:
        (folder / TEMPLATE).write_bytes(template.encode())
    return handshake


def config_as_written(handshake: Handshake) -> dict[str, Any]:
    """The adapter_config.json that belongs to a handshake: the base as params name it, lists sorted, no machine's path."""
    written = lora_config(
        handshake.target_modules,
        handshake.rank,
        handshake.alpha,
        handshake.dropout,
        handshake.task,
        handshake.head,
        frozen=True,
    ).to_dict()
    written |= {"base_model_name_or_path": handshake.base.id, "revision": handshake.base.revision}
    listed = {k: sorted(v) if isinstance(v, set | list | tuple) else v for k, v in written.items()}
    return dict(json.loads(json.dumps(listed)))


def untouched(tensors: dict[str, torch.Tensor]) -> tuple[str, ...]:
    """Keys of the lora_B tensors that are zero throughout."""
    return tuple(sorted(k for k, v in tensors.items() if ".lora_B." in k and not bool(v.any())))


def probe(model: Any, name: str) -> Probe:
    """Logits of the adapter `name` on two fixed rows, with and without its LoRA part.

    The head stays in place for both, so that classification is not fooled by its new head alone.
    """
    vocabulary = int(model.config.vocab_size)
    place = next(model.parameters()).device
    ids = torch.tensor([[(i * 7919 + row * 104729 + 13) % vocabulary for i in range(12)] for row in range(2)], device=place)
    layers = [m for m in model.modules() if isinstance(m, LoraLayer) and name in m.scaling]
    scales = [layer.scaling[name] for layer in layers]
    was_training, was_active = model.training, model.active_adapter
    model.eval()
    if was_active != name:
        model.set_adapter(name, inference_mode=True)
    try:
        with inference():
            on = _logits(model, ids)
            for layer in layers:
                layer.scaling[name] = 0.0
            off = _logits(model, ids)
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[name] = scale
        if was_active != name:
            model.set_adapter(was_active, inference_mode=True)
        model.train(was_training)
    finite = bool(torch.isfinite(on).all())
    values = tuple(float(f"{v:.3e}") for v in on[:, :8].flatten().tolist()) if finite else ()
    return Probe(values=values, change=float((on - off).abs().max()), finite=finite)


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The last place's logits (generate) or the row's (classify), fp32 on the CPU: [rows, vocabulary or labels]."""
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return (logits[:, -1] if logits.dim() == 3 else logits).float().cpu()
