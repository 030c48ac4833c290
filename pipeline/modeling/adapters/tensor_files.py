"""Reads safetensors files that nobody vouches for: whole, of an expected type, every number finite. It knows no adapters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from pipeline.errors import Broken

FULL = (torch.float32,)
FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def keys(path: Path) -> tuple[str, ...]:
    """Names of the tensors in a safetensors file. Raises Broken when it is none."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return tuple(file.keys())
    except (SafetensorError, OSError) as error:
        raise Broken(f"not a whole safetensors file: {error}", where=str(path)) from error


def tensors(path: Path, allowed: tuple[torch.dtype, ...] = FULL) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a safetensors file, one after the other, in fp32 on the CPU, with their names.

    Raises Broken when it is none, when one is of a type that is not allowed, or holds NaN or Inf.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                tensor = file.get_tensor(key)
                if tensor.dtype not in allowed:
                    names = " or ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
                    raise Broken(f"{key} is {tensor.dtype}, where adapters are {names}", where=str(path))
                if not bool(torch.isfinite(tensor).all()):
                    raise Broken(f"{key} holds NaN or Inf", where=str(path))
                yield key, tensor.float()
    except (SafetensorError, OSError) as error:
        raise Broken(f"not a whole safetensors file: {error}", where=str(path)) from error
