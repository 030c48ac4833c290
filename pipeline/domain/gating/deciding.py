"""All rules of a policy over one report: whether the report is of this candidate and possible at all, then check by check."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist

from pipeline.domain.gating.beyond import further_checks
from pipeline.domain.gating.looks import Look, look
from pipeline.domain.gating.scores import score_checks
from pipeline.domain.gating.verdicts import GateCheck, GateDecision, GatePolicy, Outcome, missing
from pipeline.domain.measured import CostReport, EvaluationReport
from pipeline.domain.model import TrainingRun
from pipeline.errors import Broken, Misuse

LEAST_ROWS = 10
"""Whatever a policy asks: no interval over fewer rows is worth its name."""
_POWER = 0.8


def decide(
    evaluation: EvaluationReport,
    training: TrainingRun,
    policy: GatePolicy,
    *,
    costs: CostReport | None = None,
    looks: int = 1,
) -> GateDecision:
    """Judge one evaluation of one candidate.

    Fewer test rows of the first metric than the policy asks for make every check insufficient, and so does a metric that was not
    measured. A policy that asks nothing about scores passes nobody. An empty production stage satisfies "not worse than the
    champion". looks: which look at this holdout it is, 1 for the first; later ones are judged by wider intervals.

    Raises Misuse when the evaluation is not of this training's adapter or the costs not of this evaluation, Broken when they hold
    impossible numbers.
    """
    _check_identity(evaluation, training, costs)
    _check_numbers(evaluation, training, costs)
    if looks < 1:
        raise Misuse(f"this is look {looks} at the holdout, but the first one is 1")
    spent = look(looks, _confidence(evaluation), policy.holdout)
    checks = [*score_checks(evaluation, training, policy, spent), *further_checks(evaluation, training, policy, spent, costs)]
    if not policy.scores_asked:
        checks.append(missing("policy", 0.0, "the policy sets no rule for any metric, so nothing was shown"))
    if evaluation.primary_rows < max(policy.min_test_rows, LEAST_ROWS):
        checks = [c.model_copy(update={"verdict": Outcome.INSUFFICIENT}) for c in checks]
    return GateDecision(
        evaluation=evaluation.digest,
        training=training.digest,
        adapter_digest=training.adapter_digest,
        policy=policy.model_dump(mode="json"),
        checks=tuple(checks),
        verdict=_overall(checks),
        looks=looks,
        alpha=spent.tail,
        costs=costs.digest if costs else None,
        detectable=_detectable(evaluation, spent),
    )


def _overall(checks: list[GateCheck]) -> Outcome:
    verdicts = {c.verdict for c in checks}
    return next((v for v in (Outcome.FAILED, Outcome.INSUFFICIENT) if v in verdicts), Outcome.PASSED)


def _confidence(evaluation: EvaluationReport) -> float:
    """That of the report's intervals, as its params say."""
    said = evaluation.params.get("confidence", 0.95)
    if not isinstance(said, float) or not 0.5 < said < 1:
        raise Broken(f"the evaluation's confidence is {said!r}, which can not be", fix="evaluate again")
    return said


def _detectable(evaluation: EvaluationReport, spent: Look) -> dict[str, float]:
    """The report's, which are for a first and only look, at the tail that this look may spend: more looks, less is seen."""
    if spent.tail <= 0:
        return dict.fromkeys(evaluation.detectable, 1.0)
    normal = NormalDist().inv_cdf
    factor = (normal(1 - spent.tail) + normal(_POWER)) / (normal(1 - spent.measured_tail) + normal(_POWER))
    return {metric: min(1.0, round(least * factor, 9)) for metric, least in sorted(evaluation.detectable.items())}


