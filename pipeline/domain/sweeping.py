"""The nouns of a sweep: what may be tried, what one trial came to, which was best and how sure that is. Pure values."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipeline.domain.record import Value, digest_value

Point = dict[str, Any]
"""Keys of train, as sweep.space writes them, and the value of each."""


class Dimension(Value):
    """What one key may be: a range, both ends in it, or one of some choices. whole: only whole numbers."""

    low: float = 0
    high: float = 0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] | None = None

    def holds(self, value: Any) -> bool:
        """Whether a value lies in it."""
        if self.choices is not None:
            return any(_same(value, choice) for choice in self.choices)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.whole or value == int(value))


class Trial(Value):
    """One training of a sweep. value: of the measure it is judged by; None unless it is finished. seconds: of training, all its
    sittings together. measured: evaluation by evaluation. note: why it failed."""

    number: int
    state: Literal["running", "finished", "pruned", "failed"]
    point: Point
    value: float | None = None
    seconds: float = 0.0
    measured: tuple[float, ...] = ()
    note: str = ""

    @property
    def key(self) -> str:
        """Names the point, whatever the order of its keys."""
        return digest_value(self.point)


class Against(Value):
    """The best trial beside another one, on the same rows of the eval split. difference: best minus other, with its interval."""

    trial: int
    score: float
    difference: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        return self.low > 0 or self.high < 0


class Comparison(Value):
    """How sure it is that the best trial is the best. others: those next to it by the measure, and that of the params' own point.

    The best of many on one split looks better there than it is, so an interval that only just leaves zero says little.
    """

    metric: str
    rows: int
    score: float
    low: float
    high: float
    others: tuple[Against, ...]


class SweepResult(Value):
    """What a sweep came to.

    name: of its parent run. run: whose splits were used. own: the trial of the params as they are. comparison: None where there
    was nothing to compare, or no rows. change: what the winner changes in the params, as a patch; written: where it now stands.
    """

    name: str
    run: str
    measure: str
    ended: str
    trials: tuple[Trial, ...]
    best: int | None
    own: int | None
    seconds: float
    cost: float | None
    comparison: Comparison | None = None
    change: str = ""
    written: str | None = None
    links: dict[str, str] = Field(default_factory=dict)

    def trial(self, number: int | None) -> Trial | None:
        return next((trial for trial in self.trials if trial.number == number), None)


def ranked(trials: tuple[Trial, ...], *, least: bool) -> list[Trial]:
    """The finished trials, best first; of equals the earlier one. least: whether less of the measure is better."""
    finished = [trial for trial in trials if trial.state == "finished" and trial.value is not None]
    return sorted(finished, key=lambda trial: ((trial.value or 0.0) * (1 if least else -1), trial.number))


def _same(value: Any, choice: Any) -> bool:
    """1 and True, 1 and 1.0 are not the same choice; a list and a tuple of the same things are."""
    if isinstance(value, list | tuple) and isinstance(choice, list | tuple):
        return len(value) == len(choice) and all(_same(*pair) for pair in zip(value, choice, strict=True))
    return type(value) is type(choice) and bool(value == choice)
