"""What simulating the gate found: how often it passes candidates that are no better, and how often it sees those that are.

Numbers only; how they are made is steps/simulate.py's.
"""

from __future__ import annotations

from typing import Literal

from pipeline.domain.record import Value

Within = Literal["yes", "no", "unclear"]


class NullShare(Value):
    """How often candidates passed that ought not to, by one rule.

    rule: the rule alone that was asked. truth: what was true of every candidate. bound: the rule's. looks: at the same holdout,
    1 where every candidate meets fresh rows. spending: how alpha was spent over looks. families: independent holdouts; passed:
    those on which any candidate passed. share: passed / families, low to high its Clopper-Pearson interval at 95 %. alpha: what
    is allowed. within: yes where high is no more than alpha, no where low is above it.
    """

    rule: str
    truth: str
    bound: float
    rows: int
    looks: int
    spending: str
    families: int
    passed: int
    share: float
    low: float
    high: float
    alpha: float

    @property
    def within(self) -> Within:
        return "yes" if self.high <= self.alpha else "no" if self.low > self.alpha else "unclear"


class PowerPoint(Value):
    """How often a rule passed candidates whose true difference is `difference`, at the first look."""

    rule: str
    bound: float
    rows: int
    difference: float
    trials: int
    passed: int
    share: float
    low: float
    high: float


class Simulation(Value):
    """What was drawn (confidence of intervals, share of rows the other is right on, share on which the two differ) and found."""

    confidence: float
    rate: float
    discordance: float
    nulls: tuple[NullShare, ...]
    power: tuple[PowerPoint, ...]
    seconds: float

    @property
    def sound(self) -> bool:
        """Whether no spending that keeps count was shown to pass more than it may."""
        return not any(null.within == "no" for null in self.nulls if null.looks == 1 or null.spending != "off")


class Sight(Value):
    """What a test of `rows` rows shows at 80 % power, for candidates that differ from the other on a share of rows.

    least: the difference that is seen at the first look. tenth: at the tenth look at the same rows.
    """

    rows: int
    discordance: float
    least: float
    tenth: float


class Foresight(Value):
    """What can be seen before anything is run. last: name, metric and least difference of the newest decision, if any.

    equal: rule and metric → the rows needed for a candidate that is just as good to pass 80 % of the time, None where no
    number of rows would do.
    """

    confidence: float
    rows: int
    sights: tuple[Sight, ...]
    equal: dict[str, int | None]
    last: dict[str, float]
    last_run: str | None = None
