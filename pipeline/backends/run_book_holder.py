"""Who holds a lease: a process, named so that another one on the same machine can tell for certain whether it is still there.

Only processes that see the same process ids, since the same start of the machine, can tell; to all others a holder is far away,
and only its heartbeat says that it lives. Nothing is written here.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from typing import Self

import psutil

from pipeline.domain.record import Value

_ENDS_WITHIN = 10.0


class Holder(Value):
    """place: the start of a machine and the room of process ids in it. created: ticks from that start until the process began,
    which no clock that is set can change."""

    host: str
    place: str
    pid: int
    created: str

    @classmethod
    def here(cls) -> Self:
        """This process."""
        return cls(host=socket.gethostname(), place=_place(), pid=os.getpid(), created=_created(os.getpid()) or "")

    @property
    def near(self) -> bool:
        """Whether this process can see it."""
        return bool(self.place) and self.place == _place()

    @property
    def gone(self) -> bool:
        """True only when it is certain that the process has ended. Its number may be another's by now."""
        return self.near and _created(self.pid) != self.created

    @property
    def stopped(self) -> bool:
        """Whether it is known to stand still: it is here, and a signal has stopped it."""
        return self.near and not self.gone and _state(self.pid) in "Tt"

    def end(self) -> bool:
        """Kill it and all that it started, if it is here: what a stopped process would do to files when it wakes, no fence can
        refuse. True when nothing of it is left here."""
        if not self.near or self.gone:
            return True
        try:
            process = psutil.Process(self.pid)
            family = [*process.children(recursive=True), process]
            if self.gone:
                return True
            for one in family:
                one.kill()
            return not psutil.wait_procs(family, timeout=_ENDS_WITHIN)[1]
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@cache
def _place() -> str:
    """Empty where a machine does not say, so that nobody is near."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _fields(pid: int) -> list[str]:
    """Of /proc/PID/stat, what comes after the name, which may hold anything: the state first, the start as the twentieth."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _created(pid: int) -> str | None:
    """When a process began; None when it has ended, or has only not been waited for."""
    fields = _fields(pid)
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else None


def _state(pid: int) -> str:
    return (_fields(pid) or ["X"])[0]
