"""Bad candidates at the desk that labels whose numbers are too few, none, another's, or looked at too often; bad policies."""

from __future__ import annotations

from dataclasses import replace

from pipeline.backends.ledger import SqlLedger
from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.measured import CANDIDATE, EvaluationReport, MetricValue
from pipeline.errors import BadParams, Broken, Misuse, Tampered
from pipeline.modeling.adapters.handshake import WEIGHTS
from pipeline.params import GateParams
from pipeline.params.gate import HoldoutParams
from pipeline.steps.gate import spend
from tests.drills.gate_bad_labels import good
from tests.drills.gate_candidates import Bad, Trial
from tests.drills.gate_tampering import copied, edited, flipped
from tests.drills.gate_worlds import Measured, Tuned, World


def few_rows(count: int) -> Trial:
    def trial(world: World) -> Tuned:
        data, splits = world.split(f"{count}-rows", test=world.sides["test"][:count])
        found = good(world)
        return Tuned(found.training.model_copy(update={"splits": splits.digest}), found.adapter, splits, data)

    return trial


def few_rows_lenient(world: World) -> GateDecision:
    """Thirty rows where the policy lets thirty be enough: what they show is too little all the same."""
    found = few_rows(30)(world)
    assert isinstance(found, Tuned)
    policy = world.policy.model_copy(update={"min_test_rows": 30})
    return world.decided(found, world.evaluated(found), policy=policy)


def measured(world: World) -> tuple[Tuned, Measured]:
    """A good candidate as it was measured."""
    found = good(world)
    return found, world.as_usual(found)


def other_report(world: World) -> GateDecision:
    _, report = measured(world)
    return world.decided(world.trained("labels-seed-3", seed=3), report)


def other_adapter_same_training(world: World) -> GateDecision:
    """A report of an adapter of the same training record but for its files."""
    found, report = measured(world)
    changed = edited(world, found, "nudged", lambda tensors: {k: v * 1.001 for k, v in tensors.items()})
    evaluation = report.evaluation.model_copy(update={"training": changed.training.digest})
    return world.decided(changed, replace(report, evaluation=evaluation), costs=False)


def other_test(world: World) -> GateDecision:
    """The report is of other splits than the candidate was trained on."""
    found, report = measured(world)
    _, splits = world.split("other-test", test=world.sides["eval"])
    evaluation = report.evaluation.model_copy(update={"splits": splits.digest, "test": splits.test.sha256})
    return world.decided(found, replace(report, evaluation=evaluation), costs=False)


def asked_other_test(world: World) -> Tuned:
    data, splits = world.split("asked-other-test", test=world.sides["test"][:210])
    return replace(good(world), splits=splits, data=data)


def test_file_changed(world: World) -> Tuned:
    data, splits = world.split("changed")
    flipped(data / "test.parquet", 0.5)
    found = good(world)
    return Tuned(found.training.model_copy(update={"splits": splits.digest}), found.adapter, splits, data)


def champion_changed(world: World) -> GateDecision:
    found = good(world)
    held = copied(world, world.champion_tuned, "champion-changed")
    flipped(held.adapter / WEIGHTS, 0.7)
    return world.decided(found, world.evaluated(found, champion_adapter=held.adapter))


def with_metric(report: EvaluationReport, name: str, **changes: float) -> EvaluationReport:
    """The candidate's metric with other numbers."""

    def changed(metric: MetricValue) -> MetricValue:
        return metric.model_copy(update=changes) if metric.metric == name else metric

    subjects = tuple(
        s.model_copy(update={"metrics": tuple(changed(m) for m in s.metrics)}) if s.name == CANDIDATE else s
        for s in report.subjects
    )
    return report.model_copy(update={"subjects": subjects})


def not_a_number(world: World) -> GateDecision:
    found, report = measured(world)
    return world.decided(
        found, replace(report, evaluation=with_metric(report.evaluation, "accuracy", value=float("nan"))), costs=False
    )


def above_one(world: World) -> GateDecision:
    found, report = measured(world)
    return world.decided(
        found, replace(report, evaluation=with_metric(report.evaluation, "accuracy", value=1.2, high=1.3)), costs=False
    )


def scores_missing(world: World) -> GateDecision:
    found, report = measured(world)
    evaluation = with_metric(report.evaluation, "macro_f1", rows=report.evaluation.rows - 1)
    costs = report.costs.model_copy(update={"evaluation": evaluation.digest})
    return world.decided(found, replace(report, evaluation=evaluation, costs=costs))


def unmeasured(world: World) -> GateDecision:
    """A metric of the policy that nobody measured."""
    params = world.measured.model_copy(update={"metrics": ("accuracy", "brier"), "suites": ()})
    return world.decided(good(world), world.evaluated(good(world), params=params))


def named_twice(world: World) -> GateDecision:
    found, report = measured(world)
    evaluation = report.evaluation.model_copy(update={"subjects": (*report.evaluation.subjects, report.evaluation.subjects[0])})
    return world.decided(found, replace(report, evaluation=evaluation), costs=False)


