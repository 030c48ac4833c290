"""Resuming a training step: bit for bit after any kind of stop, never from another training's state.

What becomes of damaged checkpoints is in test_loop_checkpoints.py, each objective at each step in test_loop_objectives.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from modeling_kit import Pulled, Remembering, pull_at, run, train_params

from pipeline.errors import TryLater


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
from modeling_kit import run
from pipeline.domain.curated import Splits
home = Path({str(tmp_path)!r})
def progress(what, done, total):
    if what == "training" and done == 10:
        os.kill(os.getpid(), signal.SIGKILL)
run((Path({str(folder)!r}), Splits.read(home / "splits.json")), Path({str(tiny_base)!r}), home, progress=progress)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, cwd=root)
    assert done.returncode == -signal.SIGKILL, done.stderr
    [folder_] = (tmp_path / "checkpoints").iterdir()
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


def test_training_goes_on_from_the_last_whole_checkpoint(interrupted, whole, chat_data, tiny_base, tmp_path, caplog):
    home = Path(shutil.copytree(interrupted, tmp_path / "copy"))
    [folder] = (home / "checkpoints").iterdir()
    (folder / "checkpoint-9" / "optimizer.pt").unlink()
    steps: list[int] = []
    record = run(chat_data, tiny_base, home, progress=lambda what, done, _: steps.append(done) if what == "training" else None)
    assert record == whole[1]
    assert steps[0] == 7
    assert "not resuming from checkpoint-9: optimizer.pt is missing" in caplog.text
