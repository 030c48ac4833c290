"""One change to a good adapter's folder, recorded afterwards or not: what an accident, or somebody, leaves behind.

Weights are edited as files. `recorded` is what a forger would do: describe the folder as it is now.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.domain.record import canonical_json, describe_files, digest_bytes
from pipeline.modeling.adapters.handshake import CONFIG, HANDSHAKE, TEMPLATE, WEIGHTS, Handshake
from tests.drills.gate_worlds import Tuned, World

Tensors = dict[str, Any]


def copied(world: World, tuned: Tuned, name: str) -> Tuned:
    """The same training with a folder of its own, still as recorded."""
    folder = world.place(name) / "adapter"
    shutil.copytree(tuned.adapter, folder)
    return replace(tuned, adapter=folder)


def recorded(tuned: Tuned) -> Tuned:
    """The training, saying that this folder is what came out of it."""
    training = tuned.training.model_copy(update={"adapter": describe_files(tuned.adapter)})
    return replace(tuned, training=training)


def edited(world: World, tuned: Tuned, name: str, change: Callable[[Tensors], Tensors | None]) -> Tuned:
    """A copy with changed tensors, recorded."""
    from safetensors.torch import load_file, save_file

    found = copied(world, tuned, name)
    path = found.adapter / WEIGHTS
    tensors = load_file(path)
    changed = change(tensors) or tensors
    save_file({key: tensor.contiguous() for key, tensor in changed.items()}, path, metadata={"format": "pt"})
    return recorded(found)


def says(tuned: Tuned, **changes: Any) -> Tuned:
    """The handshake says otherwise, and the config with it; recorded."""
    from pipeline.modeling.adapters.adapter import config_as_written

    path = tuned.adapter / HANDSHAKE
    handshake = Handshake.model_validate_json(json.dumps(json.loads(path.read_text()) | changes))
    path.write_text(canonical_json(handshake.model_dump(mode="json")) + "\n", encoding="utf-8")
    config = json.dumps(config_as_written(handshake), sort_keys=True, indent=2)
    (tuned.adapter / CONFIG).write_text(config + "\n", encoding="utf-8")
    return recorded(tuned)


def vouched(world: World, tuned: Tuned) -> Tuned:
    """The handshake holds what the weights now answer to the probe, as if they had been trained so; recorded."""
    from pipeline.modeling.adapters.admission import admit, fill_peft, put_peft
    from pipeline.modeling.adapters.handshake import NAME
    from pipeline.modeling.adapters.probing import probe
    from pipeline.modeling.loading import load_base

    admitted = admit(tuned.adapter, tuned.training.base)
    said = admitted.handshake
    model = put_peft(load_base(world.base, said.output, said.labels), admitted, NAME)
    fill_peft(model, admitted.tensors, where=str(tuned.adapter))
    return says(tuned, probe=list(probe(model, said).values))


def retemplated(tuned: Tuned, change: Callable[[str], str], *, forged: bool = False) -> Tuned:
    """Another chat template in the folder. forged: handshake and record name it as the one that was trained with."""
    path = tuned.adapter / TEMPLATE
    text = change(path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    if not forged:
        return tuned
    ref = tuned.training.base.model_copy(update={"template": digest_bytes(text.encode())})
    found = says(tuned, base=ref.model_dump(mode="json"))
    return replace(found, training=found.training.model_copy(update={"base": ref}))


def flipped(path: Path, at: float, bit: int = 6) -> None:
    """One bit of a file turned over, `at` a share of its length."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1 << bit
    path.write_bytes(bytes(data))


def cut(path: Path, share: float) -> None:
    """A file as it is after a copy that stopped."""
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def widened(world: World, tuned: Tuned, name: str, rank: int) -> Tuned:
    """The same function as a LoRA of a far greater rank: zeros beside what was learned, computed all the same."""
    import torch

    def pad(tensors: Tensors) -> Tensors:
        made = {}
        for key, tensor in tensors.items():
            if ".lora_A." in key:
                tensor = torch.cat([tensor, torch.zeros(rank - tensor.shape[0], tensor.shape[1])])
            elif ".lora_B." in key:
                tensor = torch.cat([tensor, torch.zeros(tensor.shape[0], rank - tensor.shape[1])], dim=1)
            made[key] = tensor
        return made

    before = json.loads((tuned.adapter / HANDSHAKE).read_text())
    found = edited(world, tuned, name, pad)
    return says(found, rank=rank, alpha=before["alpha"] * rank // before["rank"])


def other_base(world: World, name: str) -> Path:
    """A base that is another by one weight matrix."""
    from safetensors.torch import load_file, save_file

    folder = world.place(name) / "base"
    shutil.copytree(world.base, folder)
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    key = max(tensors, key=lambda k: tensors[k].numel())
    tensors[key] = tensors[key] * 1.01
    save_file({k: t.contiguous() for k, t in tensors.items()}, path, metadata={"format": "pt"})
    return folder
