"""The life of one worker of a training that Ray Train started on some machine: tune with the others, tell the driver.

What it does in between is training.tune, the same as in a process alone; the process group is there when it begins. All that is
said goes through the switchboard, an actor beside the driver, and so does the word to stop. A worker that hears nothing from it,
or whose group was replaced by a newer one, ends at once: nobody would know what it writes.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipeline.errors import Misuse, TunelineError
from pipeline.modeling.job import Job
from pipeline.modeling.parallel.alike import difference, environment
from pipeline.modeling.parallel.relay import JOB, RESULT, TUNED, RelayLog, RelayTracker, Sender

LEASE = 30.0
"""Seconds without a word from the board after which a worker is nobody's."""
_ASK_EVERY = 1.0
GO, STOP, LEAVE = "go", "stop", "leave"
"""What the board answers a worker that asks."""
_APART = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "ACCELERATE_TORCH_DEVICE")
"""By these libraries would take the gradients' sum and each step's rows into their own hands."""


class Gone(SystemExit):
    """The switchboard, or this worker's place at it, is no more."""


class BoardPipe:
    """Takes lines as a pipe to the driver would. All but progress waits until the board has it, so that a worker that dies has
    not noted as sent what never arrived."""

    def __init__(self, board: Any, group: str, rank: int) -> None:
        self._board, self._group, self._rank = board, group, rank

    def write(self, line: bytes) -> None:
        import ray

        taken = self._board.say.remote(self._group, self._rank, line)
        if not line.startswith(b'["progress"') and not ray.get(taken):
            raise Gone(4)

    def flush(self) -> None:
        """Nothing is held back."""


def tune_far(order: dict[str, Any]) -> None:
    """Be a worker of a training. order: what ray_gateway.py sends; JSON but for the board.

    An error of ours is told and ends the training; any other is raised, for Ray Train to begin again from the last checkpoint.
    """
    import ray
    from ray.train import get_context

    place, board = get_context(), order["board"]
    rank, count = place.get_world_rank(), place.get_world_size()
    group = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"  # another one each time that Ray Train begins
    ray.get(board.begin.remote(group, rank, count))
    sender = Sender(cast(BinaryIO, BoardPipe(board, group, rank)), speaks=rank == 0)
    threading.Thread(target=_watch, args=(board, group), daemon=True).start()
    try:
        _check_machine(order, place.get_local_world_size())
        _tune(order, rank, sender)
    except Gone:
        os._exit(4)
    except TunelineError as error:
        sender.failure(error)
        threading.Event().wait()  # the driver ends all of us; to return would let the others' sums fail first


def _tune(order: dict[str, Any], rank: int, sender: Sender) -> None:
    logging.getLogger().addHandler(RelayLog(sender))
    logging.getLogger().setLevel(order["log_level"])
    job = JOB.validate_json(json.dumps(order["job"]))
    _check_paths(job)
    for name in _APART:
        os.environ.pop(name, None)

    import torch
    import transformers

    torch.set_num_threads(order["threads"])
    transformers.logging.set_verbosity_error()  # it would say that the processes are to be left to it
    from pipeline.modeling.training import tune

    # What a run was sent is noted in a file by its id: the others, who send nothing, note it elsewhere.
    run_id = order["run_id"] if rank == 0 else f"{order['run_id']}, process {rank}"
    tuned = tune(job, tracker=RelayTracker(sender, run_id), progress=sender.progress)
    sender.send(RESULT, TUNED.dump_python(tuned, mode="json"))


def _watch(board: Any, group: str) -> None:
    """Ask the board what to do, again and again; die when it is gone."""
    import ray

    from pipeline.modeling.loop.stopping import ask_to_stop

    heard = time.monotonic()
    while True:
        time.sleep(_ASK_EVERY)
        try:
            said = ray.get(board.ask.remote(group), timeout=LEASE / 3)
            heard = time.monotonic()
        except Exception:
            if time.monotonic() - heard > LEASE:
                os._exit(4)
            continue
        if said == LEAVE:
            os._exit(4)
        if said == STOP:
            ask_to_stop()


def _check_machine(order: dict[str, Any], beside: int) -> None:
    name = platform.node()
    if (other := difference(order["environment"], environment())) is not None:
        raise Misuse(f"{name} is no machine to train on: it has {other}", where="the Ray cluster", fix=SAME)
    if order["gpus"] and beside > 1:
        fix = "let compute.gpus be all that a machine has, or put fewer workers on it"
        raise Misuse(f"{beside} workers with GPUs are on {name}, and would take the same one", where="params.compute", fix=fix)


SAME = "install the same Tuneline, Python and libraries on every node (one image for all)"


def _check_paths(job: Job) -> None:
    asked: list[Path] = [job.base, *job.train, *job.held, *([job.start] if job.start else []), *job.rewards.values()]
    for path in asked:
        if not path.exists():
            raise Misuse(
                f"{platform.node()} does not see what it is to train on",
                where=str(path),
                fix="mount the project, its state folder and the base at the same place on every node (docs/ray.md)",
            )
