"""Every further rule of the gate as a table: it passes, it fails, and what nobody measured is insufficient."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_gating import FAILED, HELD, INSUFFICIENT, PASSED, TRAINING, policy, report

from pipeline.domain.data import Task
from pipeline.domain.gating import GateCheck, GatePolicy, HoldoutPolicy, Outcome, decide, earlier_looks, look
from pipeline.domain.measured import (
    Comparison,
    Cost,
    CostReport,
    Exposure,
    HoldoutUse,
    MetricValue,
    Parity,
    SliceValue,
    Subject,
    SuiteKind,
    SuiteReport,
)
from pipeline.domain.model import KEPT_LOSS, Champion, StageRun
from pipeline.domain.tuning import Objective, Tuner
from pipeline.errors import Broken, Misuse

Seen = tuple[float, float, float]
STAGE = StageRun(
    name="sft",
    objective=Objective.CLASSIFY,
    tuner=Tuner.LORA,
    start="1" * 64,
    start_from="base",
    adapter_digest=TRAINING.adapter_digest,
    steps=1,
    kept_step=1,
    train_loss=1.0,
    eval_loss=None,
    train_rows=10,
    trainable_parameters=1,
    counts={},
    measures={},
    alarms=(),
    machine={},
)


def check(name: str, evaluation: Any, asked: GatePolicy, **options: Any) -> GateCheck:
    return next(c for c in decide(evaluation, TRAINING, asked, **options).checks if c.name == name)


def compared(other: str, seen: Seen, metric: str = "accuracy", rows: int = 200) -> Comparison:
    return Comparison(metric=metric, other=other, difference=seen[0], low=seen[1], high=seen[2], rows=rows)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [((0.05, 0.01, 0.1), PASSED), ((0.05, 0.0, 0.1), INSUFFICIENT), ((-0.01, -0.1, 0.1), FAILED), (None, INSUFFICIENT)],
)
def test_better_than_champion(seen: Seen | None, verdict: Outcome) -> None:
    asked = policy(better_than_champion={"accuracy": 0.0})
    assert check("better_than_champion.accuracy", report(champion=seen), asked).verdict is verdict
    nobody = check("better_than_champion.accuracy", report(champion=None, held=Champion()), asked)
    assert (nobody.verdict, nobody.detail) == (PASSED, "nobody holds production")


def test_net_wins_are_a_rule_like_a_metric_over_the_rows_that_were_asked() -> None:
    asked = policy(better_than_champion={"net_wins": 0.0})
    won = (*report().comparisons, compared("champion", (0.2, 0.1, 0.3), "net_wins", rows=50))
    seen = report(comparisons=won, counted={"net_wins": 50})
    assert check("better_than_champion.net_wins", seen, asked).verdict is PASSED
    some_unjudged = report(comparisons=won, counted={"net_wins": 60})
    assert check("better_than_champion.net_wins", some_unjudged, asked).verdict is INSUFFICIENT
    assert check("better_than_champion.net_wins", report(), asked).verdict is INSUFFICIENT


def with_rungs(*rungs: str, compare: bool = True, **changes: Any) -> Any:
    measured = tuple(Subject(name=rung, identity="f" * 64, metrics=()) for rung in rungs)
    lead = {"majority": (0.4, 0.3, 0.5), "linear": (-0.02, -0.05, 0.01), "neighbour": (0.02, -0.01, 0.05)}
    against = tuple(compared(rung, lead[rung]) for rung in rungs if compare)
    return report(subjects=(*report().subjects, *measured), comparisons=(*report().comparisons, *against), **changes)


def test_worth_tuning_asks_about_every_cheaper_answer() -> None:
    asked = policy(worth_tuning={"accuracy": 0.0})
    decision = decide(with_rungs("majority", "linear", "neighbour"), TRAINING, asked)
    found = {c.name: c.verdict for c in decision.checks if c.name.startswith("worth_tuning")}
    assert found == {
        "worth_tuning.majority.accuracy": PASSED,
        "worth_tuning.linear.accuracy": FAILED,
        "worth_tuning.neighbour.accuracy": INSUFFICIENT,
    }
    assert check("worth_tuning.accuracy", report(), asked).verdict is INSUFFICIENT
    assert check("worth_tuning.majority.accuracy", with_rungs("majority", compare=False), asked).verdict is INSUFFICIENT


def test_of_the_task_generate_the_bare_base_is_the_zero_shot_rung() -> None:
    writes = TRAINING.model_copy(update={"task": Task.GENERATE})
    base = Subject(name="base", identity=writes.base.digest, metrics=())
    seen = report(
        training=writes.digest,
        subjects=(*report().subjects, base),
        params={"parity_rows": 0, "ladder": {"rungs": ["zero_shot"]}},
    )
    names = [c.name for c in decide(seen, writes, policy(worth_tuning={"accuracy": 0.0})).checks]
    assert "worth_tuning.base.accuracy" in names
    told = decide(seen.model_copy(update={"params": {"parity_rows": 0}}), writes, policy(worth_tuning={"accuracy": 0.0}))
    assert "worth_tuning.accuracy" in [c.name for c in told.failed]


def suite(kind: SuiteKind, seen: Seen, lead: dict[str, Seen] | None = None, *, rows: int = 40, judged: int = 40) -> SuiteReport:
    value = MetricValue(metric="score", value=seen[0], low=seen[1], high=seen[2], rows=judged)
    return SuiteReport(
        name="it",
        kind=kind,
        file="a" * 64,
        metric="score",
        rows=rows,
        judged=judged,
        subjects=(Subject(name="candidate", identity=TRAINING.adapter_digest, metrics=(value,)),),
        comparisons=tuple(compared(other, one, "score", judged) for other, one in (lead or {}).items()),
        failures=("row 7",),
    )


@pytest.mark.parametrize(
    ("kind", "seen", "rows", "verdict"),
    [
        (SuiteKind.MULTIPLE_CHOICE, (0.8, 0.7, 0.9), 40, PASSED),
        (SuiteKind.MULTIPLE_CHOICE, (0.8, 0.69, 0.9), 40, INSUFFICIENT),
        (SuiteKind.MULTIPLE_CHOICE, (0.6, 0.5, 0.7), 40, FAILED),
        (SuiteKind.MULTIPLE_CHOICE, (0.8, 0.7, 0.9), 41, INSUFFICIENT),
        (SuiteKind.EDGE_CASES, (0.7, 0.5, 0.9), 40, PASSED),
        (SuiteKind.EDGE_CASES, (0.69, 0.5, 0.9), 40, FAILED),
        (SuiteKind.SAFETY, (0.7, 0.5, 0.9), 41, INSUFFICIENT),
    ],
)
def test_suites(kind: SuiteKind, seen: Seen, rows: int, verdict: Outcome) -> None:
    found = check("suites.it", report(suites=(suite(kind, seen, rows=rows),)), policy(suites={"it": 0.7}))
    assert found.verdict is verdict
    if kind is SuiteKind.EDGE_CASES:
        assert "row 7" in found.detail


def test_a_suite_that_nobody_measured_or_that_is_empty_is_insufficient() -> None:
    for seen in ((), (suite(SuiteKind.SAFETY, (1.0, 0.9, 1.0), rows=0, judged=0),)):
        asked = policy(suites={"it": 0.0}, forgetting={"it": 0.5})
        assert check("suites.it", report(suites=seen), asked).verdict is INSUFFICIENT
        assert check("forgetting.it", report(suites=seen), asked).verdict is INSUFFICIENT


@pytest.mark.parametrize(
    ("lead", "held", "verdict"),
    [
        ({"champion": (-0.01, -0.04, 0.02)}, HELD, PASSED),
        ({"champion": (-0.01, -0.05, 0.02)}, HELD, INSUFFICIENT),
        ({"champion": (-0.06, -0.1, 0.02)}, HELD, FAILED),
        ({"base": (0.1, 0.0, 0.2)}, HELD, INSUFFICIENT),
        ({"base": (-0.01, -0.04, 0.02)}, Champion(), PASSED),
        ({"base": (-0.4, -0.5, -0.3)}, Champion(), FAILED),
    ],
)
def test_forgetting_is_measured_against_the_champion_else_the_base(lead: Any, held: Champion, verdict: Outcome) -> None:
    seen = report(suites=(suite(SuiteKind.MULTIPLE_CHOICE, (0.5, 0.4, 0.6), lead),), held=held)
    assert check("forgetting.it", seen, policy(forgetting={"it": 0.05})).verdict is verdict


def part(value: str, difference: float, adjusted: float | None, rows: int = 40, *, subject: str = "champion") -> SliceValue:
    lead = compared(subject, (difference, max(-1, difference - 0.1), min(1, difference + 0.1)), rows=rows)
    given = {"field": "source", "value": value, "subject": subject, "metric": "accuracy", "rows": rows}
    return SliceValue(**given, score=0.5, low=0.4, high=0.6, comparison=lead, worse=adjusted, adjusted=adjusted)


@pytest.mark.parametrize(
    ("slices", "verdict"),
    [
        ([part("a", 0.1, 1.0), part("b", -0.3, 0.2)], PASSED),
        ([part("a", 0.1, 1.0), part("b", -0.3, 0.001)], FAILED),
        ([part("a", 0.1, 1.0), part("b", -0.03, 0.001)], PASSED),
        ([part("a", 0.1, 1.0), part("b", -0.3, 0.001, rows=9)], PASSED),
        ([part("b", -0.3, 0.001, rows=9)], INSUFFICIENT),
        ([part("a", 0.1, None)], INSUFFICIENT),
        ([part("a", 0.1, 1.0, subject="base")], INSUFFICIENT),
        ([], INSUFFICIENT),
    ],
)
def test_slices(slices: list[SliceValue], verdict: Outcome) -> None:
    asked = policy(slices={"source": {"margin": 0.05, "min_rows": 10}})
    found = check("slices.source", report(slices=tuple(slices)), asked)
    assert found.verdict is verdict
    if verdict is PASSED:
        assert "no slice by source was shown to be worse" in found.detail


def test_a_broken_slice_fails_at_the_tenth_look_as_at_the_first() -> None:
    # Spending makes it harder to pass, so it must not make it harder to be found out.
    asked = policy(slices={"source": {}}, holdout={"spending": "harmonic"})
    seen = report(slices=(part("b", -0.3, 0.02),))
    assert [check("slices.source", seen, asked, looks=n).verdict for n in (1, 10)] == [FAILED, FAILED]


@pytest.mark.parametrize(("eval_loss", "verdict"), [(1.4, PASSED), (1.6, FAILED), (0.2, PASSED), (None, INSUFFICIENT)])
def test_overfitting_gap(eval_loss: float | None, verdict: Outcome) -> None:
    training = TRAINING.model_copy(update={"eval_loss": eval_loss})
    decision = decide(report(training=training.digest), training, policy(overfitting_gap=0.5))
    assert next(c.verdict for c in decision.checks if c.name == "overfitting_gap") is verdict


def test_the_gap_is_from_the_loss_of_the_weights_that_are_kept() -> None:
    # Over all steps the mean is mostly that of the beginning: 1.0 here, where the weights that are kept had 0.01.
    stage = STAGE.model_copy(update={"measures": {KEPT_LOSS: 0.01}})
    training = TRAINING.model_copy(update={"eval_loss": 0.8, "stages": (stage,)})
    decision = decide(report(training=training.digest), training, policy(overfitting_gap=0.5))
    found = next(c for c in decision.checks if c.name == "overfitting_gap")
    assert found.verdict is FAILED
    assert found.observed == pytest.approx(0.79)


def test_served_answers_must_be_those_that_were_measured() -> None:
    asked = policy(parity=("served",))
    for agreement, verdict in ((1.0, PASSED), (0.75, PASSED), (0.5, FAILED)):
        seen = report(params={"parity_rows": 8}, parity=(run_as("served", agreement=agreement),))
        found = check("parity.served", seen, asked)
        assert found.verdict is verdict
    assert "50.0% of 8 answers" in found.detail


def canary(bits: float, most: float = 10.0, subject: str = "candidate") -> Exposure:
    return Exposure(name=f"canary {bits}", subject=subject, bits=bits, most=most)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ([canary(1.0), canary(2.9)], PASSED),
        ([canary(1.0), canary(3.1)], FAILED),
        ([canary(1.0), canary(2.0, most=3.0)], INSUFFICIENT),
        ([canary(9.0, subject="base")], INSUFFICIENT),
        ([], INSUFFICIENT),
    ],
)
def test_exposure(seen: list[Exposure], verdict: Outcome) -> None:
    assert check("exposure", report(exposures=tuple(seen)), policy(exposure=3.0)).verdict is verdict


def costs(evaluation: Any, **changes: Any) -> CostReport:
    def cost(subject: str, p50: float) -> Cost:
        values = {"answers": 200, "seconds": 20.0, "timed": 16, "latency_p50": p50, "latency_p95": 2 * p50, "per_thousand": 0.4}
        return Cost(subject=subject, **(values | (changes if subject == "candidate" else {})))

    told = (cost("candidate", 0.3), cost("champion", 0.2), cost("base", 0.1))
    return CostReport(evaluation=evaluation.digest, machine={}, costs=told)


@pytest.mark.parametrize(
    ("ceiling", "bound", "verdict"),
    [
        ("latency_p50", 0.3, PASSED),
        ("latency_p50", 0.29, FAILED),
        ("latency_p95", 0.6, PASSED),
        ("latency_p95", 0.5, FAILED),
        ("per_thousand", 0.4, PASSED),
        ("per_thousand", 0.3, FAILED),
        ("slower_than_champion", 1.6, PASSED),
        ("slower_than_champion", 1.4, FAILED),
    ],
)
def test_ceilings(ceiling: str, bound: float, verdict: Outcome) -> None:
    asked, seen = policy(ceilings={ceiling: bound}), report()
    assert check(f"ceilings.{ceiling}", seen, asked, costs=costs(seen)).verdict is verdict
    assert check(f"ceilings.{ceiling}", seen, asked).verdict is INSUFFICIENT
    nothing = costs(seen, timed=0, per_thousand=None)
    assert check(f"ceilings.{ceiling}", seen, asked, costs=nothing).verdict is INSUFFICIENT


def test_without_a_champion_the_base_is_the_measure_of_speed() -> None:
    seen = report(held=Champion(), champion=None)
    asked = policy(ceilings={"slower_than_champion": 2.9})
    assert check("ceilings.slower_than_champion", seen, asked, costs=costs(seen)).observed == pytest.approx(3.0)
    assert decide(seen, TRAINING, asked, costs=costs(seen)).costs == costs(seen).digest


def test_costs_of_another_evaluation_open_no_gate() -> None:
    with pytest.raises(Misuse, match="costs are of evaluation"):
        decide(report(), TRAINING, policy(), costs=costs(report(rows=201)))


def run_as(form: str, **changes: Any) -> Parity:
    values = {"same_tokens": True, "logits": 0.001, "agreement": 1.0, "bound": 0.01, "rows": 8}
    return Parity(form=form, **(values | changes))


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, PASSED),
        ({"agreement": 0.9}, PASSED),  # within the bound of the logits, ties may fall either way
        ({"logits": 0.02}, FAILED),
        ({"same_tokens": False}, FAILED),
        ({"logits": None}, PASSED),
        ({"logits": None, "agreement": 0.9}, FAILED),
        ({"rows": 0}, INSUFFICIENT),
    ],
)
def test_parity(changes: dict[str, Any], verdict: Outcome) -> None:
    params = {"parity_rows": 8}
    asked = policy(parity=("loaded",))
    assert check("parity.loaded", report(params=params, parity=(run_as("loaded", **changes),)), asked).verdict is verdict


def test_a_form_that_was_not_run_is_insufficient_unless_params_ask_for_no_rows() -> None:
    asked = policy(parity=("loaded", "merged"))
    for params in ({"parity_rows": 8}, {}):
        seen = report(params=params, parity=(run_as("loaded"),))
        assert check("parity.merged", seen, asked).verdict is INSUFFICIENT
    names = [c.name for c in decide(report(params={"parity_rows": 0}), TRAINING, asked).checks]
    assert not [name for name in names if name.startswith("parity")]


def test_a_test_row_that_was_trained_on_fails() -> None:
    assert decide(report(trained_on=1), TRAINING, policy()).verdict is FAILED
    assert check("trained_on", report(), policy()).verdict is PASSED


EVERYTHING = {
    "thresholds": {"accuracy": 0.1},
    "not_worse_than_champion": {"accuracy": 0.5},
    "better_than_champion": {"accuracy": 0.0},
    "better_than_base": {"accuracy": 0.0},
    "worth_tuning": {"accuracy": 0.0},
    "suites": {"it": 0.1},
    "forgetting": {"it": 0.9},
    "slices": {"source": {}},
    "overfitting_gap": 9.0,
    "exposure": 5.0,
    "ceilings": {"latency_p50": 9.0},
    "parity": ("loaded",),
}


@pytest.mark.parametrize("rows", [0, 1, 5, 9])
def test_with_so_few_rows_every_check_is_insufficient_whatever_a_policy_asks(rows: int) -> None:
    seen = report(
        rows=rows,
        suites=(suite(SuiteKind.MULTIPLE_CHOICE, (0.9, 0.8, 1.0), {"champion": (0.1, 0.05, 0.2)}),),
        slices=(part("a", 0.1, 1.0),),
        exposures=(canary(1.0),),
        parity=(run_as("loaded"),),
        params={"parity_rows": 8},
    )
    decision = decide(seen, TRAINING, policy(min_test_rows=1, **EVERYTHING), costs=costs(seen))
    assert len(decision.checks) >= 15
    assert {c.verdict for c in decision.checks} == {INSUFFICIENT}


def test_a_policy_about_metrics_that_nobody_knows_is_insufficient_and_says_so() -> None:
    rules = ("thresholds", "not_worse_than_champion", "better_than_champion", "better_than_base")
    asked = policy(**{rule: {"charm": 0.0} for rule in rules})
    decision = decide(report(), TRAINING, asked)
    assert {c.name for c in decision.failed} == {f"{rule}.charm" for rule in rules}
    assert all(c.verdict is INSUFFICIENT and "charm" in c.detail for c in decision.failed)


@pytest.mark.parametrize(
    "changes",
    [
        {"suites": (suite(SuiteKind.SAFETY, (0.9, 0.95, 1.0)),)},
        {"suites": (suite(SuiteKind.SAFETY, (0.9, 0.8, 1.0), {"champion": (0.5, 0.4, 1.5)}),)},
        {"exposures": (Exposure.model_construct(name="c", subject="candidate", bits=float("nan"), most=9.0),)},
        {"parity": (Parity.model_construct(**(run_as("loaded").model_dump() | {"logits": float("nan")})),)},
        {"slices": (part("a", 0.0, 0.5).model_copy(update={"adjusted": float("nan")}),)},
        {"trained_on": -1},
        {"params": {"confidence": 0.0}},
        {"params": {"confidence": float("nan")}},
        {"suites": (suite(SuiteKind.SAFETY, (0.9, 0.8, 1.0)),) * 2},
        {"comparisons": report().comparisons * 2},
        {"parity": (run_as("loaded"),) * 2},
        {"slices": (part("a", 0.0, 0.5),) * 2},
    ],
)
def test_reports_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    seen = report().model_copy(update=changes)
    with pytest.raises(Broken):
        decide(seen, TRAINING, policy())


def test_looks_spend_no_more_than_there_is() -> None:
    harmonic, even = HoldoutPolicy(), HoldoutPolicy(spending="even", looks=4)
    assert [look(n, 0.95, harmonic).tail for n in (1, 2, 3)] == pytest.approx([0.025 / 2, 0.025 / 6, 0.025 / 12])
    assert sum(look(n, 0.95, harmonic).tail for n in range(1, 10_000)) < 0.025
    assert sum(look(n, 0.95, even).tail for n in range(1, 10_000)) == pytest.approx(0.025)
    assert look(7, 0.95, HoldoutPolicy(spending="off")).first


def test_a_later_look_needs_more_and_the_decision_says_which_it_was() -> None:
    asked = policy(holdout={"spending": "harmonic"})
    seen = report(base=(0.2, 0.08, 0.32), detectable={"accuracy": 0.06})
    first, tenth = (decide(seen, TRAINING, asked, looks=n) for n in (1, 10))
    assert (first.verdict, first.looks, first.alpha) == (PASSED, 1, pytest.approx(0.0125))
    assert (tenth.verdict, tenth.looks, tenth.alpha) == (INSUFFICIENT, 10, pytest.approx(0.025 / 110))
    wide = next(c for c in tenth.checks if c.name == "better_than_base.accuracy")
    assert wide.low < 0.05 < 0.32 < wide.high
    assert 0.06 < first.detectable["accuracy"] < tenth.detectable["accuracy"]
    with pytest.raises(Misuse, match="look 0"):
        decide(seen, TRAINING, asked, looks=0)


def test_once_all_looks_are_used_nothing_passes() -> None:
    asked = policy(holdout={"spending": "even", "looks": 3})
    sure = report(accuracy=(1.0, 1.0, 1.0), champion=(1.0, 1.0, 1.0), base=(1.0, 1.0, 1.0))
    assert decide(sure, TRAINING, asked, looks=3).verdict is PASSED
    decision = decide(sure, TRAINING, asked, looks=4)
    assert decision.verdict is INSUFFICIENT
    assert "fresh rows are needed" in next(c.detail for c in decision.checks if c.name == "holdout")


@given(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), st.integers(1, 40), st.sampled_from(["harmonic", "even"]))
def test_a_later_look_never_improves_a_verdict(accuracy: Seen, number: int, spending: str) -> None:
    low, value, high = sorted(accuracy)
    asked = policy(holdout={"spending": spending})
    rank = {FAILED: 0, INSUFFICIENT: 1, PASSED: 2}
    seen = report(accuracy=(value, low, high))
    earlier, later = (rank[decide(seen, TRAINING, asked, looks=n).verdict] for n in (number, number + 1))
    assert later <= earlier


def test_the_same_adapter_is_not_a_sample() -> None:
    twin = Subject(name="champion", identity=TRAINING.adapter_digest, metrics=())
    seen = report(champion=(0.0, -0.04, 0.04))
    asked = policy(not_worse_than_champion={"accuracy": 0.02}, better_than_champion={"accuracy": 0.0})
    assert check("not_worse_than_champion.accuracy", seen, asked).verdict is INSUFFICIENT
    same = seen.model_copy(update={"subjects": (*seen.subjects, twin)})
    assert check("not_worse_than_champion.accuracy", same, asked).verdict is PASSED
    assert check("better_than_champion.accuracy", same, asked).verdict is INSUFFICIENT


def test_a_holdout_is_the_same_while_most_of_its_rows_were_looked_at() -> None:
    def use(name: str, *parts: tuple[str, int]) -> HoldoutUse:
        return HoldoutUse(model="desk", evaluation=name, parts=parts)

    uses = [use("first", ("a", 100)), use("second", ("a", 100), ("b", 50)), use("again", ("a", 100), ("b", 50))]
    assert earlier_looks([("a", 100)], uses) == {"first", "second", "again"}
    assert earlier_looks([("a", 100), ("b", 50)], uses[:1]) == {"first"}
    assert earlier_looks([("a", 100), ("b", 100)], uses) == {"second", "again"}
    assert earlier_looks([("a", 100), ("c", 100)], uses[:1]) == frozenset()  # half is not most
    assert earlier_looks([("z", 100)], uses) == frozenset()
