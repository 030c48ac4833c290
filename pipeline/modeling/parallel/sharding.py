"""Weights, gradients and optimizer spread over the processes, and put together again (FSDP: Zhao et al., 2023; `fully_shard`).

Each process keeps a part of every layer's weights and has the whole of one layer only while it computes with it. The Trainer's
own `fsdp` is not used: on CPUs it silently does something else. Checkpoints hold whole tensors, as those of one process do, so
they know nothing of how many wrote them. All functions here are called by all processes together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(model: nn.Module) -> None:
    """Spread `model`, which is the same in all processes, over them: its layers one by one, then all that is left.

    Gradients are summed over processes while they are made, not averaged. From here on a forward pass is a meeting of all.
    """
    place = next(model.parameters()).device.type
    mesh = init_device_mesh(place, (dist.get_world_size(),))
    for layer in layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # what gloo knows


def layers(model: nn.Module) -> list[nn.Module]:
    """The blocks that a model is a stack of: the longest list of modules of one kind."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    alike = [blocks for blocks in lists if blocks and len({type(block) for block in blocks}) == 1]
    return max(alike, key=len, default=[])


def sharded(model: nn.Module) -> bool:
    """Whether `shard` was called on it."""
    return isinstance(model, FSDPModule)


def put_together(model: Any, fresh: Callable[[], Any]) -> Any:
    """`model` as of one process: itself, or where it is spread what `fresh` makes, with its weights. None but in the first.

    fresh: makes the same model again, for which the first process must have room.
    """
    if not sharded(model):
        return model
    tensors = {name: whole(weight.detach()) for name, weight in model.named_parameters() if weight.requires_grad}
    if dist.get_rank() != 0:
        return None
    again = fresh()
    with torch.no_grad():
        for name, weight in again.named_parameters():
            if weight.requires_grad:
                weight.copy_(tensors[name])
    return again


def whole(value: Any) -> Any:
    """A state as of one process: tensors that are spread are put together, within dicts, lists and tuples too.

    The first process has them, on the CPU; in the others they are let go at once, and None stands for them.
    """
    if isinstance(value, DTensor):
        together = value.full_tensor()
        return together.cpu() if dist.get_rank() == 0 else None
    if isinstance(value, dict):
        return {key: whole(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(part) for part in value)
    return value


def spread_like(tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A whole tensor, the same in all processes, spread as `weight` is; as it is when that is not spread."""
    if not isinstance(weight, DTensor):
        return tensor
    return distribute_tensor(tensor.to(weight.device), weight.device_mesh, weight.placements)


def keep_whole(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer of spread weights give and take its state as one of whole weights would."""
    optimizer.register_state_dict_post_hook(lambda _, state: whole(state))
    optimizer.register_load_state_dict_pre_hook(lambda asked, state: spread_optimizer(state, asked))


def spread_optimizer(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's whole state spread as its weights are."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    of = dict(zip(numbers, weights, strict=True))

    def spread(number: int, value: Any) -> Any:
        alike = isinstance(value, torch.Tensor) and value.shape == of[number].shape
        return spread_like(value, of[number]) if alike else value

    spread_out = {number: {key: spread(number, value) for key, value in part.items()} for number, part in state["state"].items()}
    return {**state, "state": spread_out}
