"""A folder for what is unpacked and fetched: private, emptied when its user is done, and by the next one if that was killed.

Whoever holds a folder holds a lock on a file beside it, which the kernel lets go of with the process. Nothing is read here.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import TryLater

_HELD = ".held"


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A fresh folder below `parent`, readable by its owner alone, as long as the block lasts; those of the dead are removed."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(parent / ".lock"):
        _sweep(parent)
        folder = Path(tempfile.mkdtemp(prefix="in-", dir=parent))
        held = folder.with_name(folder.name + _HELD)
        descriptor = os.open(held, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        held.unlink(missing_ok=True)
        os.close(descriptor)


def write(file: BinaryIO, piece: bytes) -> None:
    """Write to a file in staging. Raises TryLater when the disk has no room, which is nothing that is wrong with the data."""
    try:
        file.write(piece)
    except OSError as error:
        fix = "make room, or point TUNELINE_HOME to a larger disk"
        raise TryLater(f"staging cannot be written: {error.strerror}", where=str(Path(file.name).parent), fix=fix) from None


def _sweep(parent: Path) -> None:
    for held in parent.glob(f"in-*{_HELD}"):
        descriptor = os.open(held, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(held.with_name(held.name.removesuffix(_HELD)), ignore_errors=True)
            held.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
    for folder in parent.glob("in-*"):
        # Killed between the two: a folder without its lock is nobody's, since both are made under the lock of `parent`.
        if folder.is_dir() and not folder.with_name(folder.name + _HELD).exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
