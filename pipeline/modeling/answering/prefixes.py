"""Which prompts begin alike, so that what they share is computed once. Lists of ids in, places out; no model enters here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

CALL = 48
"""Tokens that one more call of the model is reckoned as."""
_DEEPEST = 100
"""Levels of prefixes within prefixes that are looked at."""


@dataclass(frozen=True, slots=True)
class Group:
    """Prompts, by their places, whose first `length` ids are the same."""

    length: int
    places: list[int]


def grouped(prompts: Sequence[Sequence[int]], *, batch_size: int, call: int = CALL, pair: float = 0.0) -> list[Group]:
    """All prompts, each in one group; within a group every prompt has at least one id more than what is shared.

    Few-shot prompts of several subjects, say, share their examples by subject: there is a group wherever computing what is
    shared once saves more than it takes. call: what a batch costs beside its tokens, in tokens. pair: what it costs that a token
    looks at another: text that goes on from something looks at all of it and, for the mask's sake, at all of itself.
    """
    order = sorted(range(len(prompts)), key=lambda place: list(prompts[place]))
    if not order:
        return []
    common = [_common(prompts[one], prompts[other]) for one, other in pairwise(order)]
    tree = _Tree(order, [len(prompts[place]) for place in order], common, batch_size, call, pair)
    return sorted(tree.best(0, len(order))[1], key=lambda group: group.places)


@dataclass(frozen=True, slots=True)
class _Tree:
    """order: places of the prompts, sorted; lengths: theirs; common: how many ids each of them shares with the next."""

    order: list[int]
    lengths: list[int]
    common: list[int]
    batch_size: int
    call: int
    pair: float

    def best(self, low: int, high: int, depth: int = 0) -> tuple[float, list[Group]]:
        """The cheapest way to group the sorted prompts low to high: its cost in tokens, and the groups."""
        whole = self._one(range(low, high), min([self.lengths[low], *self.common[low : high - 1]]))
        if high - low < 4 or depth == _DEEPEST:
            return whole
        bottom = min(self.common[low : high - 1])
        cuts = [low, *(n + 1 for n in range(low, high - 1) if self.common[n] == bottom), high]
        if len(cuts) == high - low + 1:
            return whole
        cost, found, left = 0.0, list[Group](), list[int]()
        for start, end in pairwise(cuts):
            alone, groups = self.best(start, end, depth + 1)
            together = self._reading(range(start, end), bottom) + self.call * (end - start) / self.batch_size
            if end - start > 1 and alone < together:
                cost, found = cost + alone, found + groups
            else:
                left += range(start, end)
        if left:
            rest, groups = self._one(left, bottom)
            cost, found = cost + rest, found + groups
        return (cost, found) if cost < whole[0] else whole

    def _one(self, rows: Sequence[int], shared: int) -> tuple[float, list[Group]]:
        """These sorted prompts as one group; nothing is shared where that would save nothing."""
        places = sorted(self.order[row] for row in rows)
        shared = min([shared, *(self.lengths[row] - 1 for row in rows)])
        calls = self.call * -(-len(rows) // self.batch_size)
        alone = calls + self._reading(rows, 0)
        once = calls + CALL + shared + self.pair * shared * shared / 2 + self._reading(rows, shared)
        return (once, [Group(shared, places)]) if once < alone else (alone, [Group(0, places)])

    def _reading(self, rows: Sequence[int], shared: int) -> float:
        """What it costs to read these prompts after what they share, calls apart."""
        own = [self.lengths[row] - shared for row in rows]
        looks = sum(n * (n + shared) if shared else n * n / 2 for n in own)
        return sum(own) + self.pair * looks


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return place
    return min(len(one), len(other))
