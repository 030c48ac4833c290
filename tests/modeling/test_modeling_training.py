"""The training step on a tiny base: its record and curves, the guard, what it refuses. Resuming is in test_modeling_resume.py."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path

import pytest
from modeling_kit import model_params, run, train_params, write_splits

from pipeline.domain.model import TrainingRun
from pipeline.domain.record import first_difference
from pipeline.errors import BadInput, Misuse, Tampered, TrainingDiverged


def test_the_record_says_what_was_made_and_the_tracker_saw_it(whole, chat_data, tiny_base):
    home, record, tracker = whole
    _, splits = chat_data
    out = home / "out"
    assert TrainingRun.read(out / "training.json") == record
    assert first_difference(out / "adapter", record.adapter) is None
    assert sorted(f.path for f in record.adapter) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tuneline.json",
    ]
    assert (record.steps, record.train_rows, record.parents[0]) == (16, 60, splits.digest)
    assert record.eval_loss is not None
    assert record.eval_loss < 5.6 < record.train_loss + 0.2  # from ln 326 = 5.79
    assert {"torch", "transformers", "peft", "bitsandbytes", "tuneline", "device"} <= record.versions.keys()
    assert str(tiny_base) in (out / "adapter" / "adapter_config.json").read_text()  # as params wrote it, here absolute
    assert tracker.params["train.rank"] == 4
    assert ("train", splits.train.sha256, 60) in tracker.datasets
    assert not list((home / "checkpoints").iterdir())


def test_curves_are_complete_in_the_file_and_in_the_tracker(whole):
    home, record, tracker = whole
    points = [json.loads(line) for line in (home / "out" / "curves.jsonl").read_text().splitlines()]
    losses = [(p["step"], p["loss"]) for p in points if "loss" in p]
    assert [step for step, _ in losses] == list(range(2, 17, 2))
    assert [p["step"] for p in points if "eval_loss" in p] == [8, 16]
    assert tracker.curve("loss") == losses
    assert tracker.curve("eval_loss") == [(p["step"], p["eval_loss"]) for p in points if "eval_loss" in p]
    assert sum(loss for _, loss in losses) / len(losses) == pytest.approx(record.train_loss)
    rates = [p["learning_rate"] for p in points if "learning_rate" in p]
    assert rates == sorted(rates, reverse=True)
    assert all(p["grad_norm"] > 0 for p in points if "grad_norm" in p)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(whole, chat_data, tiny_base, tmp_path):
    _, record, _ = whole
    assert run(chat_data, tiny_base, tmp_path / "again") == record
    other = run(chat_data, tiny_base, tmp_path / "other", params=train_params(seed=8))
    assert other.adapter_digest != record.adapter_digest


@contextlib.contextmanager
def poisoned(where: str, step: int, value: float):
    """Put `value` into the loss, one gradient or one weight of the given step."""
    import dataclasses

    import torch
    from transformers import Trainer

    from pipeline.modeling.learning.texts import Texts
    from pipeline.modeling.loop.loop import Loop

    patch = pytest.MonkeyPatch()

    def now(loop: Loop) -> bool:
        return loop.taken + 1 == step

    if where == "loss":
        real_begin, real_losses = Texts.begin_step, Texts.losses

        def begin(learner, begun, places):
            learner.begun = begun
            return real_begin(learner, begun, places)

        def losses(learner, batch):
            found = real_losses(learner, batch)
            return dataclasses.replace(found, total=found.total * value) if learner.begun == step else found

        patch.setattr(Texts, "begin_step", begin)
        patch.setattr(Texts, "losses", losses)
    elif where == "gradient":
        real_clip = Trainer._clip_grad_norm

        def clip(loop, model):
            if now(loop):
                next(p for p in model.parameters() if p.grad is not None).grad[0, 0] = value
            return real_clip(loop, model)

        patch.setattr(Trainer, "_clip_grad_norm", clip)
    else:
        real_step = torch.optim.AdamW.step

        def bad_step(self, *args, **kwargs):
            result = real_step(self, *args, **kwargs)
            bad_step.count += 1
            if bad_step.count == step:
                with torch.no_grad():
                    self.param_groups[0]["params"][3][0, 0] = value
            return result

        bad_step.count = 0
        patch.setattr(torch.optim.AdamW, "step", bad_step)
    try:
        yield
    finally:
        patch.undo()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient", "weight"])
def test_a_number_gone_bad_stops_the_training_in_its_step(where, value, chat_data, tiny_base, tmp_path):
    home = tmp_path
    steps: list[int] = []
    with poisoned(where, 5, value), pytest.raises(TrainingDiverged) as error:
        run(chat_data, tiny_base, home, progress=lambda what, done, _: steps.append(done) if what == "training" else None)
    assert re.search(rf"{where}.* became {'NaN' if value != value else 'Inf|NaN'}.* in step 5", str(error.value)), error.value
    if where != "loss":
        assert "lora_" in str(error.value)
    assert max(steps) == 4
    assert not list((home / "out").glob("**/*.json"))
    assert not (home / "out" / "adapter").exists()


def test_a_learning_rate_that_explodes_is_caught_for_real(chat_data, tiny_base, tmp_path):
    wild = train_params(learning_rate=0.99, alpha=10**9, max_grad_norm=1e9, warmup_share=0.0)
    with pytest.raises(TrainingDiverged, match="in step"):
        run(chat_data, tiny_base, tmp_path, params=wild)


def test_classification_learns_and_saves_its_head(label_data, tiny_base, tmp_path):
    from safetensors import safe_open

    record = run(
        label_data, tiny_base, tmp_path, model=model_params(tiny_base, "classify"), params=train_params(epochs=6.0, dropout=0.0)
    )
    points = [json.loads(line) for line in (tmp_path / "out" / "curves.jsonl").read_text().splitlines()]
    assert [p["eval_accuracy"] for p in points if "eval_accuracy" in p][-1] >= 0.75  # chance is a third
    with safe_open(tmp_path / "out" / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert "base_model.model.score.weight" in file.keys()  # noqa: SIM118
    assert record.base.template is None


def test_accumulated_batches_and_smoothing_and_eval_steps(label_data, tiny_base, tmp_path):
    params = train_params(batch_size=4, gradient_accumulation=4, label_smoothing=0.1, epochs=1.5, eval_steps=4)
    record = run(label_data, tiny_base, tmp_path, model=model_params(tiny_base, "classify"), params=params)
    assert record.steps == 6  # 15 batches, 4 a step, an epoch and a half
    points = [json.loads(line) for line in (tmp_path / "out" / "curves.jsonl").read_text().splitlines()]
    assert [p["step"] for p in points if "eval_loss" in p] == [4, 6]
    assert 0.9 < record.train_loss < 1.5  # near ln 3 a row: micro-batches are averaged, not added


def test_an_empty_eval_split_is_no_obstacle(chat_data, tiny_base, tmp_path):
    data = write_splits(tmp_path, [('[{"content":"a","role":"user"}]', "b")] * 9, [], task="generate")
    assert run(data, tiny_base, tmp_path, params=train_params(max_steps=2)).eval_loss is None


def test_what_cannot_be_trained_is_said_before_training(chat_data, tiny_base, tmp_path):
    folder, splits = chat_data
    with pytest.raises(Misuse, match="no linear module called q_projection") as error:
        run(chat_data, tiny_base, tmp_path, params=train_params(target_modules=("q_projection", "v_proj")))
    assert "down_proj, gate_proj, k_proj" in str(error.value)
    with pytest.raises(Misuse, match="room for 128 tokens"):
        run(chat_data, tiny_base, tmp_path, params=train_params(max_length=129))
    with pytest.raises(BadInput, match="no row is left"):
        run(chat_data, tiny_base, tmp_path, params=train_params(max_length=3))
    copy = Path(shutil.copytree(folder, tmp_path / "swapped"))
    shutil.copy(copy / "eval.parquet", copy / "train.parquet")
    with pytest.raises(Tampered, match="recorded digest"):
        run((copy, splits), tiny_base, tmp_path)
    assert not (tmp_path / "out" / "adapter").exists()
