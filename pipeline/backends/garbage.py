"""Files that may go, by where they lie: objects of DVC's stores, folders of runs, caches, pages, debris; each with its size.

Nothing is decided about runs and versions here, and nothing outside the state folder and .dvc is ever named. Each removal can be
repeated, and a kill between two leaves nothing but garbage.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.backends.data_reach import DIR, object_path, object_stores, objects
from pipeline.domain.retention import Freed
from pipeline.workspace import Project

PASSING_DAYS = 7.0
"""What belongs to one process alone, and is this old, was left by one that is dead."""
_LOG_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that may go, and how it goes."""

    freed: Freed
    remove: Callable[[], object]


def data_objects(project: Project, *, near: Collection[str], far: Collection[str], since: datetime) -> Iterator[Garbage]:
    """Objects that nothing names, and copies in the cache of what the embedded remote holds whole and nobody needs at hand.

    near: what must lie in the cache; far: what must lie in the remote, or in the cache where that has it not. Objects that are
    younger than `since` stay: a stage of a killed run may have made them.
    """
    cache, remote = object_stores(project)
    for md5, path in objects(cache):
        if md5 in near or _time(path) >= since.timestamp():
            continue
        if md5 not in far:
            yield Garbage(Freed(sort="data in the cache", what=md5, bytes=_size(path)), _unlinking(path))
        elif _whole(object_path(remote, md5), md5):
            yield Garbage(
                Freed(sort="data in the cache", what=f"{md5}, which the remote has", bytes=_size(path)), _unlinking(path)
            )
    for md5, path in objects(remote):
        if md5 not in near and md5 not in far and _time(path) < since.timestamp():
            yield Garbage(Freed(sort="data in the remote", what=md5, bytes=_size(path)), _unlinking(path))


def old_entries(sort: str, folder: Path, since: datetime) -> Iterator[Garbage]:
    """What lies in a folder and has not been written to since an instant, an entry at a time. Links and locks are left alone."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.is_symlink() and not path.name.startswith(".") and newest(path) < since.timestamp():
            yield Garbage(Freed(sort=sort, what=path.name, bytes=tree_bytes(path)), _removing(path))


def long_log(path: Path) -> Iterator[Garbage]:
    """The log of a server that runs for months: emptied in place, since its process goes on appending."""
    if path.is_file() and path.stat().st_size > _LOG_BYTES:
        yield Garbage(Freed(sort="log", what=path.name, bytes=path.stat().st_size), lambda: os.truncate(path, 0))


def file(sort: str, path: Path) -> Garbage:
    return Garbage(Freed(sort=sort, what=path.name, bytes=_size(path)), _unlinking(path))


def newest(path: Path) -> float:
    """When anything in a file or folder was last written to, in seconds."""
    times = [_time(path)]
    if path.is_dir() and not path.is_symlink():
        times += [_time(inner) for inner in path.rglob("*")]
    return max(times)


def tree_bytes(path: Path) -> int:
    """The room that removing a file or folder gives back: a file that has another name elsewhere gives none."""
    if path.is_file():
        return _size(path) if path.lstat().st_nlink == 1 else 0
    found = 0
    for inner in path.rglob("*"):
        if inner.is_file() and not inner.is_symlink() and inner.lstat().st_nlink == 1:
            found += _size(inner)
    return found


def _time(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _whole(path: Path, md5: str) -> bool:
    """Whether a copy is there and has the bytes that it is named by: the last whole one is never removed."""
    try:
        with path.open("rb") as content:
            found = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False))
    except OSError:
        return False
    return found.hexdigest() == md5.removesuffix(DIR)


def _unlinking(path: Path) -> Callable[[], object]:
    return lambda: path.unlink(missing_ok=True)


def _removing(path: Path) -> Callable[[], object]:
    return lambda: shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
