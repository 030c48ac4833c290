"""What the gate is asked and what it says: policy, check, decision. Pure values; no rule stands here.

A rule passes only when the near end of the confidence interval meets its bound; it fails when the measured value itself does
not; in between the evidence is too thin either way, which is "insufficient". So worse numbers never improve a verdict.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.domain.record import Record, Value

DIFFERS_FROM_BASE = "differs_from_base"
"""The candidate's share of test rows that it answers otherwise than the bare base; an adapter that did not load has 0."""


class Outcome(StrEnum):
    """Three-valued on purpose: too little evidence is never a pass."""

    PASSED = "passed"
    FAILED = "failed"
    INSUFFICIENT = "insufficient"


class HoldoutPolicy(Value):
    """How the allowed chance of a lucky pass is spent over looks at the same test rows; see looks.py."""

    spending: Literal["harmonic", "even", "off"] = "harmonic"
    looks: int = 30


class SlicePolicy(Value):
    """By how much no slice of a field may be worse, and how many rows make a slice that is judged."""

    margin: float = 0.0
    min_rows: int = 10


class CeilingPolicy(Value):
    """The most that answers may take."""

    latency_p50: float | None = None
    latency_p95: float | None = None
    per_thousand: float | None = None
    slower_than_champion: float | None = None


class GatePolicy(Value):
    """What is asked of a candidate, key by key as params.gate has it (pipeline/params/gate.py says what each means)."""

    min_test_rows: int
    thresholds: dict[str, float] = Field(default_factory=dict)
    not_worse_than_champion: dict[str, float] = Field(default_factory=dict)
    better_than_champion: dict[str, float] = Field(default_factory=dict)
    better_than_base: dict[str, float] = Field(default_factory=dict)
    worth_tuning: dict[str, float] = Field(default_factory=dict)
    suites: dict[str, float] = Field(default_factory=dict)
    forgetting: dict[str, float] = Field(default_factory=dict)
    slices: dict[str, SlicePolicy] = Field(default_factory=dict)
    overfitting_gap: float | None = None
    exposure: float | None = None
    ceilings: CeilingPolicy = CeilingPolicy()
    parity: tuple[str, ...] = ()
    holdout: HoldoutPolicy = HoldoutPolicy()

    @property
    def scores_asked(self) -> bool:
        """Whether any rule is about how good the answers are."""
        asked = (self.thresholds, self.not_worse_than_champion, self.better_than_champion, self.better_than_base)
        return any((*asked, self.worth_tuning))


class GateCheck(Value):
    """One rule of the policy: what was seen, the bound it had to meet, and the verdict. `detail` is a sentence for people.

    low and high: the interval that the verdict was read from; at a repeated look at a holdout it is wider than the report's.
    """

    name: str
    observed: float | None
    low: float | None = None
    high: float | None = None
    bound: float
    verdict: Outcome
    detail: str


class GateDecision(Record):
    """Bound by digest to one evaluation of one candidate; a decision about another candidate opens no gate.

    looks: which look at this holdout it was, 1 for the first. alpha: the chance of a lucky pass that this look could spend on
    each rule, one-sided. costs: digest of the CostReport that ceilings were read from. detectable: metric: the least difference
    from the champion (else the base) that this look could show at 80 % power.
    """

    kind: ClassVar[str] = "gate_decision"

    evaluation: str
    training: str
    adapter_digest: str
    policy: dict[str, Any]
    checks: tuple[GateCheck, ...]
    verdict: Outcome
    looks: int = 1
    alpha: float = 0.025
    costs: str | None = None
    detectable: dict[str, float] = Field(default_factory=dict)

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.evaluation, self.training, *([self.costs] if self.costs else []))

    @property
    def failed(self) -> tuple[GateCheck, ...]:
        return tuple(c for c in self.checks if c.verdict is not Outcome.PASSED)


def passed_if(*, met: bool, missed: bool) -> Outcome:
    """The verdict of a rule about a number with an interval."""
    return Outcome.FAILED if missed else Outcome.PASSED if met else Outcome.INSUFFICIENT


def missing(name: str, bound: float, detail: str) -> GateCheck:
    """A check whose number is not there."""
    return GateCheck(name=name, observed=None, bound=bound, verdict=Outcome.INSUFFICIENT, detail=detail)
