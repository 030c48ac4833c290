"""What a base is made of, from config.json and the headers of its safetensors files. No weight is read and no library asked.

What memory and time follow from it is memory.py's and speed.py's.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.errors import Broken, Misuse
from pipeline.modeling.base import check_config

_HEADER_CAP = 64 << 20
_LAYER = re.compile(r"\.(\d+)\.")
_FALLBACKS = {
    "hidden_size": ("n_embd", "d_model", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads"),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size", "hidden_dim"),
    "max_position_embeddings": ("n_positions", "max_seq_len"),
}


@dataclass(frozen=True, slots=True)
class Matrix:
    """A linear module of a layer. name: the end of its module's name. active: the share of tokens that meet it (experts)."""

    name: str
    outputs: int
    inputs: int
    active: float = 1.0

    @property
    def size(self) -> int:
        return self.outputs * self.inputs


@dataclass(frozen=True)
class Shape:
    """A base's sizes. layers: of each, its linear modules. small: weights that are no matrix (norms, biases), layer_small those
    of each layer, last_norm of the norm after them.

    embedding: weights looked up, not multiplied. head: an output embedding of its own, 0 where it is tied or absent. pooler: as
    encoders have it. rms: norms are RMS norms and the MLP is gated, as in Llama; else layer norms and a plain MLP, as in BERT.
    dropout: whether the config has the body drop out while training; attention_dropout: its attention.
    """

    layers: tuple[tuple[Matrix, ...], ...]
    width: int
    inner: int
    heads: int
    head_width: int
    kv_heads: int
    vocabulary: int
    context: int | None
    embedding: int
    head: int
    pooler: int
    small: int
    layer_small: tuple[int, ...]
    last_norm: int
    rms: bool
    written_out_gelu: bool
    dropout: bool
    attention_dropout: bool

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def queries(self) -> int:
        """Width of all queries of a layer together."""
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head_width

    @cached_property
    def matrices(self) -> int:
        """Weights in linear modules of the layers."""
        return sum(matrix.size for layer in self.layers for matrix in layer)

    @cached_property
    def largest_matrix(self) -> int:
        return max((matrix.size for layer in self.layers for matrix in layer), default=0)

    @property
    def weights(self) -> int:
        """All weights of the base as a causal model or an encoder, without a head for labels."""
        return self.embedding + self.head + self.pooler + self.matrices + self.small


def read_shape(base: Path) -> Shape:
    """The shape of the base in the folder `base`. Raises Misuse for a config without sizes, Broken for torn files."""
    config = check_config(base)
    config = config | config.get("text_config", {}) if isinstance(config.get("text_config"), dict) else config
    tensors = read_headers(base)
    width, depth = _size(config, "hidden_size", base), _size(config, "num_hidden_layers", base)
    heads = _size(config, "num_attention_heads", base)
    inner = _size(config, "intermediate_size", base, default=4 * width)
    vocabulary = _size(config, "vocab_size", base)
    layers: list[list[Matrix]] = [[] for _ in range(depth)]
    layer_small = [0] * depth
    small = embedding = head = pooler = last_norm = 0
    active = _active_experts(config)
    for name, sizes in tensors.items():
        found = _LAYER.search(name)
        count = math.prod(sizes)
        if found and int(found[1]) < depth and (len(sizes) == 3 or (len(sizes) == 2 and name.endswith("weight"))):
            outputs, inputs = _outputs_first(name, sizes)
            share = active if "expert" in name else 1.0
            layers[int(found[1])].append(Matrix(name.removesuffix(".weight").rsplit(".", 1)[-1], outputs, inputs, share))
        elif found and int(found[1]) < depth:
            layer_small[int(found[1])] += count
        elif "lm_head" in name or name.startswith("embed_out"):
            head += count
        elif "pooler" in name:
            pooler += count
        elif len(sizes) >= 2 and sizes[0] > 1:
            embedding += count
        else:
            small += count
            last_norm += 0 if "embed" in name else count
    if config.get("tie_word_embeddings") and embedding:
        head = 0
    names = " ".join(tensors)
    return Shape(
        layers=tuple(tuple(layer) for layer in layers),
        width=width,
        inner=inner,
        heads=heads,
        head_width=int(config.get("head_dim") or width // heads),
        kv_heads=int(config.get("num_key_value_heads") or heads),
        vocabulary=vocabulary,
        context=_size(config, "max_position_embeddings", base, default=0) or None,
        embedding=embedding,
        head=head,
        pooler=pooler,
        small=small + sum(layer_small),
        layer_small=tuple(layer_small),
        last_norm=last_norm,
        rms="gate_proj" in names or "gate_up_proj" in names,
        written_out_gelu=config.get("activation_function", config.get("hidden_act")) in ("gelu_new", "gelu_fast"),
        dropout=_rate(config, ("hidden_dropout_prob", "resid_pdrop", "dropout")) > 0,
        attention_dropout=_rate(config, ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout")) > 0,
    )


def read_headers(base: Path) -> dict[str, tuple[int, ...]]:
    """Name and sizes of every tensor in a base's safetensors files: 8 bytes of length, then JSON. Raises Broken for files that
    are none."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(base.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            if not 0 < length <= _HEADER_CAP:
                raise Broken("this is no safetensors file", where=str(path))
            try:
                header = json.loads(file.read(length))
                found |= {name: tuple(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise Broken(f"the header of this safetensors file cannot be read: {error}", where=str(path)) from error
    if not found:
        raise Misuse("the base has no *.safetensors weights", where=str(base))
    return found


def adapted(shape: Shape, targets: Iterable[str] | str) -> list[Matrix]:
    """The matrices that `target_modules` means, of all layers."""
    names = None if isinstance(targets, str) else {target.rsplit(".", 1)[-1] for target in targets}
    return [matrix for layer in shape.layers for matrix in layer if names is None or matrix.name in names]


def _size(config: dict[str, Any], key: str, base: Path, default: int | None = None) -> int:
    for name in (key, *_FALLBACKS.get(key, ())):
        if isinstance(value := config.get(name), int) and value > 0:
            return value
    if default is None:
        raise Misuse(f"the config does not say {key}", where=str(base / "config.json"), fix="choose a base of a known kind")
    return default


def _rate(config: dict[str, Any], names: tuple[str, ...]) -> float:
    return max((float(config[name]) for name in names if isinstance(config.get(name), int | float)), default=0.0)


def _active_experts(config: dict[str, Any]) -> float:
    experts = config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts")
    chosen = config.get("num_experts_per_tok") or config.get("moe_topk")
    return min(1.0, chosen / experts) if experts and chosen else 1.0


def _outputs_first(name: str, sizes: tuple[int, ...]) -> tuple[int, int]:
    """(outputs, inputs); GPT-2's Conv1D keeps them the other way round, and stacks of experts count as one tall matrix."""
    *stacked, outputs, inputs = sizes
    if re.search(r"\.(?:c_attn|c_proj|c_fc)\.weight$", name):
        outputs, inputs = inputs, outputs
    return outputs * math.prod(stacked), inputs
