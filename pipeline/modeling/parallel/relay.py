"""What goes between a process of a training and the one that started it: the job one way, lines of JSON the other.

A worker stands in for the tracker and the progress of whoever started it, so that the training itself knows no difference. Here
are the messages and their two ends; processes are launching.py's and worker.py's.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter

from pipeline import errors
from pipeline.errors import Broken, TunelineError
from pipeline.modeling.job import Job, Tuned
from pipeline.ports import Progress, Tracker

log = logging.getLogger(__name__)

JOB: TypeAdapter[Job] = TypeAdapter(Job)
TUNED: TypeAdapter[Tuned] = TypeAdapter(Tuned)
FAILED = "failed"
RESULT = "result"


class Sender:
    """A worker's end: each message is one line, whole, whichever thread sends it. speaks: whether it says more than what it
    failed of, as the first does for all."""

    def __init__(self, pipe: BinaryIO, *, speaks: bool) -> None:
        self._pipe = pipe
        self._speaks = speaks
        self._lock = threading.Lock()

    def send(self, what: str, *values: Any) -> None:
        if not self._speaks and what != FAILED:
            return
        line = json.dumps([what, *values]).encode("ascii") + b"\n"
        with self._lock:
            self._pipe.write(line)
            self._pipe.flush()

    def progress(self, what: str, done: int, total: int) -> None:
        self.send("progress", what, done, total)

    def failure(self, error: BaseException) -> None:
        """Say what ended this worker."""
        self.send(*failure(error))


def failure(error: BaseException) -> list[Any]:
    """The message of an error: those of ours as they are, others with the lines that they came by."""
    if isinstance(error, TunelineError):
        return [FAILED, type(error).__name__, error.what, error.where, error.fix, None]
    lines = "".join(traceback.format_exception(error))
    return [FAILED, Broken.__name__, f"{type(error).__name__}: {error}", None, None, lines]


class RelayTracker:
    """The Tracker of a worker: all that it is told goes to the one of the process that started it."""

    def __init__(self, sender: Sender, run_id: str) -> None:
        self._sender = sender
        self._run_id = run_id

    @property
    def run_id(self) -> str:
        return self._run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._sender.send("log_params", dict(params))

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        self._sender.send("log_metrics", dict(metrics), step)

    def log_dataset(self, name: str, digest: str, *, source: str, rows: int, context: str) -> None:
        self._sender.send("log_dataset", name, digest, source, rows, context)

    def log_file(self, path: Path, folder: str = "") -> None:
        self._sender.send("log_file", str(path), folder)

    def log_folder(self, path: Path, folder: str) -> None:
        self._sender.send("log_folder", str(path), folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._sender.send("set_tags", dict(tags))


class RelayLog(logging.Handler):
    """Hands a worker's log records to the log of the process that started it."""

    def __init__(self, sender: Sender) -> None:
        super().__init__()
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._sender.send("log", record.name, record.levelno, record.getMessage())
        except (OSError, ValueError):
            self.handleError(record)


def receive(line: bytes, tracker: Tracker, progress: Progress) -> list[Any] | None:
    """Act on one line of a worker; `result` and `failed` are given back for the caller to keep."""
    try:
        what, *values = json.loads(line)
    except ValueError:
        sys.stderr.write(line.decode("utf-8", "replace"))  # some library printed below Python
        return None
    match what, values:
        case "progress", [text, done, total]:
            progress(text, done, total)
        case "log", [name, level, message]:
            logging.getLogger(name).log(level, "%s", message)
        case "log_params", [params]:
            tracker.log_params(params)
        case "log_metrics", [metrics, step]:
            tracker.log_metrics(metrics, step=step)
        case "log_dataset", [name, digest, source, rows, context]:
            tracker.log_dataset(name, digest, source=source, rows=rows, context=context)
        case "log_file", [path, folder]:
            tracker.log_file(Path(path), folder)
        case "log_folder", [path, folder]:
            tracker.log_folder(Path(path), folder)
        case "set_tags", [tags]:
            tracker.set_tags(tags)
        case _:
            return [what, *values]
    return None


def as_error(said: list[Any], rank: int) -> TunelineError:
    """The error that a worker's `failed` line tells of, of the same kind; Broken for what was none of ours."""
    name, what, where, fix, lines = said
    kind = getattr(errors, name, Broken)
    if lines is not None:
        log.error("process %d of the training failed:\n%s", rank, lines)
    return kind(what, where=where, fix=fix) if issubclass(kind, TunelineError) else Broken(what, where=where, fix=fix)
