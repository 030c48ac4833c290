"""What tuning would take, from the size of the base and of the data: a rule of thumb, good to a factor of three."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

_EFFICIENCY = 0.3
"""Of a large matrix product's speed, what a training step reaches."""


@dataclass(frozen=True, slots=True)
class Cost:
    """parameters: of the base. tokens: that one pass over the data reads. flops: a second, of this machine."""

    parameters: int
    tokens: int
    passes: float
    flops: float
    memory_gib: float
    available_gib: float

    @property
    def hours(self) -> float:
        # Forward 2, backward through frozen weights 2, of the adapter little: after Kaplan et al. 2020, section 2.1.
        return 4 * self.parameters * self.tokens * self.passes / (self.flops * _EFFICIENCY) / 3600

    @property
    def fits(self) -> bool:
        return self.memory_gib < self.available_gib

    def evidence(self, rows: int) -> dict[str, str]:
        return {
            "base": f"{self.parameters / 1e6:.1f} million weights beside the embeddings",
            "data": f"{rows} rows, {self.tokens / 1e6:.2f} million tokens, {self.passes:g} passes",
            "machine": f"{self.flops / 1e9:.0f} GFLOP/s in a large matrix product, {self.available_gib:.1f} GiB free",
            "memory": f"{self.memory_gib:.1f} GiB: weights in fp32 and what a step keeps, as a rule of thumb",
        }


def measure_flops(size: int = 768, seconds: float = 0.2) -> float:
    """Floating-point operations a second of this machine in fp32 matrix products [size, size]."""
    matrix = np.random.default_rng(7).standard_normal((size, size), np.float32)
    matrix @ matrix
    started, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds:
        matrix @ matrix
        done += 1
    return done * 2 * size**3 / spent
