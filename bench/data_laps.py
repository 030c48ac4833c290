"""Stages of a measured process: it reports each as a line of JSON, and whoever started it watches its memory meanwhile."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

_EVERY = 0.2


class Laps:
    """Reports the seconds, by the clock and by all processors, since the lap before; `facts` are passed on."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._used = _cpu()

    def lap(self, stage: str, **facts: Any) -> None:
        seconds, cpu = time.perf_counter() - self._started, _cpu() - self._used
        print(json.dumps({"stage": stage, "seconds": seconds, "cpu": cpu, **facts}), flush=True)
        self._started, self._used = time.perf_counter(), _cpu()


def measure(script: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Run a script that reports laps; by stage its facts, and `peak`: the most MB that it and its children held together.

    Memory is proportional set size: what processes share is counted once, among them.
    """
    process = subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True)
    peaks: list[float] = [0.0]
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peaks, done))
    watcher.start()
    stages: dict[str, dict[str, Any]] = {}
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"stage"'):
                found = json.loads(line)
                stages[found.pop("stage")] = {**found, "peak": peaks[-1]}
                peaks.append(0.0)
        if process.wait():
            raise SystemExit(f"{script.name} {' '.join(arguments)} ended with code {process.returncode}")
    finally:
        process.kill()
        done.set()
        watcher.join()
    return stages


def _watch(pid: int, peaks: list[float], done: threading.Event) -> None:
    while not done.wait(_EVERY):
        with suppress(psutil.Error):
            tree = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
            peaks[-1] = max(peaks[-1], sum(_held(one) for one in tree) / 1e6)


def _held(pid: int) -> int:
    with suppress(OSError, StopIteration), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return 1024 * int(next(line for line in file if line.startswith("Pss:")).split()[1])
    return 0


def _cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
