"""Rules about how good the answers to the test split are: by themselves, and against champion, base and cheaper answers.

Every rule here reads an interval of the report, widened for the look that it is; see looks.py. Rules about anything else stand in
beyond.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.domain.data import Task
from pipeline.domain.gating.looks import Look
from pipeline.domain.gating.verdicts import DIFFERS_FROM_BASE, GateCheck, GatePolicy, Outcome, SlicePolicy, missing, passed_if
from pipeline.domain.measured import BASE, CANDIDATE, CHAMPION, Comparison, EvaluationReport, MetricValue, Rung
from pipeline.domain.model import Champion, TrainingRun

_TITLES = {CHAMPION: "the champion", BASE: "the bare base"}


def score_checks(evaluation: EvaluationReport, training: TrainingRun, policy: GatePolicy, look: Look) -> Iterator[GateCheck]:
    """A check a rule, in the order in which reports show them."""
    yield _enough_rows(evaluation, policy)
    yield _differs(evaluation, look)
    for metric, bound in sorted(policy.thresholds.items()):
        yield _threshold(evaluation, metric, bound, look)
    for metric, margin in sorted(policy.not_worse_than_champion.items()):
        yield not_worse(evaluation, f"not_worse_than_champion.{metric}", metric, CHAMPION, margin, look)
    for metric, margin in sorted(policy.better_than_champion.items()):
        yield _better(evaluation, f"better_than_champion.{metric}", metric, CHAMPION, margin, look)
    for metric, margin in sorted(policy.better_than_base.items()):
        yield _better(evaluation, f"better_than_base.{metric}", metric, BASE, margin, look)
    for metric, margin in sorted(policy.worth_tuning.items()):
        yield from _worth_tuning(evaluation, training, metric, margin, look)
    for field, rule in sorted(policy.slices.items()):
        yield _slices(evaluation, field, rule, look)


def champion_held(evaluation: EvaluationReport) -> bool:
    """Whether anybody holds production: told by the champion record's digest, not by whom the report happens to list."""
    return evaluation.champion != Champion().digest


def interval_check(
    name: str, seen: MetricValue | Comparison, bound: float, look: Look, told: str, *, reach: bool = False
) -> GateCheck:
    """A rule about a number with an interval: its low end must be above `bound`, or, with `reach`, at it or above.

    told: what the number is called, such as "exact_match against the champion".
    """
    single = isinstance(seen, MetricValue)
    low, high = look.widened(seen, (0.0, 1.0) if single else (-1.0, 1.0))
    value = seen.value if isinstance(seen, MetricValue) else seen.difference
    verdict = passed_if(met=low >= bound if reach else low > bound, missed=value < bound)
    signed = "" if single else "+"  # a difference is read by its sign
    said = f"{told} is {value:{signed}.3f} ({low:{signed}.3f} to {high:{signed}.3f})"
    said += f": its lower end must {'reach' if reach else 'be above'} {bound:g}"
    return GateCheck(name=name, observed=value, low=low, high=high, bound=bound, verdict=verdict, detail=said)


def not_worse(evaluation: EvaluationReport, name: str, metric: str, other: str, margin: float, look: Look) -> GateCheck:
    """The low end of (candidate - other) must be above -margin. Where nobody is champion, no candidate is worse."""
    if other == CHAMPION and not champion_held(evaluation):
        return GateCheck(name=name, observed=None, bound=0.0 - margin, verdict=Outcome.PASSED, detail="nobody holds production")
    return _against(evaluation, name, metric, other, 0.0 - margin, look)


def _better(evaluation: EvaluationReport, name: str, metric: str, other: str, margin: float, look: Look) -> GateCheck:
    """The low end of (candidate - other) must be above margin. The first candidate has no champion to be better than."""
    if other == CHAMPION and not champion_held(evaluation):
        return GateCheck(name=name, observed=None, bound=margin, verdict=Outcome.PASSED, detail="nobody holds production")
    return _against(evaluation, name, metric, other, margin, look)


def _against(evaluation: EvaluationReport, name: str, metric: str, other: str, bound: float, look: Look) -> GateCheck:
    title = _TITLES.get(other, f"the cheaper answer {other}")
    seen = evaluation.comparison(other, metric)
    if seen is None or seen.rows < max(evaluation.rows_of(metric), 1):
        return missing(name, bound, f"{metric} was not compared with {title} on every test row that it counts")
    if seen.difference == 0 and _same_adapter(evaluation, other):
        seen = seen.model_copy(update={"low": 0.0, "high": 0.0})  # not a sample: whatever the rows, it is the same model
    return interval_check(name, seen, bound, look, f"{metric} against {title}")


