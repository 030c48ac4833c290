"""Processes of a training as seen by the one that starts them: what they say arrives, and none of them outlives it.

The workers here are scripts of a few lines, which stand in for the real one and are started as it is.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from job_kit import new_job
from modeling_kit import Remembering

from pipeline.domain.tuning import Objective
from pipeline.errors import Broken, Misuse, TrainingDiverged, TryLater
from pipeline.modeling.job import Job, Tuned
from pipeline.modeling.parallel import launching
from pipeline.modeling.parallel.launching import tune_together
from pipeline.modeling.parallel.ranks import Ranks, join, leave, ranks
from pipeline.modeling.parallel.relay import JOB, TUNED, RelayTracker, Sender, as_error, receive
from pipeline.modeling.parallel.sharding import keep_whole, layers, put_together, shard, whole
from pipeline.params.train import MachineParams
from pipeline.ports import silent

RESULT = Tuned(
    steps=3,
    kept_step=2,
    train_loss=0.1 + 0.2,
    eval_loss=None,
    train_rows=5,
    trainable_parameters=7,
    counts={"train": {"read": 5}},
    measures={"eval_accuracy": 1 / 3},
    alarms=("the loss on the eval split rises",),
    machine={"micro_rows": "5"},
    hours=0.5,
)
SAYS = """
import json, os, signal, sys, time
rank, order = int(sys.argv[2]), json.loads(sys.stdin.readline())
def say(*what):
    os.write(1, json.dumps(what).encode() + b"\\n")
"""


@pytest.fixture
def job(tiny_base: Path, tmp_path: Path) -> Job:
    made = new_job(Objective.SFT, tiny_base, tmp_path)
    return dataclasses.replace(made, machine=MachineParams(processes=2), old=frozenset({"part.parquet"}), max_hours=1.5)


@pytest.fixture(autouse=True)
def _nobody_left(monkeypatch: pytest.MonkeyPatch, no_child_left: None) -> None:
    monkeypatch.setattr(launching, "GRACE", 0.3)


def workers(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    monkeypatch.setattr(launching, "_START", SAYS + body)


def test_a_job_arrives_as_it_was_sent(job: Job) -> None:
    assert JOB.validate_json(json.dumps(JOB.dump_python(job, mode="json"))) == job
    assert TUNED.validate_json(json.dumps(TUNED.dump_python(RESULT, mode="json"))) == RESULT


def test_what_the_first_says_is_passed_on(
    job: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    result = json.dumps(TUNED.dump_python(RESULT, mode="json"))
    workers(
        monkeypatch,
        f"""
if rank == 0:
    os.write(1, b"printed below Python\\n")
    say("progress", "training", 1, 3)
    say("log_metrics", {{"loss": 0.1}}, 1)
    say("log", "pipeline.modeling.loop.loop", 30, "not resuming from x")
    assert order["threads"] >= 1 and order["job"]["stage"]["objective"] == "sft" and "RANK" not in os.environ
    say("result", json.loads('''{result}'''))
""",
    )
    monkeypatch.setenv("RANK", "3")
    tracker, seen = Remembering(), []

    found = tune_together(job, tracker=tracker, progress=lambda *what: seen.append(what))

    assert found == RESULT
    assert seen == [("starting 2 processes", 0, 0), ("training", 1, 3)]
    assert tracker.metrics == [(1, {"loss": 0.1})]
    assert ("pipeline.modeling.loop.loop", logging.WARNING, "not resuming from x") in caplog.record_tuples
    assert "printed below Python" in capfd.readouterr().err


def test_one_that_dies_ends_the_others_and_is_named_though_they_complain_first(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    workers(
        monkeypatch,
        """
if rank == 1:
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
say("failed", "Broken", "RuntimeError: connection closed by peer", None, None, "Traceback …")
time.sleep(600)
""",
    )
    with pytest.raises(Broken, match="process 1 of the training ended by SIGKILL") as died:
        tune_together(job, tracker=Remembering(), progress=silent)
    assert "lower train.batch_size" in str(died.value.fix)


@pytest.mark.parametrize("kind", [Misuse, TrainingDiverged])
def test_an_error_of_a_worker_is_raised_as_its_own_kind(
    job: Job, monkeypatch: pytest.MonkeyPatch, kind: type[Misuse | TrainingDiverged]
) -> None:
    workers(
        monkeypatch,
        f"""
if rank == 1:
    say("failed", "{kind.__name__}", "what", "where", "fix", None)
    sys.exit(2)