def untimed(world: World) -> GateDecision:
    found, report = measured(world)
    return world.decided(found, report, costs=False)


def timed_elsewhere(world: World) -> GateDecision:
    """Ceilings are to be read from the times of another evaluation."""
    found, report = measured(world)
    costs = report.costs.model_copy(update={"evaluation": "0" * 64})
    return world.decided(found, replace(report, costs=costs))


def looked_too_often(world: World) -> GateDecision:
    """One look more than the policy allows, counted by a real ledger."""
    found, report = measured(world)
    ledger = SqlLedger(world.place("ledger") / "ledger.db")
    earlier = [report.evaluation.model_copy(update={"params": report.evaluation.params | {"seed": n}}) for n in range(100, 108)]
    for one in (*earlier, report.evaluation):
        looks = spend(one, found.splits.test, model="desk", by="drill", ledger=ledger)
    policy = world.policy.model_copy(update={"holdout": HoldoutParams(spending="even", looks=8)})
    return world.decided(found, report, policy=policy, looks=looks)


def no_longer_shown(world: World) -> GateDecision:
    """What a first look just shows, a tenth at the same rows does not."""
    found, report = measured(world)
    seen = world.decided(found, report)
    low = next(check.low for check in seen.checks if check.name == "thresholds.brier")
    assert low is not None
    policy = world.policy.model_copy(update={"thresholds": {"brier": low}})
    assert world.decided(found, report, policy=policy).verdict is Outcome.PASSED
    return world.decided(found, report, policy=policy, looks=10)


def the_champion_again(world: World) -> GateDecision:
    held = world.champion_tuned
    return world.decided(held, world.as_usual(held), policy=better(world))


def no_better(world: World) -> GateDecision:
    found, report = measured(world)
    return world.decided(found, report, policy=better(world))


def better(world: World) -> GateParams:
    return world.policy.model_copy(update={"better_than_champion": {"accuracy": 0.0}})


def params_with(world: World, gate: str) -> GateDecision:
    from pipeline.backends.params_file import read_params

    path = world.place("params") / "params.yaml"
    text = "model: {name: desk, task: classify, base: ./base}\nevaluate: {metrics: [accuracy]}\n"
    path.write_text(f"{text}gate: {gate}\n", encoding="utf-8")
    read_params(path)
    raise AssertionError("the params were taken")


BAD: tuple[Bad, ...] = (
    Bad("no-test-rows", "min_test_rows", few_rows(0), verdict=Outcome.INSUFFICIENT),
    Bad("five-test-rows", "min_test_rows", few_rows(5), verdict=Outcome.INSUFFICIENT),
    Bad("thirty-test-rows", "min_test_rows", few_rows(30), verdict=Outcome.INSUFFICIENT),
    Bad("thirty-rows-allowed", "not_worse_than_champion.accuracy", few_rows_lenient, verdict=Outcome.INSUFFICIENT),
    Bad("report-of-another-candidate", Misuse, other_report, "the candidate is training"),
    Bad("report-of-another-adapter", Misuse, other_adapter_same_training, "the adapter measured is"),
    Bad("report-of-another-test", Misuse, other_test, "used different splits"),
    Bad("asked-another-test", Misuse, asked_other_test, "rows held out here may have been trained on there"),
    Bad("test-file-changed", Tampered, test_file_changed, "recorded digest"),
    Bad("champion-changed", Tampered, champion_changed, "the champion's adapter has digest"),
    Bad("score-not-a-number", Broken, not_a_number, "which can not be"),
    Bad("score-above-one", Broken, above_one, "which can not be"),
    Bad(
        "scores-missing",
        "thresholds.macro_f1",
        scores_missing,
        "not measured on every test row",
        Outcome.INSUFFICIENT,
        alone=True,
    ),
    Bad("metric-not-measured", "thresholds.macro_f1", unmeasured, "not measured", Outcome.INSUFFICIENT),
    Bad("measured-twice", Broken, named_twice, "names a subject twice"),
    Bad("not-timed", "ceilings.latency_p95", untimed, "was not measured", Outcome.INSUFFICIENT),
    Bad("timed-elsewhere", Misuse, timed_elsewhere, "the costs are of evaluation"),
    Bad("looked-too-often", "holdout", looked_too_often, "fresh rows are needed", Outcome.INSUFFICIENT),
    Bad("shown-once-not-ten-times", "thresholds.brier", no_longer_shown, verdict=Outcome.INSUFFICIENT, alone=True),
    Bad("the-champion-again", "better_than_champion.accuracy", the_champion_again, verdict=Outcome.INSUFFICIENT, alone=True),
    Bad("no-better-than-the-champion", "better_than_champion.accuracy", no_better, verdict=Outcome.INSUFFICIENT, alone=True),
    Bad("policy-of-no-metric", BadParams, lambda world: params_with(world, "{thresholds: {accuracyy: 0.5}}"), "accuracyy"),
    Bad("policy-of-no-suite", BadParams, lambda world: params_with(world, "{forgetting: {mmlu: 0.1}}"), "no suite"),
)
