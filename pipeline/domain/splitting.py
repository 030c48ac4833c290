"""Which side of the split an example is on. Pure: a group key and shares in, a side out.

The side depends on the group key and the salt alone, never on what else is in the data, so a row never changes sides as
data grows. Shuffled, seeded splits are not offered: fresh data would move test rows into train.
"""

from __future__ import annotations

import hashlib

from pipeline.domain.data import Split


def assign(group: str, *, salt: str, eval_share: float, test_share: float) -> Split:
    """Side of the examples whose group key is `group`. Shares are fractions of 1; what is left is train."""
    digest = hashlib.sha256(f"{salt}\0{group}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    if point < test_share:
        return Split.TEST
    if point < test_share + eval_share:
        return Split.EVAL
    return Split.TRAIN
