"""Drift: how far fresh rows are from those before them, or from what production is asked. Pure values.

How distances and their p-values come about is evaluation/drift.py's subject; which rows are compared is steps/drift.py's.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.domain.data import CheckResult
from pipeline.domain.record import Record, Value


class Named(Value):
    """A name (a label, a language, a word) and its shares of the reference rows and of the fresh ones."""

    name: str
    reference: float
    fresh: float


class Shift(Value):
    """One aspect of the rows, compared.

    effect: how far apart the sides are beyond chance, 0 to 1: the advantage that this aspect gives to who guesses a row's side.
    p: chance of such a distance, or a greater one, if both sides were drawn from the same rows. adjusted: that of such a p among
    all aspects of the report. drifted: adjusted and effect are both beyond what params allow. reference, fresh: medians of
    numbers. psi: population stability index of names. names: those whose shares differ most.
    """

    aspect: str
    effect: float
    p: float
    adjusted: float
    drifted: bool
    reference: float | None = None
    fresh: float | None = None
    psi: float | None = None
    names: tuple[Named, ...] = ()


class DriftReport(Record):
    """Fresh rows against reference rows.

    reference, fresh: what they are: `batch`, `earlier rows`, `snapshot` or `traffic`. snapshot: digest of the snapshot that the
    fresh rows are of, or the reference rows where traffic is fresh; other: digest of what the other side is of, if that is
    something else. rows: how many a side has; compared: how many of them were drawn. too_few: nothing was compared, since a side
    has too few rows. refused: rows of traffic that could not be read.
    """

    kind: ClassVar[str] = "drift_report"

    snapshot: str
    other: str | None = None
    reference: str
    fresh: str
    policy: Literal["off", "warn", "block"]
    false_alarms: float
    min_effect: float
    reference_rows: int
    fresh_rows: int
    reference_compared: int
    fresh_compared: int
    permutations: int = 0
    too_few: bool = False
    refused: int = 0
    shifts: tuple[Shift, ...] = Field(default=())

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.snapshot,) + ((self.other,) if self.other else ())

    @property
    def drifted(self) -> tuple[Shift, ...]:
        return tuple(shift for shift in self.shifts if shift.drifted)

    @property
    def passed(self) -> bool:
        """False when params say that drift ends the run, and there is some."""
        return self.policy != "block" or not self.drifted

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """What ends a run: each aspect that drifted, where params say that drift does."""
        if self.passed:
            return ()
        allowed = f"effect below {self.min_effect:g}, or p above {self.false_alarms:g} (drift.policy: block)"
        return tuple(
            CheckResult(
                name=f"drift.{shift.aspect}",
                passed=False,
                expected=allowed,
                observed=f"effect {shift.effect:.2f}, adjusted p {shift.adjusted:.4f}",
            )
            for shift in self.drifted
        )
