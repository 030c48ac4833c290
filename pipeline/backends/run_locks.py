"""Who may work in a project: one run of a model at a time, and nobody while room is made.

Locks of the kernel on files, which are free as soon as their process has ended. They hold on one machine; past it the run book's
lease does.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from pipeline.errors import TryLater
from pipeline.workspace import Project

_ALL = ".all"
"""Held in common by whoever works; no model's name begins so."""


@contextmanager
def one_run_at_a_time(project: Project, model: str) -> Iterator[None]:
    """Hold the model's lock, which the kernel frees when the process dies. Raises TryLater when another run holds it, or while
    room is made (nothing_runs)."""
    with _lock_file(project, _ALL) as everyone, _lock_file(project, f"{model}.lock") as lock:
        if not _taken(everyone, fcntl.LOCK_SH):
            raise TryLater("room is being made in this project", fix="wait for tuneline gc to end")
        if not _taken(lock, fcntl.LOCK_EX):
            raise TryLater(f"another run of {model} is under way ({_holder(lock)})", fix="wait for it to end")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def nothing_runs(project: Project) -> Iterator[None]:
    """While this is held, no model's lock is held or can be taken, a new model's neither. Raises TryLater while one is held."""
    with _lock_file(project, _ALL) as everyone:
        if not _taken(everyone, fcntl.LOCK_EX):
            said = " and of ".join(_held(project)) or "a model"
            raise TryLater(f"a run of {said} is under way", where=str(project.locks), fix="wait for it to end")
        yield


def _held(project: Project) -> Iterator[str]:
    for path in sorted(project.locks.glob("*.lock")):
        with path.open("a+") as lock:
            if not _taken(lock, fcntl.LOCK_SH):
                yield f"{path.stem} ({_holder(lock)})"


def _taken(lock: IO[str], how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: IO[str]) -> str:
    lock.seek(0)
    return f"process {lock.read().strip() or 'unknown'}"


def _lock_file(project: Project, name: str) -> IO[str]:
    project.locks.mkdir(mode=0o700, parents=True, exist_ok=True)
    return (project.locks / name).open("a+")
