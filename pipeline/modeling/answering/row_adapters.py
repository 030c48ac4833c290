"""Which LoRA of a shared model speaks for which row of a call. One adapter for all rows costs nothing; several share the base.

Several are one product more, not several: their matrices stand side by side, and each row counts at the places of its own adapter
alone. peft's own mixing (`adapter_names`) takes the batch apart in each layer for each adapter; it is used for layers of another
kind. DoRA cannot be mixed by either, so its rows have a lane, and calls, of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft.tuners.lora.layer import Linear, LoraLayer
from peft.utils.other import AuxiliaryTrainingWrapper

_Layout = tuple[tuple[str, int, float], ...]
"""Of each adapter that stands beside others: its name, its rank and its factor."""
_BARE = "__base__"
_WIDEST = 1024
"""Ranks of all adapters together up to which those that spoke before stay beside those that speak now."""


class RowAdapters:
    """model: a peft model that carries LoRAs. Call `renew` after one was put on or taken off."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._names: list[str] | None = None
        self._mixed: tuple[str, ...] = ()
        self._active: str | None = None
        self._hooks: list[Any] = []
        self._beside: dict[Any, tuple[torch.Tensor, torch.Tensor, _Layout] | None] = {}
        self._shares: dict[_Layout, torch.Tensor] = {}
        self.renew()

    def renew(self) -> None:
        """Hold on to the layers there are now; which adapter is switched on is not known any more."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for layer in self._model.modules():
            if _is_plain(layer):
                self._hooks.append(layer.register_forward_pre_hook(self._bare, with_kwargs=True))
                self._hooks.append(layer.register_forward_hook(self._add))
            elif isinstance(layer, LoraLayer | AuxiliaryTrainingWrapper):
                self._hooks.append(layer.register_forward_pre_hook(self._tell, with_kwargs=True))
        self._active, self._mixed = None, ()
        self._beside.clear()

    @contextlib.contextmanager
    def speaking(self, names: Sequence[str], *, steady: bool) -> Iterator[None]:
        """Within it a call has a row for each of `names`. steady: more such calls follow, so that switching is worth its time."""
        alone = names[0] if len(set(names)) == 1 else None
        if alone is not None and alone != self._active and steady:
            self.only(alone)
        self._names = None if alone is not None and alone == self._active else list(names)
        if self._names is not None and not set(self._names) <= set(self._mixed):
            self._mix(set(self._names))
        try:
            yield
        finally:
            self._names = None
            self._shares.clear()

    def only(self, name: str) -> None:
        """Switch `name` on for calls that follow."""
        if name != self._active:
            self._model.set_adapter(name, inference_mode=True)
            self._active = name

    def _mix(self, names: set[str]) -> None:
        """Which adapters stand side by side from now on."""
        both = names | set(self._mixed)
        ranks = [int(self._model.peft_config[name].r) for name in both]
        self._mixed = tuple(sorted(both if sum(ranks) <= _WIDEST else names))
        self._beside.clear()

    def _tell(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        return None if self._names is None else (args, {**kwargs, "adapter_names": self._names})

    def _bare(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Have the layer give what the base alone gives."""
        return None if self._names is None else (args, {**kwargs, "adapter_names": [_BARE] * len(self._names)})

    def _add(self, module: Any, args: Any, made: torch.Tensor) -> torch.Tensor | None:
        """What the rows' adapters add to that."""
        if self._names is None:
            return None
        if module not in self._beside:
            self._beside[module] = _side_by_side(module, self._mixed)
        found = self._beside[module]
        if found is None:
            return None
        down, up, layout = found
        if layout not in self._shares:
            self._shares[layout] = _share(layout, self._names, down)
        share = self._shares[layout].view(len(self._names), *([1] * (args[0].dim() - 2)), -1)
        inner = torch.nn.functional.linear(args[0].to(down.dtype), down) * share
        return made + torch.nn.functional.linear(inner, up).to(made.dtype)


def _is_plain(layer: Any) -> bool:
    """A linear layer whose LoRAs are two matrices and a factor, nothing more."""
    if not isinstance(layer, LoraLayer) or not hasattr(layer, "_mixed_batch_forward"):
        return False
    if not isinstance(layer.get_base_layer(), torch.nn.Linear) or type(layer).__name__ not in (Linear.__name__, "Linear4bit"):
        return False
    return not any(layer.lora_bias.values()) and not layer.lora_variant


def _side_by_side(layer: Any, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor, _Layout] | None:
    """[ranks, in] and [out, ranks] of those adapters that the layer has, and which ranks are whose; None if it has none."""
    own = [name for name in names if name in layer.lora_A]
    if not own:
        return None
    downs = [layer.lora_A[name].weight.detach() for name in own]
    ups = [layer.lora_B[name].weight.detach() for name in own]
    layout = tuple((name, len(down), float(layer.scaling[name])) for name, down in zip(own, downs, strict=True))
    return torch.cat(downs), torch.cat(ups, 1), layout


def _share(layout: _Layout, names: Sequence[str], like: torch.Tensor) -> torch.Tensor:
    """[rows, ranks]: the factor of a row's own adapter at that adapter's ranks, zero elsewhere."""
    starts, at = {}, 0
    for name, ranks, factor in layout:
        starts[name] = (at, ranks, factor)
        at += ranks
    share = torch.zeros(len(names), at)
    for row, name in enumerate(names):
        if name in starts:
            start, ranks, factor = starts[name]
            share[row, start : start + ranks] = factor
    return share.to(like)
