"""The training step on a tiny base: its record and curves, the guard, resuming bit for bit, refusing foreign state."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from modeling_kit import Remembering, model_params, train_params, write_splits

from pipeline.domain.data import Splits
from pipeline.domain.model import TrainingRun
from pipeline.domain.record import first_difference
from pipeline.errors import BadInput, Misuse, Tampered, TrainingDiverged, TryLater
from pipeline.params import ModelParams, TrainParams
from pipeline.ports import Progress, silent
from pipeline.steps.train import train


def run(
    data: tuple[Path, Splits],
    base: Path,
    home: Path,
    *,
    params: TrainParams | None = None,
    model: ModelParams | None = None,
    tracker: Remembering | None = None,
    progress: Progress = silent,
) -> TrainingRun:
    folder, splits = data
    return train(
        splits,
        params or train_params(),
        model or model_params(base),
        data=folder,
        out=home / "out",
        base=base,
        checkpoints=home / "checkpoints",
        tracker=tracker or Remembering(),
        progress=progress,
    )


class Pulled(Exception):
    """The plug."""


def pull_at(step: int) -> Progress:
    def progress(what: str, done: int, total: int) -> None:
        if what == "training" and done == step:
            raise Pulled

    return progress


@pytest.fixture(scope="module")
def whole(chat_data, tiny_base, tmp_path_factory):
    """An uninterrupted training of 16 steps: its home, record and tracker."""
    home, tracker = tmp_path_factory.mktemp("whole"), Remembering()
    return home, run(chat_data, tiny_base, home, tracker=tracker), tracker


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


@pytest.mark.parametrize("step", [1, 3, 8, 11, 16])
def test_a_resumed_training_is_the_uninterrupted_one(step, whole, chat_data, tiny_base, tmp_path):
    """Before the first checkpoint, on one, at the end of an epoch, between two, and after the last step."""
    _, record, tracker = whole
    again = Remembering()
    with pytest.raises(Pulled):
        run(chat_data, tiny_base, tmp_path, tracker=again, progress=pull_at(step))
    assert not (tmp_path / "out" / "adapter").exists()
    assert run(chat_data, tiny_base, tmp_path, tracker=again) == record
    assert (tmp_path / "out" / "curves.jsonl").read_bytes() == (whole[0] / "out" / "curves.jsonl").read_bytes()
    for name in ("loss", "eval_loss", "grad_norm"):
        assert again.curve(name) == tracker.curve(name)


def test_a_resume_under_another_tracked_run_shows_the_whole_curve_there(whole, chat_data, tiny_base, tmp_path):
    with pytest.raises(Pulled):
        run(chat_data, tiny_base, tmp_path, progress=pull_at(13))
    second = Remembering("run-2")
    run(chat_data, tiny_base, tmp_path, tracker=second)
    assert second.curve("loss") == whole[2].curve("loss")


def test_a_killed_process_loses_nothing(whole, chat_data, tiny_base, tmp_path):
    """A real process, hit by a real SIGKILL in the middle of step 10."""
    folder, splits = chat_data
    (tmp_path / "splits.json").write_text(splits.to_json())
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from modeling_kit import Remembering, model_params, train_params
from pipeline.domain.data import Splits
from pipeline.steps.train import train
home, base = Path({str(tmp_path)!r}), Path({str(tiny_base)!r})
def progress(what, done, total):
    if what == "training" and done == 10:
        os.kill(os.getpid(), signal.SIGKILL)
train(Splits.read(home / "splits.json"), train_params(), model_params(base), data=Path({str(folder)!r}), base=base,
      out=home / "out", checkpoints=home / "checkpoints", tracker=Remembering(), progress=progress)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2]
    )
    [folder_] = (tmp_path / "checkpoints").iterdir()
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sorted(p.name for p in folder_.glob("checkpoint-*")) == ["checkpoint-6", "checkpoint-9"]
    (folder_ / ".staging-1").mkdir()  # what a kill in mid-write leaves
    assert run(chat_data, tiny_base, tmp_path) == whole[1]
    assert not list((tmp_path / "checkpoints").iterdir())


def test_sigterm_stops_after_a_checkpoint_and_loses_nothing(whole, chat_data, tiny_base, tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def progress(what: str, done: int, total: int) -> None:
        if what == "training" and done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TryLater, match=r"at step [45]"):
        run(chat_data, tiny_base, tmp_path, progress=progress)
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "out" / "training.json").exists()
    assert run(chat_data, tiny_base, tmp_path) == whole[1]


def test_a_changed_run_never_resumes_from_foreign_state(chat_data, tiny_base, tmp_path):
    with pytest.raises(Pulled):
        run(chat_data, tiny_base, tmp_path, progress=pull_at(10))
    seen: list[int] = []
    run(chat_data, tiny_base, tmp_path, params=train_params(alpha=9), progress=lambda what, done, _: seen.append(done))
    assert 1 in seen
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1  # the other's, still resumable


TORN = {
    "adapter flipped": ("adapter_model.safetensors", lambda b: b[:-5] + bytes([b[-5] ^ 1]) + b[-4:]),
    "optimizer flipped": ("optimizer.pt", lambda b: b[:900] + bytes([b[900] ^ 1]) + b[901:]),
    "optimizer missing": ("optimizer.pt", None),
    "scheduler missing": ("scheduler.pt", None),
    "random state empty": ("rng_state.pth", lambda b: b""),
    "trainer state torn": ("trainer_state.json", lambda b: b[: len(b) // 2]),
    "curves missing": ("curves.json", None),
    "marker torn": ("complete.json", lambda b: b[:-9]),
    "marker missing": ("complete.json", None),
    "all but a name gone": ("*", None),
}


@pytest.fixture(scope="module")
def interrupted(chat_data, tiny_base, tmp_path_factory):
    home = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(Pulled):
        run(chat_data, tiny_base, home, progress=pull_at(10))
    return home


@pytest.mark.parametrize("damage", TORN)
def test_a_torn_checkpoint_is_named_and_passed_over(damage, interrupted, tmp_path):
    from pipeline.modeling.checkpoints import find_last_whole

    name, change = TORN[damage]
    [source] = (interrupted / "checkpoints").iterdir()
    folder = Path(shutil.copytree(source, tmp_path / "copy"))
    assert find_last_whole(folder).step == 9
    for path in (folder / "checkpoint-9").glob(name):
        if change is None:
            path.unlink()
        else:
            path.write_bytes(change(path.read_bytes()))
    found = find_last_whole(folder)
    assert found.path == folder / "checkpoint-6"
    [sentence] = found.skipped
    assert sentence.startswith("checkpoint-9: ")
    if name not in ("*", "complete.json"):
        assert name in sentence


def test_training_goes_on_from_the_last_whole_checkpoint(interrupted, whole, chat_data, tiny_base, tmp_path, caplog):
    home = Path(shutil.copytree(interrupted, tmp_path / "copy"))
    [folder] = (home / "checkpoints").iterdir()
    (folder / "checkpoint-9" / "optimizer.pt").unlink()
    steps: list[int] = []
    record = run(chat_data, tiny_base, home, progress=lambda what, done, _: steps.append(done) if what == "training" else None)
    assert record == whole[1]
    assert steps[0] == 7
    assert "not resuming from checkpoint-9: optimizer.pt is missing" in caplog.text


def test_no_checkpoint_is_removed_before_the_next_is_whole(chat_data, tiny_base, tmp_path, monkeypatch):
    from pipeline.errors import Broken
    from pipeline.modeling import checkpoints

    def full(path: Path) -> None:
        if "checkpoint-9" in str(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_flush", full)
    with pytest.raises(Broken, match=r"step 9 could not be written.*No space left"):
        run(chat_data, tiny_base, tmp_path)
    [folder] = (tmp_path / "checkpoints").iterdir()
    assert sorted(p.name for p in folder.glob("*checkpoint*")) == ["checkpoint-3", "checkpoint-6"]
    assert not list(folder.glob(".staging*"))


@contextlib.contextmanager
def poisoned(where: str, step: int, value: float):
    """Put `value` into the loss, one gradient or one weight of the given step, through the library's own doors."""
    import torch
    from transformers import Trainer

    from pipeline.modeling.loop import Loop

    patch = pytest.MonkeyPatch()

    def now(loop: Loop) -> bool:
        return loop.state.global_step + 1 == step and loop.model.training

    if where == "loss":
        real_loss = Trainer.compute_loss
        patch.setattr(Trainer, "compute_loss", lambda s, *a, **k: real_loss(s, *a, **k) * (value if now(s) else 1.0))
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
