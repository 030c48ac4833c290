"""What one look at a holdout may spend, and how an interval widens for it. Pure numbers; no rule and no ledger enters here.

A candidate that is no better passes a rule with a chance of (1 - confidence) / 2, and a holdout that is asked every night gives
luck that chance every night. So the n-th look at the same rows gets a share of it, and all looks together get no more than all
of it (Bonferroni over looks; alpha spending after Lan & DeMets 1983, "Discrete sequential boundaries for clinical trials"; as
shares of a sum, Foster & Stine 2008, "Alpha-investing"). Harmonic shares, 1 / (n (n + 1)), add up to one however many looks come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from pipeline.domain.gating.verdicts import HoldoutPolicy
from pipeline.domain.measured import Comparison, HoldoutUse, MetricValue


@dataclass(frozen=True, slots=True)
class Look:
    """Which look it is, the tail that the report's intervals leave out on each side, and the tail that this look may spend."""

    number: int
    measured_tail: float
    tail: float

    @property
    def first(self) -> bool:
        return self.tail == self.measured_tail

    def widened(self, seen: MetricValue | Comparison, span: tuple[float, float]) -> tuple[float, float]:
        """The ends of the interval of `seen`, moved outward from the tail it was made for to the tail that may be spent.

        Distances grow as those of the normal distribution where the interval is even, as the logarithm of the tail where it
        lies on one side (then it is the exact one for "no group deviated", 1 - tail^(1/G), whose distance grows so), and in
        between in between.
        """
        if self.first:
            return seen.low, seen.high
        if self.tail <= 0:
            return span
        value = seen.value if isinstance(seen, MetricValue) else seen.difference
        below, above = value - seen.low, seen.high - value
        normal = NormalDist().inv_cdf(self.tail) / NormalDist().inv_cdf(self.measured_tail)
        heavy = math.log(self.tail) / math.log(self.measured_tail)
        uneven = (below - above) / (below + above) if below + above > 0 else 0.0
        down, up = (normal + max(0.0, side) * (heavy - normal) for side in (uneven, -uneven))
        return max(span[0], value - down * below), min(span[1], value + up * above)


def look(number: int, confidence: float, policy: HoldoutPolicy) -> Look:
    """What the `number`-th look at a holdout may spend, where intervals are made at `confidence`."""
    tail = (1 - confidence) / 2
    share = 1.0
    if policy.spending == "harmonic":
        # The first look gets half, not all: what is spent by then is not there for those that come.
        share = 1 / (number * (number + 1))
    elif policy.spending == "even":
        share = 1 / policy.looks if number <= policy.looks else 0.0
    return Look(number, tail, tail * share)


def earlier_looks(test: Sequence[tuple[str, int]], uses: Iterable[HoldoutUse]) -> frozenset[str]:
    """Digests of the evaluations among `uses` that looked at this test split: those whose parts share more than half its rows."""
    rows = sum(number for _, number in test)
    found = set()
    for use in uses:
        theirs = {part for part, _ in use.parts}
        shared = sum(number for part, number in test if part in theirs)
        if 2 * shared > rows:
            found.add(use.evaluation)
    return frozenset(found)
