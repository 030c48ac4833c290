"""decide() as a table of cases, and the property that worse numbers never improve a verdict."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.data import Task
from pipeline.domain.gating import DIFFERS_FROM_BASE, GateDecision, GatePolicy, HoldoutPolicy, Outcome, decide
from pipeline.domain.measured import Comparison, EvaluationReport, MetricValue, Subject
from pipeline.domain.model import BaseModelRef, Champion, TrainingRun
from pipeline.domain.record import FileDigest
from pipeline.errors import Broken, Misuse
from pipeline.params import GateParams
from pipeline.steps.gate import gate

PASSED, FAILED, INSUFFICIENT = Outcome.PASSED, Outcome.FAILED, Outcome.INSUFFICIENT
HELD = Champion(version="3", training="7" * 64, adapter_digest="8" * 64)
TRAINING = TrainingRun(
    splits="5" * 64,
    task=Task.CLASSIFY,
    base=BaseModelRef(id="./base", weights="a" * 64, tokenizer="b" * 64),
    params={},
    adapter=(FileDigest(path="adapter_model.safetensors", sha256="c" * 64, bytes=3),),
    steps=1,
    train_loss=1.0,
    eval_loss=None,
    train_rows=10,
    trainable_parameters=1,
    versions={},
    starts="5" * 64,
    stages=(),
)
Seen = tuple[float, float, float]


def report(
    *,
    rows: int = 200,
    accuracy: Seen = (0.9, 0.85, 0.94),
    champion: Seen | None = (0.02, 0.005, 0.04),
    base: Seen | None = (0.4, 0.3, 0.5),
    differs: float | None = 0.5,
    held: Champion = HELD,
    **changes: Any,
) -> EvaluationReport:
    measured = [MetricValue(metric="accuracy", value=accuracy[0], low=accuracy[1], high=accuracy[2], rows=rows)]
    if differs is not None:
        measured.append(MetricValue(metric=DIFFERS_FROM_BASE, value=differs, low=min(differs, 0.1), high=1.0, rows=rows))
    compared = [
        Comparison(metric="accuracy", other=name, difference=seen[0], low=seen[1], high=seen[2], rows=rows)
        for name, seen in (("champion", champion), ("base", base))
        if seen
    ]
    values = {
        "training": TRAINING.digest,
        "champion": held.digest,
        "splits": TRAINING.splits,
        "test": "d" * 64,
        "rows": rows,
        "subjects": (Subject(name="candidate", identity=TRAINING.adapter_digest, metrics=tuple(measured)),),
        "comparisons": tuple(compared),
        "slices": (),
        "predictions": FileDigest(path="predictions.parquet", sha256="e" * 64, bytes=1),
        "params": {"parity_rows": 0},
    }
    return EvaluationReport(**(values | changes))


def policy(**changes: Any) -> GatePolicy:
    values = {
        "min_test_rows": 100,
        "thresholds": {"accuracy": 0.8},
        "not_worse_than_champion": {"accuracy": 0.02},
        "better_than_base": {"accuracy": 0.05},
        "holdout": HoldoutPolicy(spending="off"),
    }
    return GatePolicy(**(values | changes))


def verdicts(decision: GateDecision) -> dict[str, Outcome]:
    return {c.name.split(".")[0]: c.verdict for c in decision.checks}


def test_all_is_well() -> None:
    decision = decide(report(), TRAINING, policy())
    assert decision.verdict is PASSED
    assert set(verdicts(decision).values()) == {PASSED}
    assert decision.failed == ()
    assert decision.adapter_digest == TRAINING.adapter_digest
    assert decision.parents == (report().digest, TRAINING.digest)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ((0.9, 0.8, 0.95), PASSED),
        ((0.9, 0.7999, 0.95), INSUFFICIENT),
        ((0.8, 0.7, 0.9), INSUFFICIENT),
        ((0.7999, 0.7, 0.9), FAILED),
        ((0.5, 0.4, 0.6), FAILED),
    ],
)
def test_threshold(seen: Seen, verdict: Outcome) -> None:
    decision = decide(report(accuracy=seen), TRAINING, policy())
    assert verdicts(decision)["thresholds"] is verdict
    assert decision.verdict is verdict


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ((0.0, 0.0, 0.0), PASSED),
        ((-0.01, -0.0199, 0.0), PASSED),
        ((-0.01, -0.02, 0.0), INSUFFICIENT),
        ((0.05, -0.03, 0.13), INSUFFICIENT),
        ((-0.02, -0.05, 0.01), INSUFFICIENT),
        ((-0.0201, -0.05, 0.01), FAILED),
        ((-0.1, -0.15, -0.05), FAILED),
        (None, INSUFFICIENT),
    ],
)
def test_not_worse_than_champion(seen: Seen | None, verdict: Outcome) -> None:
    decision = decide(report(champion=seen), TRAINING, policy())
    assert verdicts(decision)["not_worse_than_champion"] is verdict
    assert decision.verdict is verdict


def test_nobody_in_production_is_no_obstacle_but_an_unmeasured_champion_is() -> None:
    nobody = decide(report(champion=None, held=Champion()), TRAINING, policy())
    assert nobody.verdict is PASSED
    assert [c.detail for c in nobody.checks if c.name.startswith("not_worse")] == ["nobody holds production"]
    assert decide(report(champion=None, held=HELD), TRAINING, policy()).verdict is INSUFFICIENT


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ((0.2, 0.0501, 0.3), PASSED),
        ((0.2, 0.05, 0.3), INSUFFICIENT),
        ((0.05, 0.0, 0.1), INSUFFICIENT),
        ((0.0499, 0.0, 0.1), FAILED),
        ((-0.2, -0.3, -0.1), FAILED),
        (None, INSUFFICIENT),
    ],
)
def test_better_than_base(seen: Seen | None, verdict: Outcome) -> None:
    decision = decide(report(base=seen), TRAINING, policy())
    assert verdicts(decision)["better_than_base"] is verdict
    assert decision.verdict is verdict


@pytest.mark.parametrize("rows", [0, 1, 5, 30, 99])
def test_few_rows_are_never_a_pass(rows: int) -> None:
    decision = decide(report(rows=rows), TRAINING, policy())
    assert decision.verdict is INSUFFICIENT
    assert set(verdicts(decision).values()) == {INSUFFICIENT}


@pytest.mark.parametrize("rows", [0, 5])
def test_no_policy_makes_nothing_enough(rows: int) -> None:
    lax = policy(min_test_rows=0)
    assert decide(report(rows=0), TRAINING, lax).verdict is INSUFFICIENT
    empty = GatePolicy(min_test_rows=1)
    decision = decide(report(rows=200), TRAINING, empty)
    assert decision.verdict is INSUFFICIENT
    assert verdicts(decision)["policy"] is INSUFFICIENT


def test_a_metric_nobody_measured_is_insufficient() -> None:
    asked = policy(thresholds={"macro_f1": 0.5}, not_worse_than_champion={"macro_f1": 0.1}, better_than_base={"macro_f1": 0.0})
    decision = decide(report(), TRAINING, asked)
    assert decision.verdict is INSUFFICIENT
    assert {k: v for k, v in verdicts(decision).items() if k not in ("min_test_rows", DIFFERS_FROM_BASE, "trained_on")} == {
        "thresholds": INSUFFICIENT,
        "not_worse_than_champion": INSUFFICIENT,
        "better_than_base": INSUFFICIENT,
    }


def test_a_metric_measured_on_some_of_the_rows_is_insufficient() -> None:
    some = (MetricValue(metric="accuracy", value=1.0, low=0.95, high=1.0, rows=150),)
    subjects = (Subject(name="candidate", identity=TRAINING.adapter_digest, metrics=some),)
    decision = decide(report(subjects=subjects), TRAINING, policy())
    assert verdicts(decision)["thresholds"] is INSUFFICIENT


def test_an_adapter_that_changes_no_answer_fails() -> None:
    decision = decide(report(differs=0.0), TRAINING, policy())
    assert decision.verdict is FAILED
    assert [c.name for c in decision.failed] == [DIFFERS_FROM_BASE]
    assert decide(report(differs=None), TRAINING, policy()).verdict is INSUFFICIENT


def test_one_failure_outweighs_missing_evidence() -> None:
    assert decide(report(accuracy=(0.5, 0.4, 0.6), champion=None), TRAINING, policy()).verdict is FAILED


def test_a_report_about_another_candidate_opens_no_gate() -> None:
    for wrong in (
        {"training": "9" * 64},
        {"splits": "9" * 64},
        {"subjects": ()},
        {"subjects": (Subject(name="candidate", identity="9" * 64, metrics=report().subjects[0].metrics),)},
        {"subjects": (Subject(name="champion", identity=TRAINING.adapter_digest, metrics=()),)},
    ):
        with pytest.raises(Misuse):
            decide(report(**wrong), TRAINING, policy())
    with pytest.raises(Misuse, match="candidate is training"):
        decide(report(), TRAINING.model_copy(update={"steps": 2}), policy())
    with pytest.raises(Broken, match="twice"):
        decide(report(subjects=report().subjects * 2), TRAINING, policy())


@pytest.mark.parametrize("seen", [(1.2, 0.9, 1.3), (0.5, -0.1, 0.6), (0.9, 0.95, 0.97), (0.9, 0.8, 0.85)])
def test_impossible_scores_are_refused(seen: Seen) -> None:
    with pytest.raises(Broken, match="scores lie in 0 to 1"):
        decide(report(accuracy=seen), TRAINING, policy())


def test_nan_does_not_slip_through_even_past_the_record() -> None:
    forged = MetricValue.model_construct(metric="accuracy", value=float("nan"), low=0.9, high=1.0, rows=200)
    subject = Subject.model_construct(name="candidate", identity=TRAINING.adapter_digest, metrics=(forged,))
    with pytest.raises(Broken):
        decide(report().model_copy(update={"subjects": (subject,)}), TRAINING, policy())


def test_the_step_takes_its_policy_from_params_and_keeps_it(tmp_path: Any) -> None:
    params = GateParams(min_test_rows=150, thresholds={"accuracy": 0.8}, not_worse_than_champion={"accuracy": 0.02})
    decision = gate(report(), TRAINING, params, out=tmp_path)
    assert decision.verdict is PASSED
    assert decision.policy == params.model_dump(mode="json")
    assert GateDecision.read(tmp_path / "decision.json", digest=decision.digest) == decision
    assert gate(report(rows=149), TRAINING, params).verdict is INSUFFICIENT
    assert gate(report(), TRAINING, GateParams()).verdict is INSUFFICIENT


_SHARE = st.floats(0, 1)
_RANK = {FAILED: 0, INSUFFICIENT: 1, PASSED: 2}


@given(st.tuples(_SHARE, _SHARE, _SHARE), st.tuples(_SHARE, _SHARE, _SHARE), _SHARE, _SHARE, _SHARE)
def test_worse_numbers_never_improve_a_verdict(accuracy: Seen, gain: Seen, worse: float, bound: float, margin: float) -> None:
    def judged(by: float) -> Outcome:
        low, value, high = (max(0.0, x - by) for x in sorted(accuracy))
        down, middle, up = (max(-1.0, x - by) for x in sorted(gain))
        seen = report(accuracy=(value, low, high), champion=(middle, down, up), base=(middle, down, up))
        asked = policy(
            thresholds={"accuracy": bound}, not_worse_than_champion={"accuracy": margin}, better_than_base={"accuracy": margin}
        )
        return decide(seen, TRAINING, asked).verdict

    assert _RANK[judged(worse)] <= _RANK[judged(0.0)]
