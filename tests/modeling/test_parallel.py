"""One training on two processes of this machine is the training of one: the same curve, the same adapter, stopped and gone on."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from job_kit import STEPS, new_job, tuned
from modeling_kit import Remembering
from safetensors.torch import load_file

from pipeline.domain.tuning import Objective
from pipeline.errors import TryLater
from pipeline.modeling.job import Job
from pipeline.params.train import MachineParams


def on(job: Job, **machine: Any) -> Job:
    return dataclasses.replace(job, machine=MachineParams(**machine))


def points(job: Job) -> list[dict[str, float]]:
    return [json.loads(line) for line in job.curves.read_text().splitlines()]


def tensors(job: Job) -> dict[str, Any]:
    return load_file(job.adapter / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def alone(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A stage that one process trained, without dropout: five rows a step, which two processes cannot share evenly."""
    job = new_job(Objective.SFT, tiny_base, tmp_path_factory.mktemp("alone"), dropout=0.0, batch_size=5, logging_steps=1)
    tuned(job)
    return job


@pytest.fixture
def nobody_left() -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.usefixtures("nobody_left")
@pytest.mark.slow
def test_two_processes_stop_together_and_go_on_with_spread_weights(alone: Job, tiny_base: Path, tmp_path: Path) -> None:
    job = new_job(Objective.SFT, tiny_base, tmp_path, dropout=0.0, batch_size=5, logging_steps=1, save_steps=100, eval_steps=2)

    def stop_at_three(what: str, done: int, total: int) -> None:
        if (what, done) == ("training", 3):
            os.kill(os.getpid(), signal.SIGTERM)

    tracker = Remembering()
    with pytest.raises(TryLater, match="stopped by SIGTERM at step") as stopped:
        tuned(on(job, processes=2), stop_at_three, tracker)
    step = int(re.findall(r"step (\d+)", str(stopped.value))[0])
    assert 3 <= step < STEPS
    assert (job.folder / f"checkpoint-{step}" / "complete.json").is_file()
    assert [at for at, _ in tracker.curve("loss")] == list(range(1, step + 1))

    seen: list[int] = []
    result = tuned(on(job, processes=2, shard=True), lambda what, done, _: seen.append(done) if what == "training" else None)

    assert seen == list(range(step + 1, STEPS + 1))
    assert result.steps == STEPS
    together, whole = points(job), points(alone)
    assert [point["step"] for point in together] == [point["step"] for point in whole]
    for ours, theirs in zip(together, whole, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    both = tensors(job), tensors(alone)
    assert both[0].keys() == both[1].keys()
    for name, tensor in both[0].items():
        assert (tensor - both[1][name]).abs().max() <= 1e-5 * both[1][name].abs().max() + 1e-6, name


def test_gradient_checkpointing_changes_no_loss(alone: Job, tiny_base: Path, tmp_path: Path) -> None:
    job = new_job(Objective.SFT, tiny_base, tmp_path, dropout=0.0, batch_size=5, logging_steps=1)

    result = tuned(on(job, gradient_checkpointing="on"))

    assert result.machine["gradient_checkpointing"] == "on"
    for ours, theirs in zip(points(job), points(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
