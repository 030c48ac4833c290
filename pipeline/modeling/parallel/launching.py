"""Starts the processes of one training, relays what the first says, and leaves none of them behind.

They are fresh interpreters of this machine that meet by a file, not by a port, and talk over the loopback interface. `torchrun`
is not used: it is for many machines, its rendezvous listens on every interface, and it kills workers thirty seconds after
SIGTERM, in which a large checkpoint is not written. What the processes do is worker.py's.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pipeline.errors import Broken, Misuse, TryLater, TunelineError
from pipeline.modeling.job import Job, Tuned
from pipeline.modeling.parallel.relay import FAILED, JOB, RESULT, TUNED, as_error, receive
from pipeline.ports import Progress, Tracker

log = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds that the others have to end by themselves once one has failed: what they say may be the cause."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from pipeline.modeling.parallel.worker import serve; serve(int(sys.argv[2]), int(sys.argv[3]))"
)
_APART = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""By these libraries would take the gradients' sum and each step's rows into their own hands (accelerate: DDP)."""

FORESEEN, DIED, UNFORESEEN = range(3)
"""Failures from the likest to be the cause of the others to the least: when a process dies, the others fail in talking to it."""


def tune_together(job: Job, *, tracker: Tracker, progress: Progress) -> Tuned:
    """Run training.tune(job) in `job.machine.processes` processes, and give what the first one came to.

    Progress, curves and log records of the first are passed on as they come; SIGTERM is handed to all, which stop together after
    a checkpoint. The error of the process that failed first is raised as if it had happened here; the others are ended.
    """
    count = job.machine.processes
    _check_room(count)
    progress(f"starting {count} processes", 0, 0)
    with tempfile.TemporaryDirectory(prefix="tuneline-") as folder:
        order = {
            "job": JOB.dump_python(job, mode="json"),
            "meeting": str(Path(folder) / "meeting"),
            "run_id": tracker.run_id,
            "threads": _threads(count),
            "log_level": logging.getLogger().getEffectiveLevel(),
        }
        workers: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(count):
                workers.append(_start(rank, count, order))
            with _handing_on_sigterm(workers) as stop:
                said = _listen(workers, stop, tracker, progress)
        finally:
            _end(workers)
    return TUNED.validate_json(json.dumps(said))


def _start(rank: int, count: int, order: dict[str, Any]) -> subprocess.Popen[bytes]:
    paths = json.dumps([path for path in sys.path if isinstance(path, str)])
    command = [sys.executable, "-c", _START, paths, str(rank), str(count)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(rank, order["threads"]))
    with contextlib.suppress(BrokenPipeError):  # it has died already, which its end of the other pipe tells
        _pipe(worker.stdin).write(json.dumps(order).encode("ascii") + b"\n")
        _pipe(worker.stdin).flush()
    return worker


def _environment(rank: int, threads: int) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name not in _APART}
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    found |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": str(threads)}
    if torch.cuda.is_available():
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        found["CUDA_VISIBLE_DEVICES"] = seen.split(",")[rank] if seen else str(rank)  # each sees its own as the only one
    return found


def _check_room(count: int) -> None:
    if torch.cuda.is_available() and count > torch.cuda.device_count():
        raise Misuse(
            f"{count} processes need a GPU each, and this machine has {torch.cuda.device_count()}",
            where="train.machine.processes",
            fix="ask for no more processes than there are GPUs",
        )


def _threads(count: int) -> int:
    """The threads that this process would use, shared out."""
    return max(1, int(torch.get_num_threads()) // count)


def _listen(workers: list[subprocess.Popen[bytes]], stop: threading.Event, tracker: Tracker, progress: Progress) -> Any:
    """Pass on what workers say until all have ended; the result. When some fail, the error that is likest to be the cause."""
    result: Any = None
    failures: list[tuple[int, TunelineError]] = []
    told: set[int] = set()
    deadline: float | None = None
    with selectors.DefaultSelector() as selector:
        rests = dict.fromkeys(range(len(workers)), b"")
        for number, worker in enumerate(workers):
            selector.register(_pipe(worker.stdout), selectors.EVENT_READ, number)
        while rests and (deadline is None or time.monotonic() < deadline):
            for key, _ in selector.select(timeout=None if deadline is None else max(0.0, deadline - time.monotonic())):
                rank: int = key.data
                content = os.read(key.fd, 1 << 16)
                *lines, rests[rank] = (rests[rank] + content).split(b"\n")
                for line in lines:
                    match receive(line, tracker, progress):
                        case [what, found] if what == RESULT:
                            result = found
                        case [what, *said] if what == FAILED:
                            failures.append((UNFORESEEN if said[-1] else FORESEEN, as_error(said, rank)))
                            told.add(rank)
                if not content:
                    selector.unregister(key.fileobj)
                    del rests[rank]
                    code = workers[rank].wait()
                    if code and rank not in told:
                        failures.append((DIED, _died(rank, code, stopped=stop.is_set())))
            if failures and deadline is None:
                deadline = time.monotonic() + GRACE
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]
    if result is None:
        raise Broken("the processes of the training ended without a result")
    return result


def _died(rank: int, code: int, *, stopped: bool) -> TunelineError:
    again = "run again, and it goes on from the last checkpoint"
    if stopped and code == -signal.SIGTERM:
        return TryLater("stopped by SIGTERM before the training could make a checkpoint", fix=again)
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
    if code == -signal.SIGKILL:
        again += "; if it was for want of memory, lower train.batch_size or train.machine.processes first"
    return Broken(f"process {rank} of the training ended {how}, and the others were ended", fix=again)


@contextlib.contextmanager
def _handing_on_sigterm(workers: list[subprocess.Popen[bytes]]) -> Iterator[threading.Event]:
    """While it lasts SIGTERM goes to the workers; gives what is set once it came."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals; elsewhere the last regular checkpoint must do
        return

    def hand_on(*_: Any) -> None:
        stop.set()
        for worker in workers:
            worker.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            with contextlib.suppress(OSError):
                _pipe(pipe).close()


def _pipe(pipe: Any) -> BinaryIO:
    assert pipe is not None
    return pipe  # type: ignore[no-any-return]
