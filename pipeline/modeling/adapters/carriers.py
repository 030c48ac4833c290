"""The loaded models that adapters stand on: LoRAs of one precision and head share one, anything else has one to itself.

What is asked of them is generate.py's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.domain.tuning import Output
from pipeline.modeling.adapters.admission import Admitted, attach
from pipeline.modeling.adapters.handshake import Handshake
from pipeline.modeling.answering.greedy import generation
from pipeline.modeling.loading import end_tokens, load_base


class Carriers:
    """Models of the base in the folder `path`. usual: the output that the bare base is loaded for."""

    def __init__(self, path: Path, tokenizer: Any, usual: Output) -> None:
        self._path, self._tokenizer, self._usual = path, tokenizer, usual
        self._shared: dict[tuple[bool, Output, tuple[str, ...]], Any] = {}
        self._bare: Any = None

    def put(self, admitted: Admitted, name: str) -> Any:
        """The model that carries what was admitted, as `name`. Raises Broken, leaving others as they were, when it is refused."""
        said = admitted.handshake
        if not said.shares_base:
            return attach(self._load(said.output, said.labels, quantize=said.quantized), admitted, name)
        idle = self._bare if (_quantized(self._bare), self._usual) == (said.quantized, Output.TEXT) else None
        model = self._shared.get(_kind(said)) or idle or self._load(said.output, said.labels, quantize=said.quantized)
        self._shared[_kind(said)] = carrier = attach(model, admitted, name)
        self._bare = None if model is self._bare else self._bare
        return carrier

    def take_off(self, model: Any, said: Handshake, name: str) -> None:
        """Forget what stands on a model as `name`, and the model when it carries nothing else."""
        if not said.shares_base:
            return
        others = [other for other in model.peft_config if other != name]
        if others:
            model.set_adapter(others[0], inference_mode=True)
            model.delete_adapter(name)
        else:
            self._shared.pop(_kind(said))

    def bare(self, *, quantized: bool) -> Any:
        """A model of the base in that precision: one that LoRAs share, to be asked with all of them off, or one of its own."""
        shared = next((model for (quantize, *_), model in self._shared.items() if quantize is quantized), None)
        if shared is not None:
            return shared
        if _quantized(self._bare) is not quantized:
            self._bare = self._load(self._usual, (), quantize=quantized)
        return self._bare

    def _load(self, output: Output, labels: tuple[str, ...], *, quantize: bool) -> Any:
        # The head of a bare base is never asked, but the library wants to know its size.
        model = load_base(self._path, output, labels or ("0", "1"), quantize=quantize)
        if output is Output.TEXT:
            model.config.use_cache = True
            # What a base's own config says of sampling and lengths would fill the gaps that ours leaves; only its ends are kept.
            model.generation_config = generation(1, end_tokens(model, self._tokenizer), self._tokenizer.pad_token_id)
        return model


def _kind(said: Handshake) -> tuple[bool, Output, tuple[str, ...]]:
    """What LoRAs must have in common to share a model."""
    return said.quantized, said.output, said.labels


def _quantized(model: Any) -> bool | None:
    return None if model is None else bool(getattr(model, "is_loaded_in_4bit", False))
