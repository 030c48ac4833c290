"""The page of a candidate and report.json: each part says what the records say; what is cheaper and as good is said plainly."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from evaluated_world import World, make_world

from pipeline.domain.curve import Curve, CurvePoint, PowerLaw, Prospect, Share
from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.measured import (
    Comparison,
    Cost,
    CostReport,
    EvaluationReport,
    Exposure,
    MetricValue,
    Parity,
    SliceValue,
    Subject,
    SuiteKind,
    SuiteReport,
)
from pipeline.errors import Misuse, Tampered
from pipeline.evaluation.plots import write_plots
from pipeline.evaluation.worth import cheaper_as_good, worth_sentence
from pipeline.params import GateParams
from pipeline.reporting import known_curve
from pipeline.steps.gate import gate
from pipeline.steps.report import report, report_json, verdict_sentence

ROWS = 160


class Text(HTMLParser):
    """What a reader sees, in one line."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.seen.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.seen).replace("\u00a0", " ").split())


def with_rungs(evaluation: EvaluationReport, **leads: tuple[float, float, float]) -> EvaluationReport:
    """The evaluation with rungs added: name → the candidate's lead over it, with its interval."""
    candidate = evaluation.metric("candidate", "accuracy")
    assert candidate is not None
    subjects, comparisons = list(evaluation.subjects), list(evaluation.comparisons)
    for name, (lead, low, high) in leads.items():
        value = round(candidate.value - lead, 6)
        measured = MetricValue(metric="accuracy", value=value, low=max(value - 0.05, 0), high=min(value + 0.05, 1), rows=ROWS)
        subjects.append(Subject(name=name, identity="c" * 64, metrics=(measured,)))
        comparisons.append(Comparison(metric="accuracy", other=name, difference=lead, low=low, high=high, rows=ROWS, p=0.4))
    return evaluation.model_copy(update={"subjects": tuple(subjects), "comparisons": tuple(comparisons)})


def costs_of(evaluation: EvaluationReport, **seconds: float) -> CostReport:
    costs = tuple(
        Cost(subject=name, answers=ROWS, seconds=3.0, timed=16, latency_p50=p50, latency_p95=2 * p50, per_thousand=p50 / 10)
        for name, p50 in seconds.items()
    )
    return CostReport(evaluation=evaluation.digest, machine={"cpu": "two cores"}, costs=costs)


def decided(world: World, evaluation: EvaluationReport, **policy: Any) -> GateDecision:
    chosen = GateParams(**({"thresholds": {"accuracy": 0.5}, "parity": ()} | policy))
    return gate(evaluation, world.training, chosen)


def paged(world: World, decision: GateDecision, evaluation: EvaluationReport, **more: Any) -> str:
    html = report(
        decision,
        evaluation,
        world.training,
        snapshot=world.snapshot,
        validation=world.validation,
        splits=world.splits,
        champion=world.champion,
        predictions=world.root / "evaluation" / "predictions.parquet",
        curves=world.root / "none.jsonl",
        test=world.root / "data",
        **more,
    )
    return Text(html).text


@pytest.fixture
def evaluation(world: World) -> EvaluationReport:
    return world.evaluate({"candidate": 0.9, "champion": 0.85, "base": 0.3})


def test_something_cheaper_that_is_as_good_is_said_plainly(world: World, evaluation: EvaluationReport) -> None:
    measured = with_rungs(evaluation, linear=(-0.01, -0.04, 0.02), majority=(0.6, 0.5, 0.7), retrieval=(0.01, 0.0, 0.02))
    costs = costs_of(measured, candidate=0.02, linear=0.003, retrieval=0.2)
    found = cheaper_as_good(measured, costs)
    assert [one.subject for one in found] == ["linear", "retrieval"], "a lead that may be zero is none"
    assert found[0].times == pytest.approx(0.15)
    told = worth_sentence(measured, costs)
    assert told.startswith("Something cheaper is as good: a linear classifier has accuracy 0.910, the candidate 0.900, -0.010")
    assert "with the nearest training rows has accuracy 0.890" in told
    assert "it takes 10.0 times as long" in told
    seen = paged(world, decided(world, measured), measured, costs=costs)
    assert seen.index("Something cheaper is as good") < seen.index("What was asked, and what was seen")
    assert "cheaper, and as good 3 ms 6 ms" in seen
    assert "cheaper, not as good" in seen