def _check_identity(evaluation: EvaluationReport, training: TrainingRun, costs: CostReport | None) -> None:
    fix = "evaluate this training's adapter and decide on that report"
    if evaluation.training != training.digest:
        raise Misuse(
            f"the evaluation is of training {evaluation.training[:12]}, the candidate is training {training.digest[:12]}", fix=fix
        )
    names = [s.name for s in evaluation.subjects]
    if len(set(names)) < len(names):
        raise Broken("the evaluation names a subject twice", fix="evaluate again")
    for what, listed in _named(evaluation):
        if len(set(listed)) < len(listed):
            raise Broken(f"the evaluation holds {what} twice", fix="evaluate again")
    candidate = evaluation.subject("candidate")
    if candidate is None or candidate.identity != training.adapter_digest:
        measured = candidate.identity[:12] if candidate else "none"
        raise Misuse(f"the adapter measured is {measured}, the candidate's is {training.adapter_digest[:12]}", fix=fix)
    if evaluation.splits != training.splits:
        raise Misuse("the evaluation and the training used different splits: the test rows may have been trained on", fix=fix)
    if costs is not None and costs.evaluation != evaluation.digest:
        said = f"the costs are of evaluation {costs.evaluation[:12]}, this is evaluation {evaluation.digest[:12]}"
        raise Misuse(said, fix="evaluate again, which measures both")


def _named(evaluation: EvaluationReport) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """What is looked up by name: the first of two would be believed, whatever the second says."""
    yield "a metric of a subject", [(s.name, m.metric) for s in evaluation.subjects for m in s.metrics]
    yield "a comparison", [(c.other, c.metric) for c in evaluation.comparisons]
    yield "a slice", [(s.field, s.value, s.subject) for s in evaluation.slices]
    yield "a suite", [(s.name,) for s in evaluation.suites]
    yield "a subject of a suite", [(s.name, one.name) for s in evaluation.suites for one in s.subjects]
    yield "a comparison of a suite", [(s.name, c.other) for s in evaluation.suites for c in s.comparisons]
    yield "a form", [(p.form,) for p in evaluation.parity]


def _check_numbers(evaluation: EvaluationReport, training: TrainingRun, costs: CostReport | None) -> None:
    """Written so that NaN, which compares false with everything, does not slip through."""
    for name, value, low, high, least in _intervals(evaluation):
        if not least <= low <= value <= high <= 1:
            raise Broken(f"{name} is {value} ({low} to {high}), which can not be: scores lie in 0 to 1", fix="evaluate again")
    for name, number, most in _amounts(evaluation, training, costs):
        if number is not None and not 0 <= number <= most:
            raise Broken(f"{name} is {number}, which can not be", fix="evaluate again")


def _intervals(evaluation: EvaluationReport) -> Iterator[tuple[str, float, float, float, float]]:
    subjects = [("", s) for s in evaluation.subjects]
    subjects += [(f" in {suite.name}", s) for suite in evaluation.suites for s in suite.subjects]
    compared = [("", c) for c in evaluation.comparisons]
    compared += [(f" in {suite.name}", c) for suite in evaluation.suites for c in suite.comparisons]
    compared += [(f" where {s.field} is {s.value}", s.comparison) for s in evaluation.slices if s.comparison]
    for where, subject in subjects:
        for m in subject.metrics:
            yield f"{subject.name}'s {m.metric}{where}", m.value, m.low, m.high, 0.0
    for where, c in compared:
        yield f"{c.metric} against the {c.other}{where}", c.difference, c.low, c.high, -1.0


def _amounts(
    evaluation: EvaluationReport, training: TrainingRun, costs: CostReport | None
) -> Iterator[tuple[str, float | None, float]]:
    largest = 1e300  # any finite number: infinity is none
    for s in evaluation.slices:
        yield f"the adjusted p where {s.field} is {s.value}", s.adjusted, 1.0
    for e in evaluation.exposures:
        yield f"the exposure of {e.name}", e.bits, largest
    for p in evaluation.parity:
        yield f"the difference of the logits as {p.form}", p.logits, largest
        yield f"the agreement as {p.form}", p.agreement, 1.0
    yield "the number of test rows trained on", evaluation.trained_on, largest
    for name, loss in (("training", training.train_loss), ("the eval side", training.eval_loss)):
        yield f"the size of the loss of {name}", None if loss is None else abs(loss), largest
    for c in costs.costs if costs else ():
        yield f"the median time of an answer by {c.subject}", c.latency_p50, largest
        yield f"the slow time of an answer by {c.subject}", c.latency_p95, largest
        yield f"the price of {c.subject}", c.per_thousand, largest
