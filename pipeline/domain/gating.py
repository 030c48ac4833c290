"""Whether a candidate may be registered. Pure: reports and a policy in, a decision out.

Nothing here reads a registry (see steps/) or explains itself to people (see backends and __main__).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

from pipeline.domain.record import Record, Value


class Outcome(StrEnum):
    """Three-valued on purpose: too little evidence is never a pass."""

    PASSED = "passed"
    FAILED = "failed"
    INSUFFICIENT = "insufficient"


class GateCheck(Value):
    """One rule of the policy: what was seen, the bound it had to meet, and the verdict. `detail` is a sentence for people."""

    name: str
    observed: float | None
    low: float | None = None
    high: float | None = None
    bound: float
    verdict: Outcome
    detail: str


class GateDecision(Record):
    """Bound by digest to one evaluation of one candidate; a decision about another candidate opens no gate."""

    kind: ClassVar[str] = "gate_decision"

    evaluation: str
    training: str
    adapter_digest: str
    policy: dict[str, Any]
    checks: tuple[GateCheck, ...]
    verdict: Outcome

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.evaluation, self.training)

    @property
    def failed(self) -> tuple[GateCheck, ...]:
        return tuple(c for c in self.checks if c.verdict is not Outcome.PASSED)