def _same_adapter(evaluation: EvaluationReport, other: str) -> bool:
    ours, theirs = evaluation.subject(CANDIDATE), evaluation.subject(other)
    return ours is not None and theirs is not None and ours.identity == theirs.identity


def _enough_rows(evaluation: EvaluationReport, policy: GatePolicy) -> GateCheck:
    rows, asked = evaluation.primary_rows, policy.min_test_rows
    verdict = Outcome.PASSED if rows >= max(asked, 1) else Outcome.INSUFFICIENT
    detail = f"{rows} test rows, {asked} are asked for"
    return GateCheck(name="min_test_rows", observed=rows, bound=asked, verdict=verdict, detail=detail)


def _differs(evaluation: EvaluationReport, look: Look) -> GateCheck:
    seen = evaluation.metric(CANDIDATE, DIFFERS_FROM_BASE)
    if seen is None or seen.rows < evaluation.rows:
        return missing(DIFFERS_FROM_BASE, 0.0, "the bare base was not measured on every test row")
    if evaluation.rows == 0:
        return missing(DIFFERS_FROM_BASE, 0.0, "there are no test rows")
    told = f"{seen.value:.1%} of the answers differ from the bare base's"
    if seen.value == 0:
        told = "every answer is the bare base's: these rows show no trace of the tuning"
    low, high = look.widened(seen, (0.0, 1.0))
    verdict = Outcome.PASSED if seen.value > 0 else Outcome.FAILED
    return GateCheck(name=DIFFERS_FROM_BASE, observed=seen.value, low=low, high=high, bound=0.0, verdict=verdict, detail=told)


def _threshold(evaluation: EvaluationReport, metric: str, bound: float, look: Look) -> GateCheck:
    name = f"thresholds.{metric}"
    seen = evaluation.metric(CANDIDATE, metric)
    if seen is None or seen.rows < max(evaluation.rows_of(metric), 1):
        return missing(name, bound, f"{metric} was not measured on every test row that it counts")
    return interval_check(name, seen, bound, look, metric, reach=True)


def _worth_tuning(
    evaluation: EvaluationReport, training: TrainingRun, metric: str, margin: float, look: Look
) -> Iterator[GateCheck]:
    """A check for each cheaper answer that was measured; of the task generate the bare base is its zero-shot rung."""
    measured = {subject.name for subject in evaluation.subjects}
    rungs = [str(rung.value) for rung in Rung if rung.value in measured]
    asked = (evaluation.params.get("ladder") or {}).get("rungs", ())
    if training.task is Task.GENERATE and Rung.ZERO_SHOT in asked and Rung.ZERO_SHOT not in measured and BASE in measured:
        rungs.append(BASE)
    for rung in rungs:
        yield _better(evaluation, f"worth_tuning.{rung}.{metric}", metric, rung, margin, look)
    if not rungs:
        yield missing(f"worth_tuning.{metric}", margin, "no cheaper answer was measured on this test")


def _slices(evaluation: EvaluationReport, field: str, rule: SlicePolicy, look: Look) -> GateCheck:
    """Fails where any slice is worse beyond chance and margin. A pass says that none was shown to be; not that none is."""
    name, other = f"slices.{field}", CHAMPION if champion_held(evaluation) else BASE
    title, bound, alpha = _TITLES[other], 0.0 - rule.margin, 2 * look.measured_tail
    judged = [s for s in evaluation.slices if s.field == field and s.subject == other and s.rows >= rule.min_rows]
    if not judged:
        return missing(name, bound, f"no slice by {field} of {rule.min_rows} rows was compared with {title}")
    worst: Comparison | None = None
    for one in judged:
        if one.comparison is None or one.adjusted is None or one.comparison.rows < one.rows:
            return missing(name, bound, f"{field} = {one.value} was not compared with {title} on every row")
        if one.adjusted < alpha and one.comparison.difference < bound:
            seen = one.comparison
            told = f"where {field} is {one.value}, {one.metric} against {title} is {seen.difference:+.3f} on {one.rows} rows"
            told += f" (p {one.adjusted:.2g} after Holm): no slice may be worse by more than {rule.margin:g}"
            return _slice_check(name, seen, bound, Outcome.FAILED, told)
        if worst is None or one.comparison.difference < worst.difference:
            worst = one.comparison
    assert worst is not None
    told = f"no slice by {field} was shown to be worse than {title} by more than {rule.margin:g}; {len(judged)} of "
    told += f"{rule.min_rows} rows or more, the lowest at {worst.difference:+.3f}"
    return _slice_check(name, worst, bound, Outcome.PASSED, told)


def _slice_check(name: str, seen: Comparison, bound: float, verdict: Outcome, told: str) -> GateCheck:
    return GateCheck(name=name, observed=seen.difference, low=seen.low, high=seen.high, bound=bound, verdict=verdict, detail=told)