def test_something_cheaper_that_is_shown_to_be_better_is_called_so(world: World, evaluation: EvaluationReport) -> None:
    measured = with_rungs(evaluation, linear=(-0.05, -0.07, -0.02), retrieval=(-0.01, -0.02, 0.0))
    assert worth_sentence(measured).startswith("Something cheaper is better: a linear classifier")
    seen = paged(world, decided(world, measured), measured)
    assert "cheaper, and better" in seen
    assert "cheaper, and as good" in seen, "an interval that reaches zero shows nothing"


def test_nothing_cheaper_and_nothing_measured(world: World, evaluation: EvaluationReport, tmp_path: Path) -> None:
    measured = with_rungs(evaluation, linear=(0.2, 0.1, 0.3))
    assert cheaper_as_good(measured) == ()
    assert worth_sentence(measured) == (
        "Nothing cheaper is as good: the best of 2, a linear classifier, has accuracy 0.700, "
        "and the candidate is +0.200 (+0.100 to +0.300) from it."
    )
    empty = make_world(tmp_path / "empty", 0).evaluate({})
    assert cheaper_as_good(empty) == ()
    assert "not known" in worth_sentence(empty)


def test_each_part_of_the_page_says_what_its_records_say(world: World, evaluation: EvaluationReport) -> None:
    value = MetricValue(metric="accuracy", value=0.7, low=0.6, high=0.8, rows=40)
    kept = Comparison(metric="accuracy", other="champion", difference=-0.2, low=-0.3, high=-0.1, rows=40)
    subjects = tuple(Subject(name=name, identity="d" * 64, metrics=(value,)) for name in ("candidate", "champion"))
    suite = SuiteReport(
        name="sums",
        kind=SuiteKind.FINAL_ANSWER,
        file="e" * 64,
        metric="accuracy",
        rows=40,
        judged=40,
        subjects=subjects,
        comparisons=(kept,),
        failures=("row 7",),
    )
    worse = Comparison(metric="accuracy", other="champion", difference=-0.3, low=-0.5, high=-0.1, rows=20)
    hurt = SliceValue(
        field="lang",
        value="nl",
        subject="champion",
        metric="accuracy",
        score=0.9,
        low=0.8,
        high=1.0,
        rows=20,
        comparison=worse,
        worse=0.001,
        adjusted=0.004,
    )
    changes = {
        "suites": (suite,),
        "exposures": (Exposure(name="canary-1", subject="candidate", bits=9.5, most=10.0),),
        "parity": (Parity(form="served", same_tokens=False, logits=0.5, agreement=0.75, bound=0.01, rows=8),),
        "detectable": {"accuracy": 0.06},
        "slices": (*evaluation.slices, hurt),
        "params": {**evaluation.params, "slices": ["label", "channel", "lang", "nowhere"]},
    }
    measured = with_rungs(evaluation.model_copy(update=changes), linear=(0.2, 0.1, 0.3))
    decision = decided(world, measured, forgetting={"sums": 0.05}, worth_tuning={"accuracy": 0.05}, exposure=3.0)
    looked = decision.model_copy(update={"looks": 3, "alpha": 0.002})
    seen = paged(world, looked, measured, costs=costs_of(measured, candidate=0.02))
    for told in (
        "These 160 rows can only see 6 points of accuracy",
        "look number 3 of the gate at these rows",
        "may pass by luck 0.002 of the time",
        "forgetting failed",
        "row 7",
        "canary-1 candidate 9.5 10 3",
        "served no 0.5 0.01 75.0%",
        "nl 20 -0.3 -0.500 to -0.100 0.001 0.004",
        "No test row has the field nowhere",
        "worth_tuning.linear.accuracy",
        "What answers took",
        "two cores",
        "Lineage",
        "costs",
    ):
        assert told in seen, told
    assert seen.index("forgetting.sums") < seen.index("min_test_rows"), "what did not pass is read first"
    many = verdict_sentence(looked)
    assert many.startswith("Failed (")


def test_a_long_verdict_is_cut(world: World, evaluation: EvaluationReport) -> None:
    decision = decided(world, evaluation)
    bad = decision.checks[0].model_copy(update={"verdict": Outcome.FAILED, "detail": "wrong"})
    told = verdict_sentence(decision.model_copy(update={"checks": (bad,) * 9, "verdict": Outcome.FAILED}))
    assert told == "Failed (9 of 9 checks): wrong; wrong; wrong; wrong; wrong; and 4 more."


