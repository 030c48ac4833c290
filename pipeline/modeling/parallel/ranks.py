"""What a process of a training knows of the others: which it is, its share of a step, sums over all.

A process that trains alone is the first of one, for which all of this costs nothing, so the loop asks without a case of its own.
Nothing but numbers and JSON goes between processes, and all of them call the same things in the same order. Neither
starting processes nor spreading weights is done here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

PATIENCE = timedelta(days=2)
"""How long a process waits for the others: one may tokenise, measure or write while they have nothing to do. Whoever started
them looks after those that died, so no short limit is needed to notice that."""
_BUCKET = 8 << 20
"""Numbers summed at once: few calls for many small tensors, and no second copy of a large model's gradients."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among `count` of one training, of which it is number `rank`, from 0."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and tells the curves."""
        return self.rank == 0

    def share(self, places: Sequence[int]) -> list[int]:
        """This process' part of a step's items: every count-th, so that of places sorted by length all get about as many tokens.
        May be empty, when a step has fewer items than there are processes."""
        return list(places[self.rank :: self.count])

    def gathered(self, value: Any) -> list[Any]:
        """What each process gave here, a JSON value, in the order of ranks. Floats arrive to the last bit."""
        if self.count == 1:
            return [value]
        said = torch.frombuffer(bytearray(json.dumps(value).encode("ascii")), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.long) for _ in range(self.count)]
        dist.all_gather(sizes, torch.tensor([len(said)]))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(said)] = said
        parts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        return [json.loads(part[: int(size)].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sum over processes, name by name; a process need not have all names."""
        found: dict[str, float] = {}
        for part in self.gathered(dict(values)):
            for name, value in part.items():
                found[name] = found.get(name, 0.0) + value
        return found

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process: what one was told (to stop) all must act on in the same step."""
        return any(self.gathered(flag))

    def as_first(self, value: T) -> T:
        """The first process' value, a JSON value, for all: what decides must not differ by a rounding."""
        first: T = self.gathered(value if self.first else None)[0]
        return first

    def in_turn(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process, and when it is through in the others: what it leaves in a cache they find."""
        if self.count == 1:
            return make()
        if not self.first:
            self.wait()
            return make()
        made = make()
        self.wait()
        return made

    def wait(self) -> None:
        """Until all processes are here."""
        self.gathered(None)

    def alike(self, model: nn.Module) -> None:
        """Give all processes the first one's trainable weights: new ones are drawn, and must be the same everywhere."""
        if self.count > 1:
            with torch.no_grad():
                for weight in _trainable(model):
                    dist.broadcast(weight, src=0)

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up the gradients of all processes in each. A weight that has none anywhere still has none."""
        if self.count == 1:
            return
        weights = list(_trainable(model))
        has = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.uint8)
        dist.all_reduce(has, op=dist.ReduceOp.MAX)
        learned = [weight for weight, some in zip(weights, has.tolist(), strict=True) if some]
        for weight in learned:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        for bucket in _buckets(learned):
            gradients = [weight.grad for weight in bucket if weight.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    def draw_apart(self, seed: int, step: int) -> None:
        """Set this process' random state for one step, another one in each: a function of seed, step and rank, so that a resume
        needs no more. A process alone keeps its own state."""
        if self.count > 1:
            torch.manual_seed((seed * 1_000_003 + step) * 64 + self.rank)


def ranks() -> Ranks:
    """This process' place; the first of one unless `join` was called."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return Ranks()


def join(rank: int, count: int, meeting: Path) -> None:
    """Meet the other processes by the file `meeting`, which need not exist. No port is listened on but between the processes,
    on the loopback interface (see launching.py for the variables that say so)."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=meeting.as_uri(), rank=rank, world_size=count, timeout=PATIENCE)


def leave() -> None:
    """Part from the others."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _trainable(model: nn.Module) -> Iterator[nn.Parameter]:
    return (weight for weight in model.parameters() if weight.requires_grad)


def _buckets(weights: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Weights in order, of one type and about _BUCKET numbers in each list."""
    bucket: list[nn.Parameter] = []
    size = 0
    for weight in weights:
        if bucket and (size + weight.numel() > _BUCKET or weight.dtype is not bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(weight)
        size += weight.numel()
    if bucket:
        yield bucket