time.sleep(600)
""",
    )
    with pytest.raises(kind, match="what") as raised:
        tune_together(job, tracker=Remembering(), progress=silent)
    assert (raised.value.where, raised.value.fix) == ("where", "fix")


def test_sigterm_before_anyone_can_make_a_checkpoint_is_no_damage(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    workers(monkeypatch, "say('progress', 'loading the base model', 0, 0)\ntime.sleep(600)")

    def stop(what: str, *_: int) -> None:
        if what == "loading the base model":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TryLater, match="stopped by SIGTERM"):
        tune_together(job, tracker=Remembering(), progress=stop)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_workers_that_say_nothing_are_no_result(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    workers(monkeypatch, "")
    with pytest.raises(Broken, match="without a result"):
        tune_together(job, tracker=Remembering(), progress=silent)


def test_more_processes_than_gpus_are_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(Misuse, match="2 processes need a GPU each, and this machine has 1"):
        tune_together(job, tracker=Remembering(), progress=silent)


def test_a_worker_dies_with_its_parent(tmp_path: Path) -> None:
    start = (
        "import sys, time; sys.path[:] = sys.argv[1:]\n"
        "from pipeline.modeling.parallel import worker\n"
        "def tune(*_): sys.stderr.write('at it\\n'); sys.stderr.flush(); time.sleep(600)\n"
        "worker._tune = tune\n"
        "worker.serve(1, 2)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", start, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"{}\n")
    process.stdin.flush()
    assert process.stderr.readline() == b"at it\n"
    process.stdin.close()  # as the kernel does when the parent is killed
    assert process.wait(timeout=60) == 4
    process.stdout.close()  # type: ignore[union-attr]
    process.stderr.close()


def test_messages_arrive_at_the_tracker_and_only_the_first_speaks(tmp_path: Path) -> None:
    said = tmp_path / "said"
    tracker = Remembering()
    with said.open("wb") as pipe:
        relayed = RelayTracker(Sender(pipe, speaks=True), "run-1")
        relayed.log_params({"rank": 4})
        relayed.set_tags({"a": "b"})
        relayed.log_dataset("train", "0" * 64, source="train", rows=3, context="train")
        Sender(pipe, speaks=False).progress("training", 1, 2)
        Sender(pipe, speaks=False).failure(ValueError("odd"))
    *lines, last = said.read_bytes().splitlines()

    assert [receive(line, tracker, silent) for line in lines] == [None] * 3
    assert (tracker.params, tracker.tags, tracker.datasets) == ({"rank": 4}, {"a": "b"}, [("train", "0" * 64, 3)])
    kept = receive(last, tracker, silent)
    assert kept is not None
    assert str(as_error(kept[1:], 1)) == "ValueError: odd"


def test_shares_of_a_step_are_all_of_it_and_alike_in_length() -> None:
    by_length = [40, 30, 21, 20, 11, 10, 1]
    shares = [Ranks(rank, 3).share(by_length) for rank in range(3)]
    assert shares == [[40, 20, 1], [30, 11], [21, 10]]
    assert Ranks(2, 3).share([7]) == []


def test_spread_weights_are_put_together_for_checkpoints(tmp_path: Path) -> None:
    """A group of one process: what is spread over more is tested by training."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def fresh() -> Any:
        torch.manual_seed(3)
        return LlamaForCausalLM(
            LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
        )

    model, plain = fresh(), fresh()
    ids = torch.arange(12).view(2, 6)
    join(0, 1, tmp_path / "meeting")
    try:
        assert (ranks().first, ranks().count, len(layers(model))) == (True, 1, 2)
        shard(model)
        optimizers = []
        for each in (model, plain):
            optimizer = torch.optim.AdamW(each.parameters(), lr=0.1)
            if each is model:
                keep_whole(optimizer)
            each(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizers.append(optimizer)
        mine, theirs = (optimizer.state_dict() for optimizer in optimizers)
        for number, state in theirs["state"].items():
            assert torch.equal(mine["state"][number]["exp_avg"], state["exp_avg"])
        optimizers[0].load_state_dict(theirs)
        assert torch.equal(whole(optimizers[0].state_dict())["state"][0]["exp_avg"], theirs["state"][0]["exp_avg"])
        again = put_together(model, fresh)
        for weight, other in zip(again.parameters(), plain.parameters(), strict=True):
            assert torch.equal(weight, other)
    finally:
        leave()
