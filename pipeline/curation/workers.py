"""Processes of our own that each hold one callable and answer calls of it, so that all cores work.

Each is a fresh interpreter that imports what the callable needs and no more: nothing is forked, and the caller's main module is
not run again, as multiprocessing would. It ends when its pipe does, so that a killed parent leaves nobody behind. The pickles
that go through the pipes are the two sides' own; what files say is never unpickled. What the callable does is not known here.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO, Self

from pipeline.errors import Broken

WORTH_STARTING = 12 << 20
"""From so many bytes of work on processes are started; with less they would end before they had begun."""

_SIZE = struct.Struct(">Q")
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pipeline.curation.workers import serve; serve()"


class Workers:
    """`count` processes that answer calls of `job`, which must be picklable and is sent to each of them once.

    They start when there is work enough (see `expect`); before that, and with a count of 1, calls are answered on the spot.
    """

    def __init__(self, job: Callable[[Any], Any], count: int) -> None:
        self._job = job
        self._count = count
        self._expected = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None

    def expect(self, size: int) -> None:
        """Work on `size` more bytes is about to be submitted."""
        self._expected += size
        if self._expected >= WORTH_STARTING and self._count > 1 and self._threads is None:
            self._start()

    @property
    def depth(self) -> int:
        """How many answers the caller should let wait before it takes the oldest: nobody is idle, and memory is bounded."""
        return 2 * self._count if self._threads is not None else 0

    def submit(self, item: Any) -> Future[Any]:
        """The job's answer to `item`, or the exception it raised; Broken when the process ended before it answered."""
        if self._threads is not None:
            # What is nested too deep to be sent is worked on here.
            with suppress(RecursionError):
                return self._threads.submit(self._ask, _pickled(item))
        answer: Future[Any] = Future()
        answer.set_result(self._job(item))
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._end()
            self._threads.shutdown(wait=True)

    def _start(self) -> None:
        command = [sys.executable, "-c", _START, json.dumps([path for path in sys.path if isinstance(path, str)])]
        try:
            for _ in range(self._count):
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self._processes.append(process)
                _send(_pipe(process.stdin), _pickled(self._job))
                self._idle.put(process)
        except BaseException:
            self._end()
            raise
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="workers")

    def _ask(self, item: bytes) -> Any:
        process = self._idle.get()
        try:
            _send(_pipe(process.stdin), item)
            done, answer = _receive(_pipe(process.stdout))
        except (OSError, EOFError):
            raise Broken(
                f"a worker process ended with code {process.wait()} before its work was done",
                fix="run again; if it was for want of memory, set TUNELINE_WORKERS to a smaller number",
            ) from None
        finally:
            self._idle.put(process)
        if not done:
            raise answer
        return answer

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    _pipe(pipe).close()


def serve() -> None:
    """The life of a worker: take the job, answer calls until the pipe ends."""
    # An interrupt is for the parent, which ends us. What anyone prints must not come between the answers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with suppress(EOFError, BrokenPipeError):
        job = _receive(calls)
        # Answers are made of very many small objects that all go at once: looking for cycles among them would find none.
        gc.freeze()
        gc.disable()
        while True:
            item = _receive(calls)
            try:
                answer = True, job(item)
            except Exception as error:
                answer = False, error
            _send(answers, _pickled(answer))
            del item, answer
            gc.collect()


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, protocol=5)


def _send(pipe: BinaryIO, content: bytes) -> None:
    pipe.write(_SIZE.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def _receive(pipe: BinaryIO) -> Any:
    [size] = _SIZE.unpack(_exactly(pipe, _SIZE.size))
    return pickle.loads(_exactly(pipe, size))


def _exactly(pipe: BinaryIO, size: int) -> bytes:
    content = pipe.read(size)
    if len(content) != size:
        raise EOFError
    return content


def _pipe(pipe: Any) -> BinaryIO:
    assert pipe is not None
    return pipe  # type: ignore[no-any-return]
