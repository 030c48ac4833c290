"""Full and last-layers tuning: which of the base's own weights learn, and putting tuned ones in the place of the base's.

Tensors are named as the model names its parameters, a tied one once. They are trained and written in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.domain.tuning import Output, Tuner
from pipeline.errors import Broken, Misuse
from pipeline.modeling.adapters.tensor_files import keys, tensors
from pipeline.modeling.loading import head_modules


def tuned_names(model: Any, tuner: Tuner, layers: int, output: Output) -> tuple[str, ...]:
    """Names of the parameters of the bare `model` that full or last_layers tuning trains, in the model's order.

    last_layers: the last `layers` of them, the norm after them, and the head: labels and scores have one of their own, text has
    the output embedding unless it is tied to the input's. Raises Misuse when the model has fewer layers.
    """
    names = [name for name, _ in model.named_parameters()]
    if tuner is Tuner.FULL:
        return tuple(names)
    prefix, found = _layers(model)
    if layers > len(found):
        raise Misuse(f"the base has {len(found)} layers, and the last {layers} are to be tuned", where="train.layers")
    last = [f"{prefix}.{place}." for place in range(len(found) - layers, len(found))]
    head = [f"{name}." for name in head_modules(model, output)]
    wanted = tuple(last + head + [f"{name}." for name in _norms_after(model, prefix)])
    own_output = {id(p) for p in model.get_output_embeddings().parameters()} if output is Output.TEXT else set()
    tied = {id(p) for p in model.get_input_embeddings().parameters()}
    chosen = {name for name, p in model.named_parameters() if name.startswith(wanted) or id(p) in own_output - tied}
    return tuple(name for name in names if name in chosen)


def make_trainable(model: Any, names: tuple[str, ...]) -> Any:
    """`model` with just the parameters `names` trainable, in fp32."""
    chosen = set(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
        if name in chosen:
            parameter.data = parameter.data.float()
    return model


def fill(model: Any, path: Path, names: tuple[str, ...], *, skip: Callable[[str], bool] = lambda _: False) -> None:
    """Put the tensors of the safetensors file `path` in the place of the parameters `names` of the bare `model`.

    One tensor is in memory at a time. Raises Broken unless they are exactly those, but for what may be skipped, of those shapes.
    """
    places = dict(model.named_parameters())
    held = {key for key in keys(path) if not skip(key)}
    for name in names:
        if name not in held:
            raise Broken(f"the tensor {name} is missing", where=str(path))
    for name in sorted(held - set(names)):
        raise Broken(f"the tensor {name} has no place in this base", where=str(path))
    with torch.no_grad():
        for name, tensor in tensors(path):
            if name not in held:
                continue
            if tensor.shape != places[name].shape:
                shapes = f"{tuple(tensor.shape)}, not {tuple(places[name].shape)}"
                raise Broken(f"{name} has the shape {shapes}", where=str(path))
            places[name].copy_(tensor)


def _layers(model: Any) -> tuple[str, nn.ModuleList]:
    """The list of the body's layers, with its name: the one that is as long as the config says, the outermost."""
    depth = getattr(model.config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return name, module
    raise Misuse("the base's layers are not in a list that can be told from others", where="train.tuner", fix="tune full or lora")


def _norms_after(model: Any, layers: str) -> list[str]:
    """Norms that stand beside the list of layers, or beside what holds it, up to the body; not those of embeddings."""
    found, inner = [], layers
    while "." in inner:
        inner = inner.rsplit(".", 1)[0]
        for name, child in model.get_submodule(inner).named_children():
            if type(child).__name__.endswith("Norm") and "embed" not in name:
                found.append(f"{inner}.{name}")
    return found
