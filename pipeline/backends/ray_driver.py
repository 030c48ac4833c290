"""The process that is Ray's driver, seen from the one that starts it: its pipes, its log, its end, what it says of a training.

What it does is ray_gateway.py's. Ray is not imported here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pipeline
from pipeline.errors import Broken, TryLater, TunelineError
from pipeline.modeling.parallel.relay import FAILED, RESULT, as_error, receive
from pipeline.ports import Progress, Tracker

log = logging.getLogger(__name__)

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pipeline.backends.ray_gateway import serve; serve(sys.argv[2])"
)


class Gateway:
    """The driver's process. What it and Ray print goes to a file in `folder`, which stays only when it failed."""

    def __init__(self, mode: str, order: dict[str, Any], token: str, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{mode}-", suffix=".log", dir=folder)
        self.log, self.address = Path(name), str(order["address"])
        apart = ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_NAMESPACE", "RAY_RUNTIME_ENV_HOOK")
        environment = {name: value for name, value in os.environ.items() if name not in apart}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}
        paths = [path for path in sys.path if isinstance(path, str)]
        with os.fdopen(handle, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(paths), mode],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment,
                cwd=Path(str(pipeline.__file__)).parent.parent,  # which Ray puts on its workers' path
            )
        with contextlib.suppress(BrokenPipeError):
            self.orders.write(json.dumps({**order, "log": name}).encode("ascii") + b"\n")
            self.orders.flush()

    @property
    def orders(self) -> BinaryIO:
        return _pipe(self.process.stdin)

    @property
    def answers(self) -> BinaryIO:
        return _pipe(self.process.stdout)

    def stop(self) -> None:
        """Let workers stop after a checkpoint."""
        with contextlib.suppress(OSError, ValueError):
            self.orders.write(b"stop\n")
            self.orders.flush()

    def end(self, *, well: bool = False) -> None:
        """Kill it; Ray then ends what it had started. well: it has nothing to tell, though it did not end by itself."""
        well = self.process.poll() == 0 or well
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                _pipe(pipe).close()
        if well or (self.log.exists() and self.log.stat().st_size == 0):
            self.log.unlink(missing_ok=True)


def listen(gateway: Gateway, stop: threading.Event, tracker: Tracker, progress: Progress) -> Any:
    """Pass on what workers say until the gateway ends; the result. When some fail, the error that is likest to be the cause."""
    result: Any = None
    failures: list[tuple[bool, TunelineError]] = []
    for line in gateway.answers:
        match receive(line, tracker, progress):
            case [what, found] if what == RESULT:
                result = found
            case [what, rank, *said] if what == FAILED:
                failures.append((said[-1] is not None, as_error(said, rank)))
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]
    if result is None:
        if stop.is_set():
            raise TryLater("stopped by SIGTERM before the training could make a checkpoint", fix="run again")
        if (code := gateway.process.wait()) == 0:
            raise Broken("the workers of the training ended without a result", where=str(gateway.log))
        log.error("Ray's driver ended with code %d", code)
        raise wordless(gateway)
    gateway.process.wait()
    return result


def wordless(gateway: Gateway) -> TryLater:
    """What its end means when it did not say why: Ray ends a driver whose node is lost."""
    fix = f"see that the cluster runs, and run again; what its driver printed is in {gateway.log}"
    return TryLater("the connection to the Ray cluster ended without a word", where=gateway.address, fix=fix)


@contextlib.contextmanager
def handing_on_sigterm(gateway: Gateway) -> Iterator[threading.Event]:
    """While it lasts SIGTERM goes to the workers; gives what is set once it came."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals; elsewhere the last regular checkpoint must do
        return

    def hand_on(*_: Any) -> None:
        stop.set()
        gateway.stop()

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _pipe(pipe: Any) -> BinaryIO:
    assert pipe is not None
    return pipe  # type: ignore[no-any-return]
