"""Whether a candidate may be registered. Pure: reports and a policy in, a decision out.

Nothing here reads a registry (see steps/) or explains itself to people (see backends and __main__).

A rule passes only when the near end of the confidence interval meets its bound; it fails when the measured value itself does
not; in between the evidence is too thin either way, which is "insufficient". So worse numbers never improve a verdict.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

from pydantic import Field

from pipeline.domain.measured import Comparison, EvaluationReport, MetricValue
from pipeline.domain.model import Champion, TrainingRun
from pipeline.domain.record import Record, Value
from pipeline.errors import Broken, Misuse

DIFFERS_FROM_BASE = "differs_from_base"
"""The candidate's share of test rows that it answers otherwise than the bare base; an adapter that did not load has 0."""


class Outcome(StrEnum):
    """Three-valued on purpose: too little evidence is never a pass."""

    PASSED = "passed"
    FAILED = "failed"
    INSUFFICIENT = "insufficient"


class GatePolicy(Value):
    """What is asked of a candidate: least test rows; metric: least value; metric: margin against champion and bare base."""

    min_test_rows: int
    thresholds: dict[str, float] = Field(default_factory=dict)
    not_worse_than_champion: dict[str, float] = Field(default_factory=dict)
    better_than_base: dict[str, float] = Field(default_factory=dict)


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


def decide(evaluation: EvaluationReport, training: TrainingRun, policy: GatePolicy) -> GateDecision:
    """Judge one evaluation of one candidate.

    Fewer test rows of the first metric than the policy asks for make every check insufficient, and so does a metric that was not
    measured. A policy that asks nothing passes nobody. An empty production stage satisfies "not worse than the champion".

    Raises Misuse when the evaluation is not of this training's adapter, Broken when it holds impossible numbers.
    """
    _check_identity(evaluation, training)
    _check_numbers(evaluation)
    checks = [_enough_rows(evaluation, policy), _differs(evaluation)]
    checks += [_threshold(evaluation, metric, bound) for metric, bound in sorted(policy.thresholds.items())]
    checks += [_not_worse(evaluation, metric, margin) for metric, margin in sorted(policy.not_worse_than_champion.items())]
    checks += [_better(evaluation, metric, margin) for metric, margin in sorted(policy.better_than_base.items())]
    if not (policy.thresholds or policy.not_worse_than_champion or policy.better_than_base):
        checks.append(_missing("policy", 0.0, "the policy sets no rule for any metric, so nothing was shown"))
    if evaluation.primary_rows < policy.min_test_rows:
        checks = [c.model_copy(update={"verdict": Outcome.INSUFFICIENT}) for c in checks]
    return GateDecision(
        evaluation=evaluation.digest,
        training=training.digest,
        adapter_digest=training.adapter_digest,
        policy=policy.model_dump(mode="json"),
        checks=tuple(checks),
        verdict=_overall(checks),
    )


def _overall(checks: list[GateCheck]) -> Outcome:
    verdicts = {c.verdict for c in checks}
    return next((v for v in (Outcome.FAILED, Outcome.INSUFFICIENT) if v in verdicts), Outcome.PASSED)


def _check_identity(evaluation: EvaluationReport, training: TrainingRun) -> None:
    fix = "evaluate this training's adapter and decide on that report"
    if evaluation.training != training.digest:
        raise Misuse(
            f"the evaluation is of training {evaluation.training[:12]}, the candidate is training {training.digest[:12]}", fix=fix
        )
    names = [s.name for s in evaluation.subjects]
    if len(set(names)) < len(names):
        raise Broken("the evaluation names a subject twice", fix="evaluate again")
    candidate = evaluation.subject("candidate")
    if candidate is None or candidate.identity != training.adapter_digest:
        measured = candidate.identity[:12] if candidate else "none"
        raise Misuse(f"the adapter measured is {measured}, the candidate's is {training.adapter_digest[:12]}", fix=fix)
    if evaluation.splits != training.splits:
        raise Misuse("the evaluation and the training used different splits: the test rows may have been trained on", fix=fix)


def _check_numbers(evaluation: EvaluationReport) -> None:
    values = [(f"{s.name}'s {m.metric}", m.value, m.low, m.high, 0.0) for s in evaluation.subjects for m in s.metrics]
    values += [(f"{c.metric} against the {c.other}", c.difference, c.low, c.high, -1.0) for c in evaluation.comparisons]
    for name, value, low, high, least in values:
        # Written so that NaN, which compares false with everything, does not slip through.
        if not least <= low <= value <= high <= 1:
            raise Broken(f"{name} is {value} ({low} to {high}), which can not be: scores lie in 0 to 1", fix="evaluate again")


