"""Steps of the loop: the same however they are cut, resumed at any of them, with room halved when memory runs out."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from loop_kit import TinyLearner, loop, stage, weights
from modeling_kit import Remembering

from pipeline.errors import Broken, TrainingDiverged
from pipeline.modeling.loop import checkpoints

STEPS = 9


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A training with a checkpoint after each of its steps: loop and weights."""
    learner, folder = TinyLearner(), tmp_path_factory.mktemp("quiet")
    done = loop(learner, folder, stage(neftune_alpha=5.0, save_steps=1))
    done.run()
    assert (done.total, done.taken) == (STEPS, STEPS)
    return done, weights(learner)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_resumed_at_any_step_it_ends_as_if_nothing_had_been(step, quiet, tmp_path):
    done, expected = quiet
    shutil.copytree(done.folder / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    learner, tracker = TinyLearner(), Remembering()
    with torch.no_grad():
        for weight in learner.model.parameters():
            weight.mul_(1.0 - float(weight.requires_grad))  # what is trained must come from the checkpoint
    again = loop(learner, tmp_path, stage(neftune_alpha=5.0, save_steps=1), tracker=tracker)
    again.run()
    assert weights(learner) == expected
    assert again.curves.points == done.curves.points
    assert [step for step, _ in tracker.curve("loss")] == list(range(1, STEPS + 1))
    assert (again.kept_step, again.measures, again.alarms) == (done.kept_step, done.measures, done.alarms)
    assert again.curves.eval_loss == done.curves.eval_loss


@pytest.mark.parametrize("name", ["trained.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "learner.safetensors"])
def test_each_part_of_a_checkpoint_is_needed(name, quiet, tmp_path):
    """With one part of an earlier step it ends otherwise: what the comparisons above compare does hang on all of them."""
    done, expected = quiet
    path = tmp_path / "checkpoint-6"
    shutil.copytree(done.folder / "checkpoint-6", path)
    shutil.copy(done.folder / "checkpoint-3" / name, path / name)
    (path / "complete.json").unlink()
    checkpoints.commit(Path(shutil.move(path, tmp_path / "staged" / path.name)), tmp_path)
    learner = TinyLearner()
    again = loop(learner, tmp_path, stage(neftune_alpha=5.0))
    again.run()
    assert (weights(learner), again.measures) != (expected, done.measures)


def test_a_step_is_the_same_however_it_is_cut(tmp_path):
    learners = [TinyLearner(dropout=0.0) for _ in range(3)]
    for learner, rows in zip(learners, (4, 3, 1), strict=True):
        loop(learner, tmp_path / str(rows), micro_rows=rows).run()
    assert [max(learner.sizes) for learner in learners] == [4, 3, 1]
    losses = [[p["loss"] for p in _points(tmp_path / str(rows))] for rows in (4, 3, 1)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[0] == pytest.approx(losses[2], abs=1e-5)
    for one, other in zip(learners[0].model.parameters(), learners[2].model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_items_of_a_step_come_longest_first_and_all_once(tmp_path):
    learner = TinyLearner()
    taken: list[list[int]] = []
    real = learner.batch
    learner.batch = lambda places: taken.append(list(places)) or real(places)
    loop(learner, tmp_path, stage(epochs=1.0, eval_steps=100), micro_rows=2).run()
    trained = [n for piece in taken[:-1] for n in piece]  # the last is the eval split's
    assert sorted(trained) == list(range(22))
    lengths = [len(learner.texts[n]) for n in trained]
    steps = [lengths[start : start + 4] for start in range(0, 20, 4)]
    assert all(step == sorted(step, reverse=True) for step in steps)


def test_out_of_memory_halves_the_rows_and_changes_nothing_else(tmp_path, caplog):
    small, large = TinyLearner(dropout=0.0, most_rows=1, most_measured=2), TinyLearner(dropout=0.0)
    with caplog.at_level(logging.WARNING):
        poor = loop(small, tmp_path / "poor")
        poor.run()
    rich = loop(large, tmp_path / "rich")
    rich.run()
    assert (poor.micro_rows, poor.room.evaluation, rich.micro_rows) == (1, 2, 4)
    assert "memory ran out in training after step 0: from now on 2 rows at a time, not 4" in caplog.text
    assert "memory ran out in evaluation after step 2: from now on 2 rows at a time, not 4" in caplog.text
    for name in ("loss", "accuracy", "eval_loss", "grad_norm"):
        curves = [[p[name] for p in each.curves.points if name in p] for each in (poor, rich)]
        assert curves[0] == pytest.approx(curves[1], abs=1e-5)


def test_the_halved_size_is_carried_over_a_resume(tmp_path):
    first = loop(TinyLearner(most_rows=2, most_measured=2), tmp_path / "first", stage(max_steps=5, save_steps=1))
    first.run()
    shutil.copytree(tmp_path / "first" / "checkpoint-3", tmp_path / "again" / "checkpoint-3")
    learner = TinyLearner()
    again = loop(learner, tmp_path / "again", stage(max_steps=5))
    again.run()
    assert (again.micro_rows, again.room.evaluation, set(learner.sizes)) == (2, 2, {2})
    assert again.curves.points == first.curves.points


def test_memory_may_run_out_while_preparing_or_beginning_a_step(tmp_path):
    learner, real = TinyLearner(dropout=0.0), TinyLearner.begin_step
    seen: list[tuple[str, int]] = []

    def prepare() -> None:
        seen.append(("prepare", learner.rows))
        if learner.rows > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")

    def begin(step, places) -> None:
        seen.append(("begin", learner.rows))
        if learner.rows > 1:
            raise RuntimeError("std::bad_alloc")
        real(learner, step, places)

    learner.prepare, learner.begin_step = prepare, begin
    loop(learner, tmp_path, stage(max_steps=1)).run()
    assert seen == [("prepare", 4), ("prepare", 2), ("begin", 2), ("begin", 1)]


def test_one_row_that_does_not_fit_is_said(tmp_path):
    with pytest.raises(Broken, match=r"ran out in training after step 0, with one row at a time: CUDA out of memory") as error:
        loop(TinyLearner(most_rows=0), tmp_path).run()
    assert "max_length" in str(error.value)


def test_other_errors_are_no_lack_of_memory(tmp_path):
    learner = TinyLearner()
    learner.units = lambda places: 1 / 0 if learner.seen else 4.0
    with pytest.raises(ZeroDivisionError):
        loop(learner, tmp_path).run()
    learner = TinyLearner()
    learner.losses = lambda batch: torch.zeros(2) @ torch.zeros(3)
    with pytest.raises(RuntimeError, match=r"size|shape|inconsistent"):
        loop(learner, tmp_path / "other").run()


def test_a_penalty_pulls_once_a_step_and_has_a_curve_of_its_own(tmp_path):
    class Pull:
        def __call__(self, model):
            return 0.5 * sum((p**2).sum() for p in model.parameters() if p.requires_grad)

    sizes = {}
    for name, rows, penalty in (("free", 4, None), ("held", 4, Pull()), ("held in pieces", 1, Pull())):
        learner = TinyLearner(dropout=0.0)
        made = loop(learner, tmp_path / name, micro_rows=rows, penalty=penalty)
        made.run()
        sizes[name] = sum(float((p.detach() ** 2).sum()) for p in learner.model.parameters() if p.requires_grad)
        assert [("penalty" in p) for p in made.curves.points if "loss" in p] == [penalty is not None] * STEPS
    assert sizes["held"] < 0.8 * sizes["free"]
    assert sizes["held in pieces"] == pytest.approx(sizes["held"], rel=1e-5)
    with pytest.raises(TrainingDiverged, match="the penalty became NaN in step 1"):
        loop(TinyLearner(), tmp_path / "bad", penalty=lambda model: torch.tensor(float("nan"))).run()


def test_parameters_may_have_a_rate_of_their_own(tmp_path):
    class Still(TinyLearner):
        def rate(self, name: str) -> float | None:
            return 1e-9 if name.startswith("out.") else None

    learner, untaught = Still(), TinyLearner()
    made = loop(learner, tmp_path, stage(max_steps=3))
    made.run()
    torch.testing.assert_close(learner.model.out.weight, untaught.model.out.weight, atol=1e-6, rtol=0)
    assert (learner.model.embedding.weight - untaught.model.embedding.weight).abs().max().item() > 0.01
    assert [round(group["initial_lr"], 12) for group in made.optimizer.param_groups] == [0.05, 1e-9, 1e-9]
    assert max(p["learning_rate"] for p in made.curves.points if "loss" in p) == 0.05


@pytest.mark.parametrize("where", ["loss", "measure", "gradient", "weight", "eval"])
def test_a_bad_number_stops_the_training_within_its_step(where, tmp_path, monkeypatch):
    """At step 4, in the second piece of it where there are pieces."""
    learner = TinyLearner(dropout=0.0)
    made = loop(learner, tmp_path, stage(save_steps=1), micro_rows=2)
    real_losses, real_evaluate, real_step = learner.losses, learner.evaluate, torch.optim.AdamW.step

    def losses(batch):
        found = real_losses(batch)
        now = learner._begun == 4 and len(learner.sizes) % 2 == 0
        if now and where == "loss":
            return type(found)(found.total * float("nan"), found.measures)
        if now and where == "measure":
            return type(found)(found.total, {"accuracy": float("inf")})
        if now and where == "gradient":
            learner.model.out.weight.register_hook(lambda gradient: gradient * float("inf"))
        return found

    def step(self, *args, **kwargs):
        result = real_step(self, *args, **kwargs)
        if where == "weight" and learner._begun == 4:
            with torch.no_grad():
                learner.model.embedding.weight[3, 0] = float("nan")
        return result

    learner.losses = losses
    learner.evaluate = lambda rows: (
        {"eval_loss": float("nan")} if where == "eval" and learner._begun == 4 else real_evaluate(rows)
    )
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    said = {"measure": "measure accuracy", "weight": "weights of embedding.weight", "eval": "loss on the eval split"}.get(
        where, where
    )
    with pytest.raises(TrainingDiverged, match=f"the {said}.* became (NaN|Inf) in step 4"):
        made.run()
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


def _points(folder: Path) -> list[dict[str, float]]:
    import json

    state = json.loads((folder / f"checkpoint-{STEPS}" / "curves.json").read_text())
    return [point for point in state["points"] if "loss" in point]
