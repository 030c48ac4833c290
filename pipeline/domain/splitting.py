"""Which side of the split a group of examples is drawn to. Pure: group keys and shares in, sides out.

A group is drawn once, when it first comes, and is frozen then (steps/split.py): no later run moves it, whatever else comes, is
left out or is forgotten. Shuffled, seeded splits are not offered: fresh data would move test rows into train.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from pipeline.domain.curated import Split


def point(group: str, salt: str) -> float:
    """Where a group lies in [0, 1): uniform, and always the same for the same group and salt."""
    digest = hashlib.sha256(f"{salt}\0{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign(group: str, *, salt: str, eval_share: float, test_share: float) -> Split:
    """Side of the examples whose group key is `group`. Shares are fractions of 1; what is left is train."""
    return side_at(point(group, salt), eval_share=eval_share, test_share=test_share)


def side_at(at: float, *, eval_share: float, test_share: float) -> Split:
    """The side that the point `at` of [0, 1) falls to: test first, then eval, then train."""
    if at < test_share:
        return Split.TEST
    return Split.EVAL if at < test_share + eval_share else Split.TRAIN


def assign_stratum(points: Sequence[float], offset: float, *, eval_share: float, test_share: float) -> list[Split]:
    """Sides of the groups of one stratum, given their points, so that each side gets its share of the stratum.

    The groups with the lowest points go to test, the next to eval. Shares of few groups are no whole numbers: `offset`, drawn
    uniformly from [0, 1) for each stratum, decides on the rest, so that over all strata the shares are kept (systematic
    sampling: Cochran, Sampling Techniques, 3rd ed. 1977, chapter 8).
    """
    count = len(points)
    test = math.floor(test_share * count + offset)
    held = math.floor((test_share + eval_share) * count + offset)
    order = sorted(range(count), key=lambda i: (points[i], i))
    sides = [Split.TRAIN] * count
    for rank, index in enumerate(order[:held]):
        sides[index] = Split.TEST if rank < test else Split.EVAL
    return sides
