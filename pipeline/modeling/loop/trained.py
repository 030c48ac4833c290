"""The weights that a training changes, as one safetensors file: what a checkpoint keeps of a model, whatever the tuner.

Names and shapes must be those of the model when it is read again. An adapter's published form is adapter.py's.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.errors import Broken
from pipeline.modeling.parallel.ranks import ranks
from pipeline.modeling.parallel.sharding import spread_like, whole


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name; one that has two names (tied embeddings) by its first."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def write_trained(model: nn.Module, path: Path) -> None:
    """Write the trainable weights to `path`, as they are, in their own number type.

    Where several processes train, all call this and the first one writes: weights that are spread over them are put together.
    """
    tensors = {name: whole(weight.detach()) for name, weight in trainable(model).items()}
    if ranks().first:
        write_tensors(tensors, path)


def write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write tensors to `path`. Raises OSError when they cannot be."""
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_trained(model: nn.Module, path: Path) -> None:
    """Put the weights in `path` in the place of the model's. Raises Broken when they are another training's, or damaged."""
    tensors = read_tensors(path)
    weights = trainable(model)
    for name in sorted(tensors.keys() ^ weights.keys()):
        has, lacks = ("the file", "the model") if name in tensors else ("the model", "the file")
        raise Broken(f"{has} has weights of {name}, {lacks} does not", where=str(path), fix="remove this folder and run again")
    for name, weight in weights.items():
        if tensors[name].shape != weight.shape or tensors[name].dtype != weight.dtype:
            said = f"the weights of {name} are {list(tensors[name].shape)} {tensors[name].dtype}"
            expected = f"the model's {list(weight.shape)} {weight.dtype}"
            raise Broken(f"{said}, {expected}", where=str(path), fix="remove this folder and run again")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(spread_like(tensors[name], weight))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, on the CPU. Raises Broken when it cannot be read."""
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise Broken(f"the tensors cannot be read: {error}", where=str(path)) from error
