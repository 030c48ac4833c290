"""The evaluation step on real files: what it writes, what it refuses, and the gate behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from asked_rows import value_of
from evaluated_world import LABELS, World, make_world, without_champion

from pipeline.domain.data import Task
from pipeline.domain.gating import DIFFERS_FROM_BASE, Outcome
from pipeline.domain.measured import EvaluationReport
from pipeline.domain.model import Champion
from pipeline.errors import Broken, Misuse, Tampered
from pipeline.evaluation.comparison import SLICE_VALUES, measure
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.rows import Said, SplitRows, read_predictions, read_split
from pipeline.params import EvaluateParams, GateParams, ModelParams
from pipeline.steps.evaluate import check_inputs, evaluate
from pipeline.steps.gate import gate

GOOD = {"candidate": 0.95, "champion": 0.8, "base": 0.3}
MODEL = ModelParams(name="support", task=Task.CLASSIFY, base="./base")
POLICY = GateParams(
    min_test_rows=100,
    parity=(),
    thresholds={"accuracy": 0.85},
    not_worse_than_champion={"accuracy": 0.02, "macro_f1": 0.02},
    better_than_base={"accuracy": 0.1},
)


def test_report_holds_what_was_measured(world: World) -> None:
    report = world.evaluate(GOOD)
    assert [s.name for s in report.subjects] == ["candidate", "champion", "base"]
    assert report.rows == 160
    assert report.test == world.splits.test.sha256
    assert report.parents == (world.training.digest, world.champion.digest, world.splits.digest)
    assert EvaluationReport.read(world.root / "evaluation" / "evaluation.json", digest=report.digest) == report

    found = read_predictions(world.root / "evaluation" / "predictions.parquet", report.predictions)
    assert found.ids == world.rows.ids
    for subject in report.subjects:
        answers = found.answers[subject.name]
        assert report.metric(subject.name, "accuracy").value == pytest.approx(value_of("accuracy", found.expected, answers))
        assert report.metric(subject.name, "macro_f1").value == pytest.approx(value_of("macro_f1", found.expected, answers))
        assert sum(found.scores[subject.name, "accuracy"]) / 160 == pytest.approx(report.metric(subject.name, "accuracy").value)
    gain = report.metric("candidate", "accuracy").value - report.metric("base", "accuracy").value
    assert report.comparison("base", "accuracy").difference == pytest.approx(gain)
    differing = sum(a != b for a, b in zip(found.answers["candidate"], found.answers["base"], strict=True)) / 160
    assert report.metric("candidate", DIFFERS_FROM_BASE).value == pytest.approx(differing)

    flat = json.loads((world.root / "evaluation" / "metrics.json").read_text())
    assert flat["rows"] == 160
    assert flat["champion.macro_f1"] == report.metric("champion", "macro_f1").value


def test_same_answers_give_the_same_record(world: World) -> None:
    assert world.evaluate(GOOD).digest == world.evaluate(GOOD).digest
    assert world.evaluate(GOOD, seed=1).digest != world.evaluate(GOOD, seed=2).digest


def test_slices_add_up(world: World) -> None:
    report = world.evaluate(GOOD)
    labels = [s for s in report.slices if s.field == "label" and s.subject == "candidate"]
    assert {s.value for s in labels} == set(LABELS)
    assert sum(s.rows for s in labels) == 160
    total = sum(s.score * s.rows for s in labels) / 160
    assert total == pytest.approx(report.metric("candidate", "accuracy").value)
    channels = {s.value: s.rows for s in report.slices if s.field == "channel" and s.subject == "base"}
    assert set(channels) == {"mail", "chat", "phone"}
    assert sum(channels.values()) == 160 - 32, "rows without the field are in no slice of it"


def test_slices_of_macro_f1_are_accuracy_and_capped() -> None:
    many = [f"label {at % 50:02}" for at in range(120)]
    rows = SplitRows([str(at) for at in range(120)], [str(at) for at in range(120)], many, many, ["{}"] * 120, ["f"] * 120)
    found = measure(rows, {"candidate": Said(many)}, [METRICS["macro_f1"]], slices=["label", "source", "absent"], resamples=200)
    assert {s.metric for s in found.slices} == {"accuracy"}
    assert len([s for s in found.slices if s.field == "label"]) == SLICE_VALUES
    assert [(s.value, s.rows) for s in found.slices if s.field == "source"] == [("f", 120)]
    assert not [s for s in found.slices if s.field == "absent"]


@pytest.mark.parametrize(
    ("right", "verdict", "failed"),
    [
        (GOOD, Outcome.PASSED, set()),
        ({**GOOD, "candidate": 0.6}, Outcome.FAILED, {"thresholds.accuracy", "not_worse_than_champion.accuracy"}),
        ({**GOOD, "candidate": 0.88}, Outcome.INSUFFICIENT, set()),
        ({"candidate": 1.0, "champion": 1.0, "base": 1.0}, Outcome.FAILED, {DIFFERS_FROM_BASE}),
    ],
)
def test_gate_behind_a_real_report(world: World, right: dict[str, float], verdict: Outcome, failed: set[str]) -> None:
    decision = gate(world.evaluate(right), world.training, POLICY)
    assert decision.verdict is verdict, [c.detail for c in decision.checks]
    assert failed <= {c.name for c in decision.checks if c.verdict is Outcome.FAILED}


def test_first_candidate_has_no_champion_to_beat(world: World) -> None:
    report = without_champion(world).evaluate(GOOD)
    assert [s.name for s in report.subjects] == ["candidate", "base"]
    assert report.champion == Champion().digest
    assert gate(report, world.training, POLICY).verdict is Outcome.PASSED


@pytest.mark.parametrize("rows", [0, 1, 5, 30])
def test_tiny_test_splits_make_a_report_and_no_pass(tmp_path: Path, rows: int) -> None:
    world = make_world(tmp_path, rows)
    report = world.evaluate({"candidate": 1.0, "champion": 0.0, "base": 0.0})
    assert report.rows == rows
    assert gate(report, world.training, POLICY).verdict is Outcome.INSUFFICIENT
    found = read_predictions(tmp_path / "evaluation" / "predictions.parquet", report.predictions)
    assert len(found.ids) == rows


def test_no_model_is_loaded_for_an_empty_test_split(tmp_path: Path) -> None:
    world = make_world(tmp_path, 0)
    report = evaluate(
        world.training,
        world.champion,
        world.splits,
        EvaluateParams(metrics=("accuracy",)),
        MODEL,
        data=tmp_path / "data",
        adapter=world.adapter,
        champion_adapter=world.champion_adapter,
        base=tmp_path / "there is no base here",
        out=tmp_path / "evaluation",
    )
    assert report.rows == 0


def test_changed_test_file_is_refused(world: World) -> None:
    path = world.root / "data" / "test.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Tampered, match=r"test\.parquet"):
        read_split(path.parent, world.splits.test)
    path.unlink()
    with pytest.raises(Broken, match="cannot be read"):
        read_split(path.parent, world.splits.test)


def test_changed_predictions_are_refused(world: World) -> None:
    report = world.evaluate(GOOD)
    path = world.root / "evaluation" / "predictions.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.set_column(3, "candidate", table["expected"]), path)
    with pytest.raises(Tampered, match="predictions"):
        read_predictions(path, report.predictions)


def _check(world: World, model: ModelParams = MODEL, champion_adapter: Path | None = None) -> None:
    folder = champion_adapter or world.champion_adapter
    check_inputs(world.training, world.champion, world.splits, model, adapter=world.adapter, champion_adapter=folder)


def test_what_belongs_together_is_let_through(world: World) -> None:
    assert world.champion.version is not None
    _check(world)
    _check(without_champion(world), champion_adapter=world.root / "nowhere")


def test_changed_adapters_are_refused(world: World) -> None:
    (world.champion_adapter / "extra.bin").write_bytes(b"x")
    with pytest.raises(Tampered, match="version 3"):
        _check(world)
    (world.champion_adapter / "extra.bin").unlink()
    (world.adapter / "adapter_model.safetensors").write_bytes(b"weights of the adaptor")
    with pytest.raises(Tampered, match="not the one that was trained"):
        _check(world)


def test_missing_champion_adapter_is_refused(world: World) -> None:
    with pytest.raises(Broken, match="version 3 holds production"):
        _check(world, champion_adapter=world.root / "nowhere")


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path / "one")
    with pytest.raises(Misuse, match="params say generate"):
        _check(world, ModelParams(name="support", task=Task.GENERATE, base="./base"))
    other = make_world(tmp_path / "two", rows=20)
    with pytest.raises(Misuse, match="test rows are of splits"):
        check_inputs(world.training, Champion(), other.splits, MODEL, adapter=world.adapter, champion_adapter=None)


def test_a_champion_of_another_task_is_refused(tmp_path: Path) -> None:
    writer = make_world(tmp_path / "writer", task=Task.GENERATE)
    world = make_world(tmp_path / "labels")
    with pytest.raises(Misuse, match="was trained to generate"):
        check_inputs(
            world.training,
            writer.champion,
            world.splits,
            MODEL,
            adapter=world.adapter,
            champion_adapter=writer.champion_adapter,
        )


def test_a_subject_that_skips_rows_is_refused(world: World) -> None:
    with pytest.raises(Broken, match="base gave 159 answers to 160"):
        measure(
            world.rows, {"candidate": Said(world.rows.expected), "base": Said(world.rows.expected[1:])}, [METRICS["accuracy"]]
        )