def _enough_rows(evaluation: EvaluationReport, policy: GatePolicy) -> GateCheck:
    rows = evaluation.primary_rows
    return GateCheck(
        name="min_test_rows",
        observed=rows,
        bound=policy.min_test_rows,
        verdict=Outcome.PASSED if rows >= max(policy.min_test_rows, 1) else Outcome.INSUFFICIENT,
        detail=f"{rows} test rows, {policy.min_test_rows} are asked for",
    )


def _differs(evaluation: EvaluationReport) -> GateCheck:
    seen = evaluation.metric("candidate", DIFFERS_FROM_BASE)
    if seen is None or seen.rows < evaluation.rows:
        return _missing(DIFFERS_FROM_BASE, 0.0, "the bare base was not measured on every test row")
    if evaluation.rows == 0:
        return _missing(DIFFERS_FROM_BASE, 0.0, "there are no test rows")
    told = f"{seen.value:.1%} of the answers differ from the bare base's"
    if seen.value == 0:
        told = "every answer is the bare base's: these rows show no trace of the tuning"
    return _seen(DIFFERS_FROM_BASE, seen, 0.0, Outcome.PASSED if seen.value > 0 else Outcome.FAILED, told)


def _threshold(evaluation: EvaluationReport, metric: str, bound: float) -> GateCheck:
    name = f"thresholds.{metric}"
    seen = evaluation.metric("candidate", metric)
    if seen is None or seen.rows < max(evaluation.rows_of(metric), 1):
        return _missing(name, bound, f"{metric} was not measured on every test row that it counts")
    verdict = _verdict(met=seen.low >= bound, missed=seen.value < bound)
    return _seen(name, seen, bound, verdict, f"{metric} {_interval(seen.value, seen)}: its lower end must reach {bound:g}")


def _not_worse(evaluation: EvaluationReport, metric: str, margin: float) -> GateCheck:
    name = f"not_worse_than_champion.{metric}"
    # Whether anybody holds production is told by the champion record's digest, not by whom the report happens to list.
    if evaluation.champion == Champion().digest:
        return GateCheck(name=name, observed=None, bound=0.0 - margin, verdict=Outcome.PASSED, detail="nobody holds production")
    seen = evaluation.comparison("champion", metric)
    if seen is None or seen.rows < max(evaluation.rows_of(metric), 1):
        return _missing(name, 0.0 - margin, f"{metric} was not compared with the champion on every test row that it counts")
    verdict = _verdict(met=seen.low > -margin, missed=seen.difference < -margin)
    told = f"{metric} against the champion {_interval(seen.difference, seen)}: its lower end must be above {0.0 - margin:g}"
    return _seen(name, seen, 0.0 - margin, verdict, told)


def _better(evaluation: EvaluationReport, metric: str, margin: float) -> GateCheck:
    name = f"better_than_base.{metric}"
    seen = evaluation.comparison("base", metric)
    if seen is None or seen.rows < max(evaluation.rows_of(metric), 1):
        return _missing(name, margin, f"{metric} was not compared with the bare base on every test row that it counts")
    verdict = _verdict(met=seen.low > margin, missed=seen.difference < margin)
    told = f"{metric} against the bare base {_interval(seen.difference, seen)}: its lower end must be above {margin:g}"
    return _seen(name, seen, margin, verdict, told)


def _verdict(*, met: bool, missed: bool) -> Outcome:
    return Outcome.FAILED if missed else Outcome.PASSED if met else Outcome.INSUFFICIENT


def _interval(value: float, seen: MetricValue | Comparison) -> str:
    signed = "+" if isinstance(seen, Comparison) else ""  # a difference is read by its sign
    return f"is {value:{signed}.3f} ({seen.low:{signed}.3f} to {seen.high:{signed}.3f})"


def _seen(name: str, seen: MetricValue | Comparison, bound: float, verdict: Outcome, detail: str) -> GateCheck:
    value = seen.value if isinstance(seen, MetricValue) else seen.difference
    return GateCheck(name=name, observed=value, low=seen.low, high=seen.high, bound=bound, verdict=verdict, detail=detail)


def _missing(name: str, bound: float, detail: str) -> GateCheck:
    return GateCheck(name=name, observed=None, bound=bound, verdict=Outcome.INSUFFICIENT, detail=detail)
