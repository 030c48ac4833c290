"""Admits a peft LoRA from elsewhere, as something to go on training from. Nothing of it is believed but numbers and tensors.

Its config is read as JSON and every key held against those that peft's own LoRA has; what could make a library import or fetch
something is refused before any library sees it. The LoRA that is then trained is made anew from numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from pipeline.domain.data import Task
from pipeline.domain.model import BaseModelRef
from pipeline.domain.tuning import Objective, Output, Tuner
from pipeline.errors import Broken
from pipeline.modeling.adapters.admission import Admitted
from pipeline.modeling.adapters.folder_checks import read_object, refuse_files
from pipeline.modeling.adapters.handshake import CONFIG, HANDSHAKE, TEMPLATE, WEIGHTS, Handshake
from pipeline.modeling.adapters.tensor_files import FLOATS, tensors
from pipeline.modeling.base import TOKENIZER_FILES

_UNREAD = {"README.md", ".gitattributes", TEMPLATE, *TOKENIZER_FILES}
"""What such folders also hold. None of it is opened."""
_OWN = {"r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora"}
"""Keys whose values are taken over."""
_ANY = {"base_model_name_or_path", "revision", "peft_version", "inference_mode", "task_type", "fan_in_fan_out"}
"""Keys whose values are of no consequence: they say where it was made, or peft finds them by itself."""


def is_foreign(folder: Path) -> bool:
    """Whether a folder is a peft adapter that is none of ours."""
    return folder.is_dir() and not (folder / HANDSHAKE).exists()


def admit_foreign(folder: Path, base: BaseModelRef) -> Admitted:
    """Judge the LoRA in `folder` for use on `base`, which it does not vouch for: whether it fits shows when it is put there.

    Raises Broken, with a sentence, for everything that keeps it out. Tensors in half precision come back in fp32.
    """
    refuse_files(folder, {CONFIG, WEIGHTS, *_UNREAD})
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise Broken(f"{name} is missing", where=str(folder), fix="name the folder of a peft LoRA, saved as safetensors")
    config = _read_config(folder / CONFIG)
    held = _read_tensors(folder / WEIGHTS, config)
    handshake = Handshake(
        tuner=Tuner.LORA,
        output=Output.TEXT,
        objective=Objective.SFT,
        task=Task.GENERATE,
        labels=(),
        base=base,
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=float(config.get("lora_dropout", 0.0)),
        rslora=config.get("use_rslora", False),
        dora=config.get("use_dora", False),
        target_modules=_targets(held),
        max_length=1,
        untouched=(),
        probe=(),
    )
    return Admitted(folder, handshake, held, None)


def _read_config(path: Path) -> dict[str, Any]:
    """The config's numbers. Everything else in it must be as it is in a LoRA that asks for nothing special."""
    config = read_object(path)
    plain = json.loads(json.dumps(LoraConfig().to_dict(), default=str))
    if config.get("peft_type") != "LORA":
        raise Broken(f"peft_type is {config.get('peft_type')!r}; from elsewhere only LoRA can be gone on from", where=str(path))
    for key, value in sorted(config.items()):
        if key not in plain:
            raise Broken(f"the key {key!r} is not known; it may make peft import code", where=str(path))
        usual = plain[key]
        if key not in _OWN | _ANY and value != usual and not (value in (None, [], {}) and usual in (None, [], {}, False)):
            raise Broken(f"{key} is {value!r}, which is not supported; a plain LoRA has {usual!r}", where=str(path))
    for key, kind in (("r", int), ("lora_alpha", int), ("lora_dropout", float), ("use_rslora", bool), ("use_dora", bool)):
        value = config.get(key, plain[key])
        whole = isinstance(value, int) and not isinstance(value, bool)
        fits = whole if kind is int else isinstance(value, bool) if kind is bool else whole or isinstance(value, float)
        if not fits or not 0 <= value <= 1 << 20 or (kind is int and value == 0):
            raise Broken(f"{key} is {value!r}, which no LoRA has", where=str(path))
    if not isinstance(config.get("target_modules"), str | list):
        raise Broken("target_modules names no modules", where=str(path))
    return config


def _read_tensors(path: Path, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    held = dict(tensors(path, FLOATS))
    for key, tensor in sorted(held.items()):
        if ".lora_" not in key:
            raise Broken(f"the tensor {key} is part of no LoRA; heads and embeddings of others are not taken", where=str(path))
        side = 0 if ".lora_A." in key else 1 if ".lora_B." in key else None
        if side is not None and (tensor.dim() != 2 or tensor.shape[side] != config["r"]):
            raise Broken(f"{key} has the shape {tuple(tensor.shape)}, which is not of rank {config['r']}", where=str(path))
    if not any(".lora_B." in key and bool(tensor.any()) for key, tensor in held.items()):
        raise Broken("this LoRA changes nothing: its lora_B are all zero", where=str(path))
    return held


def _targets(held: dict[str, torch.Tensor]) -> tuple[str, ...]:
    """The modules that the LoRA goes beside, by the ends of their names, from the tensors that there are."""
    return tuple(sorted({key.split(".lora_")[0].rsplit(".", 1)[-1] for key in held}))
