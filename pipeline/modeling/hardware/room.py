"""How much memory this process may still take, and what bounds it: the machine, a container, a limit, or a GPU.

Read from the kernel each time; nothing is kept. What is to be done with it is fitting.py's.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_NO_LIMIT = 1 << 60
LIMITS = ("limit of address space", "limit of data")
"""Bounds of what a process maps, whether it is used or not."""
_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


@dataclass(frozen=True, slots=True)
class Room:
    """bytes: what may still be taken. bound: what bounds it, for people. gpu: whether it is a GPU's memory."""

    bytes: int
    bound: str
    gpu: bool = False


def room() -> Room:
    """The GPU's free memory where models are put on one, else that of the host (see host_room)."""
    if has_gpu():
        import torch

        free, _ = torch.cuda.mem_get_info(0)
        # What torch holds without using it can be used as well.
        held = torch.cuda.memory_reserved(0) - torch.cuda.memory_allocated(0)
        return Room(free + held, "GPU memory", gpu=True)
    return host_room()


def has_gpu() -> bool:
    """Whether models are put on a GPU; torch is asked only where there is a driver."""
    if not any(Path(name).exists() for name in _GPU_FILES):
        return False
    import torch

    return bool(torch.cuda.is_available())


def host_room(proc: Path = Path("/proc/self"), cgroups: Path = Path("/sys/fs/cgroup")) -> Room:
    """The least of: memory available on the machine, room in each control group around this process, and below the limits of
    address space and data."""
    found = [Room(psutil.virtual_memory().available, "memory available")]
    found += [Room(free, "control group") for free in _group_rooms(proc, cgroups)]
    for limit, field, name in ((resource.RLIMIT_AS, "VmSize", LIMITS[0]), (resource.RLIMIT_DATA, "VmData", LIMITS[1])):
        soft, _ = resource.getrlimit(limit)
        if 0 <= soft < _NO_LIMIT:
            found.append(Room(max(soft - status(field, proc), 0), name))
    return min(found, key=lambda one: one.bytes)


def status(field: str, proc: Path = Path("/proc/self")) -> int:
    """A memory field of the kernel's status of this process (VmRSS, VmHWM, VmSize, …) in bytes; 0 where it has none."""
    try:
        lines = (proc / "status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return psutil.Process().memory_info().rss if field in ("VmRSS", "VmHWM") else 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def _group_rooms(proc: Path, cgroups: Path) -> Iterator[int]:
    """Free bytes of each control group that has a limit, the process's own and those around it; version 2, then 1."""
    try:
        lines = (proc / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            yield from _walk(cgroups, name, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
            yield from _walk(cgroups / "memory", name, limit, used, "total_inactive_file")


def _walk(root: Path, name: str, limit: str, used: str, reclaimed: str) -> Iterator[int]:
    folder = root / name.strip("/")
    for group in (folder, *folder.parents):
        try:
            most, now = (group / limit).read_text().strip(), int((group / used).read_text())
            given_back = (group / "memory.stat").read_text().split()
        except (OSError, ValueError):
            most, now, given_back = "max", 0, []
        if most.isdigit() and int(most) < _NO_LIMIT:
            pages = int(given_back[given_back.index(reclaimed) + 1]) if reclaimed in given_back else 0
            yield max(int(most) - now + pages, 0)  # cached pages of files are given back when they are wanted
        if group == root:
            return
