"""The life of one process of a training: take the job from the pipe, meet the others, tune, tell the result.

What it does in between is training.tune, the same as in a process alone. It ends when the pipe that it was started with ends, so
that nobody is left behind by a killed parent.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from pipeline.errors import TunelineError
from pipeline.modeling.parallel.relay import JOB, RESULT, TUNED, RelayLog, RelayTracker, Sender


def serve(rank: int, count: int) -> None:
    """Be process `rank` of `count`. The first line of standard input says what to do (see launching.py), its end to die."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the parent, which ends us
    sender = Sender(os.fdopen(os.dup(1), "wb"), speaks=rank == 0)
    os.dup2(2, 1)  # what anyone prints must not come between the messages
    orders = sys.stdin.buffer
    said = orders.readline()
    if not said:
        return
    threading.Thread(target=_watch, args=(orders.fileno(),), daemon=True).start()
    try:
        _tune(rank, count, said, sender)
    except BaseException as error:
        sender.failure(error)
        code = error.exit_code if isinstance(error, TunelineError) else 4
        # No clean-up: it could wait for processes that are no longer there.
        os._exit(code)


def _tune(rank: int, count: int, said: bytes, sender: Sender) -> None:
    order = json.loads(said)
    logging.getLogger().addHandler(RelayLog(sender))
    logging.getLogger().setLevel(order["log_level"])
    job = JOB.validate_json(json.dumps(order["job"]))

    import torch
    import transformers

    torch.set_num_threads(order["threads"])
    transformers.logging.set_verbosity_error()  # it would say that the processes are to be left to it
    from pipeline.modeling.parallel.ranks import join, leave
    from pipeline.modeling.training import tune

    join(rank, count, Path(order["meeting"]))
    # What a run was sent is noted in a file by its id: the others, who send nothing, note it elsewhere.
    run_id = order["run_id"] if rank == 0 else f"{order['run_id']}, process {rank}"
    tuned = tune(job, tracker=RelayTracker(sender, run_id), progress=sender.progress)
    leave()
    sender.send(RESULT, TUNED.dump_python(tuned, mode="json"))


def _watch(pipe: int) -> None:
    """Die with the parent: the pipe from it ends when it does, however it died."""
    while os.read(pipe, 1):
        pass
    os._exit(4)
