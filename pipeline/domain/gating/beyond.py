"""Rules about more than the scores on the test split: suites, over-fitting, leaks, time and cost, the way it will be run, looks.

Numbers that nobody measured are insufficient here as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.domain.gating.looks import Look
from pipeline.domain.gating.scores import champion_held, interval_check
from pipeline.domain.gating.verdicts import GateCheck, GatePolicy, Outcome, missing
from pipeline.domain.measured import BASE, CANDIDATE, CHAMPION, CostReport, EvaluationReport, SuiteKind
from pipeline.domain.model import KEPT_LOSS, TrainingRun

_NO_SAMPLE = frozenset({SuiteKind.EDGE_CASES, SuiteKind.SAFETY})
"""Suites whose rows are all that is asked about, not a sample of more: the score itself must reach the bound."""


def further_checks(
    evaluation: EvaluationReport, training: TrainingRun, policy: GatePolicy, look: Look, costs: CostReport | None
) -> Iterator[GateCheck]:
    """A check a rule, in the order in which reports show them."""
    for suite, bound in sorted(policy.suites.items()):
        yield _suite(evaluation, suite, bound, look)
    for suite, budget in sorted(policy.forgetting.items()):
        yield _forgetting(evaluation, suite, budget, look)
    if policy.overfitting_gap is not None:
        yield _overfitting(training, policy.overfitting_gap)
    if policy.exposure is not None:
        yield _exposure(evaluation, policy.exposure)
    yield from _ceilings(evaluation, policy, costs)
    for form in policy.parity:
        if evaluation.params.get("parity_rows") != 0:
            yield _parity(evaluation, form)
    yield _trained_on(evaluation)
    if policy.holdout.spending == "even" and look.number > policy.holdout.looks:
        told = f"look {look.number} at these test rows; the policy allows {policy.holdout.looks}: fresh rows are needed"
        yield missing("holdout", policy.holdout.looks, told).model_copy(update={"observed": look.number})


def _suite(evaluation: EvaluationReport, suite: str, bound: float, look: Look) -> GateCheck:
    name, seen = f"suites.{suite}", evaluation.suite(suite)
    if seen is None or (value := seen.value(CANDIDATE)) is None:
        return missing(name, bound, f"the suite {suite} was not measured")
    if unjudged := _unjudged(suite, seen.rows, min(seen.judged, value.rows)):
        return missing(name, bound, unjudged)
    if seen.kind not in _NO_SAMPLE:
        return interval_check(name, value, bound, look, f"{seen.metric} of {suite}", reach=True)
    failures = f"; failed: {', '.join(seen.failures[:5])}" if seen.failures else ""
    told = f"{seen.metric} of {suite} is {value.value:.3f} over {seen.rows} rows: it must reach {bound:g}{failures}"
    verdict = Outcome.PASSED if value.value >= bound else Outcome.FAILED
    return GateCheck(name=name, observed=value.value, low=value.low, high=value.high, bound=bound, verdict=verdict, detail=told)


def _forgetting(evaluation: EvaluationReport, suite: str, budget: float, look: Look) -> GateCheck:
    """Against the champion, which had the skill last; where there is none, against the bare base, which had it first."""
    name, seen = f"forgetting.{suite}", evaluation.suite(suite)
    other = CHAMPION if champion_held(evaluation) else BASE
    title = "the champion" if other == CHAMPION else "the bare base"
    if seen is None or (kept := seen.comparison(other)) is None:
        return missing(name, 0.0 - budget, f"the suite {suite} was not compared with {title}")
    if unjudged := _unjudged(suite, seen.rows, min(seen.judged, kept.rows)):
        return missing(name, 0.0 - budget, unjudged)
    return interval_check(name, kept, 0.0 - budget, look, f"{seen.metric} of {suite} against {title}")


def _unjudged(suite: str, rows: int, judged: int) -> str | None:
    if rows == 0:
        return f"the suite {suite} has no rows"
    return f"{judged} of the {rows} rows of {suite} could be judged" if judged < rows else None


def _overfitting(training: TrainingRun, most: float) -> GateCheck:
    if training.eval_loss is None:
        return missing("overfitting_gap", most, "the training measured no loss on the eval side")
    # What was trained before there was a loss of the kept weights has the mean over all steps alone, which hides most of a gap.
    ours = training.stages[-1].measures.get(KEPT_LOSS, training.train_loss) if training.stages else training.train_loss
    gap = training.eval_loss - ours
    told = f"the loss on the eval side is {training.eval_loss:.3f}, {gap:+.3f} nats from that of training: at most {most:g} more"
    verdict = Outcome.PASSED if gap <= most else Outcome.FAILED
    return GateCheck(name="overfitting_gap", observed=gap, bound=most, verdict=verdict, detail=told)


def _exposure(evaluation: EvaluationReport, most: float) -> GateCheck:
    seen = [e for e in evaluation.exposures if e.subject == CANDIDATE]
    if not seen:
        return missing("exposure", most, "no canary was looked for")
    worst = max(seen, key=lambda e: e.bits)
    told = f"the canary {worst.name} is given away by {worst.bits:.1f} bits of at most {worst.most:.1f}: no more than {most:g}"
    verdict = Outcome.FAILED if worst.bits > most else Outcome.PASSED
    blind = [e.name for e in seen if e.most <= most]
    if blind and verdict is Outcome.PASSED:
        # A canary ranked among too few of its like could not be shown to leak, however well it were remembered.
        verdict, told = Outcome.INSUFFICIENT, f"{told}; {blind[0]} was ranked among too few to show more than {most:g} bits"
    return GateCheck(name="exposure", observed=worst.bits, bound=most, verdict=verdict, detail=told)


def _ceilings(evaluation: EvaluationReport, policy: GatePolicy, costs: CostReport | None) -> Iterator[GateCheck]:
    """Times and prices as they were measured on the machine of the run. They have no interval: the machine is no sample."""
    asked = {key: bound for key, bound in policy.ceilings.model_dump().items() if bound is not None}
    ours = costs.of(CANDIDATE) if costs else None
    before = CHAMPION if champion_held(evaluation) else BASE
    theirs = costs.of(before) if costs else None
    for key, bound in asked.items():
        name, found = f"ceilings.{key}", None
        if ours is not None and ours.answers > 0:
            timed = ours.timed > 0
            if key == "per_thousand":
                found, unit = ours.per_thousand, "the price of 1,000 answers"
            elif key == "latency_p50":
                found, unit = (ours.latency_p50 if timed else None), "seconds of the median answer"
            elif key == "latency_p95":
                found, unit = (ours.latency_p95 if timed else None), "seconds of the slowest answer but one in twenty"
            elif timed and theirs is not None and theirs.timed > 0 and theirs.latency_p50 > 0:
                title = "the champion's" if before == CHAMPION else "the bare base's"
                found, unit = ours.latency_p50 / theirs.latency_p50, f"the median time of an answer over {title}"
        if found is None:
            yield missing(name, bound, f"{key.replace('_', ' ')} was not measured")
            continue
        verdict = Outcome.PASSED if found <= bound else Outcome.FAILED
        told = f"{found:.3g} is {unit}: at most {bound:g}"
        yield GateCheck(name=name, observed=found, bound=bound, verdict=verdict, detail=told)


SERVED_ALIKE = 0.75
"""So many of the served answers must be those that were measured, word for word: near ties may fall otherwise one by one than in
a batch, and no more than that."""


def _parity(evaluation: EvaluationReport, form: str) -> GateCheck:
    """The same token ids, and logits within their bound; where a form gives answers alone, the same answer to every row.

    Served, it must give the same answers too: likelihoods of what was said agree, whoever said it.
    """
    name, seen = f"parity.{form}", next((p for p in evaluation.parity if p.form == form), None)
    if seen is None or seen.rows == 0:
        return missing(name, 0.0, f"the candidate was not run as {form}")
    if seen.logits is None:
        bound, observed, met = 1.0, seen.agreement, seen.agreement >= 1
        told = f"run as {form}, {seen.agreement:.1%} of {seen.rows} answers are those that were measured: all must be"
    else:
        bound, observed, met = seen.bound, seen.logits, seen.logits <= seen.bound
        told = f"run as {form}, logits differ by {seen.logits:.2g} of their size on {seen.rows} rows: at most {bound:g}"
    if met and form == "served" and seen.agreement < SERVED_ALIKE:
        bound, observed, met = SERVED_ALIKE, seen.agreement, False
        alike = f"{seen.agreement:.1%} of {seen.rows} answers are those that were measured"
        told = f"run as {form}, {alike}: at least {bound:.0%} must be"
    if not seen.same_tokens:
        told, met = f"run as {form}, prompts come to other token ids than those that were measured", False
    verdict = Outcome.PASSED if met else Outcome.FAILED
    return GateCheck(name=name, observed=observed, bound=bound, verdict=verdict, detail=told)


def _trained_on(evaluation: EvaluationReport) -> GateCheck:
    seen = evaluation.trained_on
    told = f"{seen} of the test rows were trained on" if seen else "none of the test rows was trained on"
    verdict = Outcome.PASSED if seen == 0 else Outcome.FAILED
    return GateCheck(name="trained_on", observed=seen, bound=0, verdict=verdict, detail=told)
