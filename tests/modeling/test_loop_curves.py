"""Curves of a training: points are means since the last one, alarms are points and tags, nothing is sent twice or never."""

from __future__ import annotations

import json

import pytest
import torch
from loop_kit import TinyLearner, loop, stage
from modeling_kit import Remembering

from pipeline.errors import TrainingDiverged
from pipeline.modeling.loop import rhythm
from pipeline.modeling.loop.curves import Curves
from pipeline.params.train import MachineParams


def drawn(tmp_path, tracker: Remembering, every: int = 3) -> Curves:
    return Curves(tracker, tmp_path, every=every)


def note(curves: Curves, step: int, loss: float, **measures: float) -> None:
    curves.step(step, loss=loss, learning_rate=0.1 * step, grad_norm=float(step), measures=measures)


def test_a_point_is_the_mean_over_the_steps_that_had_a_number(tmp_path):
    curves = drawn(tmp_path, Remembering())
    for step, (loss, measures) in enumerate([(3.0, {"kl": 1.0}), (2.0, {}), (1.0, {"kl": 2.0, "reward": 5.0}), (9.0, {})], 1):
        note(curves, step, loss, **measures)
    assert curves.points == [
        {"step": 3, "loss": 2.0, "kl": 1.5, "reward": 5.0, "learning_rate": pytest.approx(0.3), "grad_norm": 3.0}
    ]
    curves.flush()
    curves.flush()
    assert [(p["step"], p["loss"]) for p in curves.points] == [(3, 2.0), (4, 9.0)]
    curves.evaluated(4, {"eval_loss": 1.5, "eval_accuracy": 0.5})
    assert curves.train_loss == 15.0 / 4
    assert [curves.loss_at(step) for step in (1, 3, 4, 9)] == [2.0, 2.0, 9.0, 9.0]
    assert curves.eval_loss == 1.5
    assert curves.last == {"kl": 1.5, "reward": 5.0, "eval_accuracy": 0.5}


def test_what_a_tracked_run_has_is_not_sent_again_and_a_new_one_gets_all(tmp_path):
    first = Remembering("one")
    curves = drawn(tmp_path, first)
    for step in range(1, 6):
        note(curves, step, 1.0 * step)
    curves.alarm(5, "overfitting", "it fits too well")
    state = json.loads(json.dumps(curves.state()))
    for run_id, sent_again in (("one", 0), ("two", 2)):
        tracker = Remembering(run_id)
        again = drawn(tmp_path, tracker)
        again.restore(state)
        assert len(tracker.metrics) == sent_again
        assert tracker.tags == {"tuneline.alarm.overfitting": "it fits too well"}
        note(again, 6, 6.0)
        assert again.points[-1]["loss"] == 5.0, "steps from before the resume count in the point after it"
        assert tracker.curve("loss")[-1] == (6, 5.0)


@pytest.mark.parametrize(("precision", "expected"), [("auto", True), ("fp32", False)])
def test_bf16_is_on_where_the_machine_has_it_and_params_allow_it(precision, expected, tmp_path, monkeypatch):
    """No CPU is told to by itself; here one is, to see that losses and measuring run under it and that weights stay fp32."""
    monkeypatch.setattr(rhythm, "half_precision", lambda: True)
    learner, seen = TinyLearner(dropout=0.0), set()
    losses, evaluate = learner.losses, learner.evaluate
    learner.losses = lambda batch: (seen.add(torch.is_autocast_enabled("cpu")), losses(batch))[1]
    learner.evaluate = lambda rows: (seen.add(torch.is_autocast_enabled("cpu")), evaluate(rows))[1]
    made = loop(learner, tmp_path, machine=MachineParams(precision=precision))
    made.run()
    assert seen == {expected}
    assert {weight.dtype for weight in learner.model.parameters()} == {torch.float32}
    curve = [p["loss"] for p in made.curves.points if "loss" in p]
    assert curve[-1] < curve[0]


def test_a_measure_that_is_no_number_is_named(tmp_path):
    learner = TinyLearner()
    learner.evaluate = lambda rows: {"eval_loss": 1.0, "eval_accuracy": float("nan")}
    with pytest.raises(TrainingDiverged, match="the measure eval_accuracy became NaN in step 2"):
        loop(learner, tmp_path, stage()).run()