def test_machines_read_the_same(world: World, evaluation: EvaluationReport) -> None:
    measured = with_rungs(evaluation, linear=(0.0, 0.0, 0.0))
    decision, costs = decided(world, measured), costs_of(measured, candidate=0.02)
    said = json.loads(report_json(decision, measured, world.training, dataset="support", costs=costs))
    assert said["verdict"] == "passed"
    assert said["sentence"] == verdict_sentence(decision)
    assert [one["subject"] for one in said["cheaper_as_good"]] == ["linear"]
    assert said["decision"]["digest"] == decision.digest
    assert EvaluationReport(**{k: v for k, v in said["evaluation"].items() if k != "digest"}) == measured
    assert said["costs"]["costs"][0]["latency_p50"] == 0.02
    assert "please help" not in json.dumps(said), "no row of data stands in it"


def test_records_of_another_candidate_make_no_page(world: World, evaluation: EvaluationReport, tmp_path: Path) -> None:
    other = make_world(tmp_path / "other").evaluate({"candidate": 0.2, "champion": 0.8, "base": 0.3}, seed=5)
    decision = decided(world, evaluation)
    with pytest.raises(Misuse, match="decision"):
        paged(world, decision, other)
    with pytest.raises(Misuse, match="cost report"):
        paged(world, decision, evaluation, costs=costs_of(other, candidate=0.1))
    (world.root / "evaluation" / "predictions.parquet").write_bytes(b"others")
    with pytest.raises(Tampered):
        paged(world, decision, evaluation)


def test_a_learning_curve_is_told(world: World, evaluation: EvaluationReport) -> None:
    curve = curve_of(world)
    seen = paged(world, decided(world, evaluation), evaluation, curve=curve)
    assert "Accuracy on 1,000 rows is 0.900; 500 are enough for that within 2 points." in seen
    assert "Twice the rows would add +3.0 points (+1.0 to +5.0)." in seen
    assert "2000 by the law" in seen
    with pytest.raises(Misuse, match="learning curve"):
        paged(world, decided(world, evaluation), evaluation, curve=curve.model_copy(update={"splits": "f" * 64}))


def test_the_curve_of_these_splits_is_found(world: World, tmp_path: Path) -> None:
    curve = curve_of(world)
    for name, one in (
        ("a", curve.model_copy(update={"points": curve.points[:1]})),
        ("b", curve),
        ("c", curve.model_copy(update={"splits": "f" * 64})),
    ):
        one.write(tmp_path / name / "curve.json")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "curve.json").write_text("{}")
    assert known_curve(tmp_path, world.splits.digest) == curve
    assert known_curve(tmp_path, "0" * 64) is None


def curve_of(world: World) -> Curve:
    def share(rows: int, score: float, behind: float, enough: Any) -> Share:
        ends = {"low": score - 0.02, "high": score + 0.02, "behind_low": behind - 0.01, "behind_high": behind + 0.01}
        return Share(rows=rows, fraction=rows / 1000, score=score, behind=behind, enough=enough, **ends)

    return Curve(
        splits=world.splits.digest,
        params={},
        metric="accuracy",
        test_rows=ROWS,
        margin=0.02,
        confidence=0.95,
        points=tuple(CurvePoint(rows=rows, trained=rows, seed=0, training="a" * 64, score=0.8) for rows in (250, 500, 1000)),
        shares=(share(250, 0.8, -0.1, "no"), share(500, 0.9, 0.0, "yes"), share(1000, 0.9, 0.0, "yes")),
        law=PowerLaw(floor=0.05, gain=2.0, rate=0.5),
        doubled=Prospect(rows=2000, score=0.93, low=0.91, high=0.95, gain=0.03, gain_low=0.01, gain_high=0.05),
    )


def test_tables_for_plots(world: World, evaluation: EvaluationReport, tmp_path: Path) -> None:
    odd = (["a", 'b "quoted", with a comma'], ["a", "line\nbreak"])
    write_plots(tmp_path / "plots", evaluation, labels=odd)
    first = {path.name: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    with (tmp_path / "plots" / "labels.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"expected": e, "answered": a} for e, a in zip(*odd, strict=True)]
    with (tmp_path / "plots" / "scores.csv").open(newline="") as file:
        scores = {row["what"]: float(row["score"]) for row in csv.DictReader(file)}
    assert scores["accuracy candidate"] == pytest.approx(0.9)
    assert set(scores) == {f"{m} {s}" for m in ("accuracy", "macro_f1") for s in ("candidate", "champion", "base")}
    write_plots(tmp_path / "plots", evaluation, labels=odd)
    assert {path.name: path.read_bytes() for path in (tmp_path / "plots").iterdir()} == first
    write_plots(tmp_path / "none", evaluation)
    assert (tmp_path / "none" / "labels.csv").read_text() == "expected,answered\n"
