"""How many distinct values, without keeping them: HyperLogLog sketches, of which those of two shards unite into that of both.

After Flajolet et al. 2007, "HyperLogLog: the analysis of a near-optimal cardinality estimation algorithm"; small counts by linear
counting (Whang et al. 1990). A sketch is 2,048 registers, written as base64; its estimate is right to about 2 %.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_intdigest

_BITS = 11


class Sketch:
    """Of the values that were added, in whatever order and however often."""

    def __init__(self) -> None:
        self._registers = np.zeros(1 << _BITS, np.uint8)

    def add_digests(self, digests: Any) -> None:
        """Add a pyarrow column of digests, 32 hex digits each."""
        self._add(np.frombuffer(bytes.fromhex("".join(digests.to_pylist())), dtype=">u8")[::2].astype(np.uint64))

    def add_texts(self, texts: Any) -> None:
        """Add a pyarrow column of texts."""
        self._add(np.fromiter(map(xxh3_64_intdigest, texts.cast(pa.binary()).to_pylist()), dtype=np.uint64, count=len(texts)))

    @property
    def text(self) -> str:
        return base64.b64encode(self._registers.tobytes()).decode()

    def _add(self, hashes: Any) -> None:
        # The first bits choose a register, which keeps the longest run of zeros that the last 53 began with: a double holds them.
        _, length = np.frexp((hashes & np.uint64((1 << 53) - 1)).astype(np.float64))
        np.maximum.at(self._registers, (hashes >> np.uint64(64 - _BITS)).astype(np.intp), (54 - length).astype(np.uint8))


def union(sketches: Iterable[str]) -> str:
    """The sketch of all values that went into any of the given ones; empty ones, of nothing, are passed over."""
    found = [_registers(sketch) for sketch in sketches if sketch]
    return base64.b64encode(np.maximum.reduce(found).tobytes()).decode() if found else ""


def distinct(sketch: str) -> int:
    """About how many distinct values went into a sketch."""
    if not sketch:
        return 0
    registers = _registers(sketch)
    size, empty = len(registers), int(np.sum(registers == 0))
    estimate = 0.7213 / (1 + 1.079 / size) * size**2 / float(np.sum(2.0 ** -registers.astype(np.float64)))
    return round(size * math.log(size / empty)) if empty and estimate <= 2.5 * size else round(estimate)


def _registers(sketch: str) -> Any:
    return np.frombuffer(base64.b64decode(sketch), dtype=np.uint8)
