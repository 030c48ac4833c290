"""Checkpoints of the loop: whole or passed over, whatever became of which file; a full disk, a signal, a cap of time."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loop_kit import TinyLearner, loop, stage, weights
from modeling_kit import Pulled, pull_at

from pipeline.errors import Broken, CapReached, TryLater
from pipeline.modeling.loop.checkpoints import BEST, MARKER, NEEDED, find_last_whole, what_is_wrong

EACH_STEP = stage(save_steps=1, keep="best")
FILES = sorted({*NEEDED, BEST, MARKER})
DAMAGE: dict[str, Callable[[bytes], bytes] | None] = {
    "missing": None,
    "empty": lambda whole: b"",
    "torn": lambda whole: whole[: len(whole) // 2],
    "one bit flipped": lambda whole: (
        whole[: len(whole) // 3] + bytes([whole[len(whole) // 3] ^ 4]) + whole[len(whole) // 3 + 1 :]
    ),
    "longer": lambda whole: whole + b"\0",
}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> tuple[Path, bytes]:
    """A folder with all nine checkpoints, and the weights that came of it."""
    learner, folder = TinyLearner(), tmp_path_factory.mktemp("quiet")
    loop(learner, folder, EACH_STEP).run()
    return folder, weights(learner)


def test_a_checkpoint_holds_what_is_said_and_nothing_else(quiet):
    folder, _ = quiet
    assert sorted(p.name for p in (folder / "checkpoint-6").iterdir()) == FILES
    assert sorted(json.loads((folder / "checkpoint-6" / MARKER).read_text())["files"]) == sorted({*FILES} - {MARKER})


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_makes_the_older_checkpoint_count(name, damage, quiet, tmp_path):
    folder, _ = quiet
    for step in (5, 6):
        shutil.copytree(folder / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    path = tmp_path / "checkpoint-6" / name
    change = DAMAGE[damage]
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    found = find_last_whole(tmp_path)
    assert found.path == tmp_path / "checkpoint-5"
    [sentence] = found.skipped
    assert sentence.startswith("checkpoint-6: ")
    assert name in sentence or (name, damage) == (MARKER, "one bit flipped")  # it then seems to be of other files


def test_no_bit_of_the_marker_is_without_meaning(quiet, tmp_path):
    folder, _ = quiet
    path = shutil.copytree(folder / "checkpoint-6", tmp_path / "checkpoint-6")
    marker = (path / MARKER).read_bytes()
    for place in range(len(marker)):
        (path / MARKER).write_bytes(marker[:place] + bytes([marker[place] ^ 1 << place % 8]) + marker[place + 1 :])
        assert what_is_wrong(path) is not None, marker[place - 5 : place + 5]
    (path / MARKER).write_bytes(marker)
    assert what_is_wrong(path) is None


@pytest.mark.parametrize("change", ["another step's", "a foreign file", "a file that is not listed", "a folder for a file"])
def test_a_checkpoint_that_is_not_what_it_says_is_passed_over(change, quiet, tmp_path):
    folder, _ = quiet
    shutil.copytree(folder / "checkpoint-5", tmp_path / "checkpoint-5")
    target = shutil.copytree(folder / "checkpoint-6", tmp_path / "checkpoint-6")
    if change == "another step's":
        shutil.copy(folder / "checkpoint-7" / MARKER, target / MARKER)
    elif change == "a foreign file":
        (target / "training_args.bin").write_bytes(b"pickle")
    elif change == "a file that is not listed":
        marker = json.loads((target / MARKER).read_text())
        del marker["files"]["optimizer.pt"]
        (target / MARKER).write_text(json.dumps(marker))
    else:
        (target / "optimizer.pt").unlink()
        (target / "optimizer.pt").mkdir()
    assert find_last_whole(tmp_path).step == 5


def test_training_goes_on_from_the_last_whole_checkpoint(quiet, tmp_path, caplog):
    folder, expected = quiet
    for step in (3, 5, 6):
        shutil.copytree(folder / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-6" / "learner.safetensors").unlink()
    (tmp_path / "checkpoint-5" / "loop.json").write_text("{}")
    (tmp_path / ".staging-1-half").mkdir()
    (tmp_path / ".staging-best.safetensors").write_bytes(b"half")
    steps: list[int] = []
    learner = TinyLearner()
    with caplog.at_level(logging.WARNING):
        loop(learner, tmp_path, stage(keep="best"), progress=lambda what, done, _: steps.append(done)).run()
    assert steps == [4, 5, 6, 7, 8, 9]
    assert weights(learner) == expected
    assert "not resuming from checkpoint-6: learner.safetensors is missing" in caplog.text
    assert "not resuming from checkpoint-5: loop.json is not what was written" in caplog.text
    assert not list(tmp_path.glob(".staging*"))


def test_weights_of_another_training_are_refused(quiet, tmp_path):
    folder, _ = quiet
    shutil.copytree(folder / "checkpoint-6", tmp_path / "checkpoint-6")
    learner = TinyLearner()
    learner.model.frozen.requires_grad_(True)
    with pytest.raises(Broken, match=r"the model has weights of frozen.bias, the file does not"):
        loop(learner, tmp_path, EACH_STEP).run()


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a full disk, every write beyond `size` bytes of a file fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 50, 500, 1200, 3000, 8000])
def test_a_full_disk_loses_nothing(size, quiet, tmp_path):
    """Whichever file is the first that finds no room: the note of time, the weights, the optimizer, the random state."""
    _, expected = quiet
    with contextlib.ExitStack() as disk:

        def fill(what: str, done: int, total: int) -> None:
            if done == 4:
                disk.enter_context(no_file_larger_than(size))

        with pytest.raises(Broken, match=r"after step 4|of step 4") as error:
            loop(TinyLearner(), tmp_path, EACH_STEP, progress=fill).run()
    assert "make room on the disk" in str(error.value)
    assert find_last_whole(tmp_path).step == 3
    assert not list(tmp_path.glob("checkpoint-4*"))
    learner = TinyLearner()
    loop(learner, tmp_path, stage(keep="best")).run()
    assert weights(learner) == expected
    assert not list(tmp_path.glob(".staging*"))


def test_no_checkpoint_is_removed_before_the_next_is_whole(tmp_path):
    seen: list[list[str]] = []
    made = loop(TinyLearner(), tmp_path, stage(save_steps=2, keep_checkpoints=1))
    learner = made.learner
    learner.state = lambda: seen.append(sorted(p.name for p in tmp_path.glob("checkpoint-*"))) or {"seen": learner.seen}
    made.run()
    assert seen == [[], ["checkpoint-2"], ["checkpoint-4"], ["checkpoint-6"], ["checkpoint-8"]]


def test_sigterm_saves_and_says_try_later(tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def stop(what: str, done: int, total: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TryLater, match=r"stopped by SIGTERM at step [34]") as error:
        loop(TinyLearner(), tmp_path, progress=stop).run()
    assert (error.value.exit_code, error.value.retryable) == (3, True)
    assert signal.getsignal(signal.SIGTERM) is before
    assert find_last_whole(tmp_path).step in (3, 4)


def test_sigterm_in_the_last_step_is_no_reason_to_throw_the_result_away(tmp_path):
    made = loop(TinyLearner(), tmp_path, progress=lambda _, done, total: done == total and os.kill(os.getpid(), signal.SIGTERM))
    made.run()
    assert made.taken == made.total


def test_elsewhere_than_in_the_main_thread_signals_are_left_alone(tmp_path):
    before, seen = signal.getsignal(signal.SIGTERM), []
    made = loop(TinyLearner(), tmp_path, progress=lambda *_: seen.append(signal.getsignal(signal.SIGTERM)))
    worker = threading.Thread(target=made.run)
    worker.start()
    worker.join()
    assert made.taken == made.total
    assert set(seen) == {before}


class Clock:
    """Moves on by an hour with each step that it is told of."""

    def __init__(self) -> None:
        self.seconds = 1e6

    def __call__(self) -> float:
        return self.seconds

    def progress(self, what: str, done: int, total: int) -> None:
        self.seconds += 3600


def test_a_cap_of_time_stops_at_a_checkpoint_and_goes_on_when_it_is_raised(quiet, tmp_path):
    _, expected = quiet
    clock = Clock()
    settings = stage(keep="best")
    # The clock moves after a step is looked at, so the step that begins within the cap is finished.
    with pytest.raises(CapReached, match=r"at step 4 of 9, 4.00 hours into this stage") as error:
        loop(TinyLearner(), tmp_path, settings, clock=clock, progress=clock.progress, max_hours=3.5).run()
    assert "raise train.max_hours" in str(error.value)
    assert "nothing is lost" in str(error.value)
    assert (error.value.exit_code, error.value.retryable) == (3, False), "a flow that tried again at once would loop"
    assert find_last_whole(tmp_path).step == 4
    steps: list[int] = []
    with pytest.raises(CapReached, match="at step 4 of 9"):
        loop(TinyLearner(), tmp_path, settings, clock=clock, progress=lambda *a: steps.append(a[1]), max_hours=3.5).run()
    assert steps == []
    learner = TinyLearner()
    made = loop(learner, tmp_path, settings, clock=clock, progress=clock.progress, max_hours=20.0)
    made.run()
    assert weights(learner) == expected
    assert made.hours == 9.0


def test_the_time_of_killed_attempts_counts(tmp_path):
    clock = Clock()

    def progress(what: str, done: int, total: int) -> None:
        clock.progress(what, done, total)
        pull_at(3)(what, done, total)

    for _ in range(2):  # no checkpoint is ever reached
        with pytest.raises(Pulled):
            loop(TinyLearner(), tmp_path, clock=clock, progress=progress, max_hours=6.0).run()
    with pytest.raises(CapReached, match=r"at step 0 of 9, 6.00 hours into"):
        loop(TinyLearner(), tmp_path, clock=clock, progress=progress, max_hours=6.0).run()


def test_a_killed_process_has_noted_its_time_within_seconds(tmp_path):
    clock, noted = Clock(), []

    def progress(what: str, done: int, total: int) -> None:
        path = tmp_path / "seconds.json"
        noted.append(json.loads(path.read_text()) if path.exists() else 0.0)
        clock.progress(what, done, total)

    loop(TinyLearner(), tmp_path, clock=clock, progress=progress).run()
    assert noted == [3600.0 * n for n in range(9)]


def test_a_torn_note_of_time_is_no_obstacle(tmp_path, caplog):
    clock = Clock()
    with pytest.raises(Pulled):
        loop(
            TinyLearner(), tmp_path, stage(save_steps=2), clock=clock, progress=lambda *a: (clock.progress(*a), pull_at(5)(*a))
        ).run()
    (tmp_path / "seconds.json").write_text('{"sec')
    with caplog.at_level(logging.WARNING):
        made = loop(TinyLearner(), tmp_path, clock=clock, progress=clock.progress)
    made.run()
    assert "time is counted from the checkpoint on" in caplog.text
    assert made.hours == 4.0 + 5.0  # the fifth step's first hour is forgotten


def test_a_cap_that_is_reached_with_the_last_step_changes_nothing(tmp_path):
    clock = Clock()
    made = loop(TinyLearner(), tmp_path, clock=clock, progress=clock.progress, max_hours=8.5)
    made.run()
    assert (made.taken, made.hours) == (9, 9.0)
