"""What an adapter's folder must be before anything in it is believed: names of files, JSON, the config, the template, tensors.

Files are only read here, by the strictest reader there is for each; no model enters. What is done with them is admission.py's.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from pipeline.domain.data import Task
from pipeline.domain.model import BaseModelRef
from pipeline.domain.record import digest_bytes
from pipeline.domain.tuning import Tuner
from pipeline.errors import Broken
from pipeline.modeling.adapters.adapter import config_as_written, untouched
from pipeline.modeling.adapters.handshake import CONFIG, HANDSHAKE, TEMPLATE, TUNED_WEIGHTS, WEIGHTS, Handshake
from pipeline.modeling.adapters.tensor_files import tensors

JSON_LIMIT = 1 << 20
REQUIRED_KEYS = {"peft_type", "task_type", "base_model_name_or_path"}
REQUIRED_OF = {
    Tuner.LORA: {"r", "lora_alpha", "target_modules"},
    Tuner.QLORA: {"r", "lora_alpha", "target_modules"},
    Tuner.SOFT_PROMPT: {"num_virtual_tokens"},
}


def refuse_files(folder: Path, allowed: Collection[str]) -> None:
    """Raise Broken when a folder holds anything but files of the names `allowed`, or is none."""
    if not folder.is_dir():
        raise Broken("there is no adapter folder", where=str(folder))
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            raise Broken("a link, folder or special file has no place in an adapter", where=str(path))
        if path.name not in allowed:
            why = (
                "it can run code when it is read" if path.suffix in {".bin", ".pt", ".pth", ".pkl", ".py"} else "it is not known"
            )
            raise Broken(f"{path.name} has no place in an adapter: {why}", where=str(path))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file that nobody vouches for. Raises Broken when it is none, too large, or names a key twice."""
    if path.stat().st_size > JSON_LIMIT:
        raise Broken("far too large for what it should be", where=str(path))
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise Broken(f"not readable as JSON: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise Broken("not a JSON object", where=str(path))
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({k for k, _ in pairs}) != len(pairs):
        raise ValueError("a key appears twice")
    return dict(pairs)


def read_handshake(folder: Path) -> Handshake:
    """What the adapter in `folder` says of itself; nothing of it is checked yet. Raises Broken when it cannot be read."""
    if not (folder / HANDSHAKE).is_file():
        raise Broken(f"{HANDSHAKE} is missing", where=str(folder))
    said = read_object(folder / HANDSHAKE)
    try:
        return Handshake.model_validate_json(json.dumps(said))
    except ValidationError as error:
        raise Broken(f"the handshake cannot be read: {error}", where=str(folder / HANDSHAKE)) from error


def check_parts(folder: Path, handshake: Handshake) -> None:
    """The files that such a tuning has, all of them and no others."""
    parts = {CONFIG: handshake.has_peft, WEIGHTS: handshake.has_peft, TUNED_WEIGHTS: handshake.weights is not None}
    for name, wanted in parts.items():
        if wanted and not (folder / name).is_file():
            raise Broken(f"{name} is missing", where=str(folder))
        if not wanted and (folder / name).exists():
            raise Broken(f"{name} does not belong to what {handshake.tuner} tunes", where=str(folder))


def check_config(folder: Path, handshake: Handshake) -> None:
    """Every key known, every value the one that belongs to the handshake. Keys that peft has added since may be absent."""
    path = folder / CONFIG
    config = read_object(path)
    expected = config_as_written(handshake)
    for key in sorted(config.keys() - expected.keys()):
        raise Broken(f"the key {key!r} is not known; it may make peft import code", where=str(path))
    for key in sorted((REQUIRED_KEYS | REQUIRED_OF[handshake.tuner]) - config.keys()):
        raise Broken(f"the key {key!r} is missing", where=str(path))
    for key, value in sorted(config.items()):
        listed = sorted(value, key=str) if isinstance(value, list) else value
        if key != "peft_version" and (type(listed) is not type(expected[key]) or listed != expected[key]):
            raise Broken(f"{key} is {value!r}, where the handshake makes it {expected[key]!r}", where=str(path))


def read_template(folder: Path, handshake: Handshake) -> str | None:
    """The chat template's text, None for a classifier, which has none."""
    path = folder / TEMPLATE
    if handshake.task is Task.CLASSIFY:
        if path.exists():
            raise Broken("a classifier has no chat template", where=str(path))
        return None
    if not path.is_file():
        raise Broken(f"{TEMPLATE} is missing", where=str(folder))
    content = path.read_bytes()
    if digest_bytes(content) != handshake.base.template:
        raise Broken("the chat template is not the one that the adapter was trained with", where=str(path))
    return content.decode("utf-8")


def check_base(folder: Path, trained_on: BaseModelRef, offered: BaseModelRef) -> None:
    """Raise Broken unless both have the same weights and tokenizer."""
    for part in ("weights", "tokenizer"):
        if getattr(trained_on, part) != getattr(offered, part):
            raise Broken(
                f"the adapter was trained on {trained_on.id} with other {part} than the {offered.id} it is to be put on",
                where=str(folder),
                fix="give it the base it was trained on",
            )


def read_peft(folder: Path, handshake: Handshake) -> dict[str, torch.Tensor]:
    """The peft adapter's tensors, by key. Raises Broken for those that hold nothing, or no finite number."""
    path = folder / WEIGHTS
    held = dict(tensors(path))
    if not any(".lora_B." in key or key == "prompt_embeddings" for key in held):
        raise Broken("there is neither a LoRA nor a soft prompt in it", where=str(path))
    _check_zeroed(untouched(held), handshake, path)
    return held


def check_replaced(folder: Path, handshake: Handshake) -> None:
    """The tensors that replace the base's, one at a time, in the same way."""
    path = folder / TUNED_WEIGHTS
    _check_zeroed(tuple(name for name, tensor in tensors(path) if not bool(tensor.any())), handshake, path)


def _check_zeroed(zero: tuple[str, ...], handshake: Handshake, path: Path) -> None:
    zeroed = sorted(set(zero) - set(handshake.untouched))
    if zeroed:
        raise Broken(f"{zeroed[0]} is all zeros, so this part of the adapter does nothing", where=str(path))
