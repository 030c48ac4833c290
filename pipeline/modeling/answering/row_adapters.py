"""Which LoRA of a shared model speaks for which row of a call. One adapter for all rows costs nothing; several share the base.

peft takes a name for each row (`adapter_names`), and sets a hook on every module for every call; here hooks stay, and are told.
DoRA cannot be mixed in one call (peft refuses it), so such an adapter's rows have a lane, and calls, of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from peft.tuners.lora.layer import LoraLayer
from peft.utils.other import AuxiliaryTrainingWrapper


class RowAdapters:
    """model: a peft model that carries LoRAs. Call `renew` after one was put on or taken off."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._names: list[str] | None = None
        self._active: str | None = None
        self._hooks: list[Any] = []
        self.renew()

    def renew(self) -> None:
        """Hold on to the layers there are now; which adapter is switched on is not known any more."""
        for hook in self._hooks:
            hook.remove()
        layers = [module for module in self._model.modules() if isinstance(module, LoraLayer | AuxiliaryTrainingWrapper)]
        self._hooks = [layer.register_forward_pre_hook(self._tell, with_kwargs=True) for layer in layers]
        self._active = None

    @contextlib.contextmanager
    def speaking(self, names: Sequence[str], *, steady: bool) -> Iterator[None]:
        """Within it a call has a row for each of `names`. steady: more such calls follow, so that switching is worth its time."""
        alone = names[0] if len(set(names)) == 1 else None
        if alone is not None and alone != self._active and steady:
            self.only(alone)
        self._names = None if alone is not None and alone == self._active else list(names)
        try:
            yield
        finally:
            self._names = None

    def only(self, name: str) -> None:
        """Switch `name` on for calls that follow."""
        if name != self._active:
            self._model.set_adapter(name, inference_mode=True)
            self._active = name

    def _tell(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        return None if self._names is None else (args, {**kwargs, "adapter_names": self._names})
