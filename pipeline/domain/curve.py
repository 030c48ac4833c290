"""The nouns of a learning curve: what shares of the training rows were enough for, and where the curve leads. Pure values."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pipeline.domain.record import Record, Value


class CurvePoint(Value):
    """One training on a share of the rows, measured on the whole test side.

    rows: how many were asked for. trained: how many the share has; groups are kept whole, so it may be a few more. training:
    digest of its record.
    """

    rows: int
    trained: int
    seed: int
    training: str
    score: float


class Share(Value):
    """All trainings on one number of rows, their mean score with its interval.

    behind: that score less the one of all rows, on the same test rows, with its interval; 0 for all rows themselves. enough: yes
    when the interval's low end is above -margin, no when its high end is not, unclear in between.
    """

    rows: int
    fraction: float
    score: float
    low: float
    high: float
    behind: float
    behind_low: float
    behind_high: float
    enough: Literal["yes", "no", "unclear"]


class PowerLaw(Value):
    """error = floor + gain * rows ** -rate, where error is 1 less the score."""

    floor: float
    gain: float
    rate: float

    def score(self, rows: float) -> float:
        return 1 - float(self.floor + self.gain * rows**-self.rate)


class Prospect(Value):
    """What the law says of a number of rows that nobody has: the score, and what it is above that of all rows; with intervals."""

    rows: int
    score: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


class Curve(Record):
    """A learning curve of one split. metric: the one with a score a row. law, doubled: None where no power law could be fitted.

    missing: trainings that were asked for and not made, because the budget was spent.
    """

    kind: ClassVar[str] = "learning_curve"

    splits: str
    params: dict[str, Any]
    metric: str
    test_rows: int
    margin: float
    confidence: float
    points: tuple[CurvePoint, ...]
    shares: tuple[Share, ...]
    law: PowerLaw | None
    doubled: Prospect | None
    missing: int = 0

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.splits, *dict.fromkeys(point.training for point in self.points))

    @property
    def whole(self) -> Share | None:
        """The largest share that was trained on."""
        return self.shares[-1] if self.shares else None

    def of(self, rows: int) -> Share | None:
        return next((share for share in self.shares if share.rows == rows), None)


class CurveResult(Value):
    """A curve as a command made it. name: of its tracked run. run: whose splits were used. ended: why it stopped. seconds: of
    training, all sittings together. page: where it is shown."""

    name: str
    run: str
    ended: str
    seconds: float
    cost: float | None
    curve: Curve
    page: str
