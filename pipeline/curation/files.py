"""Opening data files safely: regular files only, nothing followed, nothing half-written, nothing mistaken for data.

Which files there are is curation/finding.py's to say, and what is in them curation/reading.py's. No row is looked at here, and
nothing is written.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import BinaryIO

from pipeline.curation.unpacking import compression_by, compression_of, unpacked
from pipeline.errors import BadInput, TryLater
from pipeline.ports import Found as Found

_LFS = b"version https://git-lfs.github.com/spec/"
_MARKS = {
    "parquet": ((b"PAR1",), "Parquet"),
    "arrow": ((b"ARROW1", b"\xff\xff\xff\xff"), "Arrow IPC"),
    "zip": ((b"PK\x03\x04", b"PK\x05\x06"), "a zip archive"),
}
_BUFFER = 1 << 20
# O_NONBLOCK: a FIFO that took the file's place must not hang us. O_NOFOLLOW: nor may a symlink lead elsewhere.
_CAREFULLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class Opened:
    """An open file whose bytes have been hashed. `stream` is unpacked; `sha256` and `bytes` are of the file itself."""

    found: Found
    stream: BinaryIO
    sha256: str
    bytes: int
    _raw: BufferedReader
    _seen: os.stat_result

    def close(self) -> None:
        self.stream.close()
        self._raw.close()

    def check_unchanged(self) -> None:
        """Raise TryLater when the file was written to, or replaced, since it was opened."""
        try:
            held, named = os.fstat(self._raw.fileno()), os.lstat(self.found.path)
        except OSError:
            raise _changed(self.found) from None
        if _marks(held) != _marks(self._seen) or _marks(named) != _marks(self._seen):
            raise _changed(self.found)


def open_checked(found: Found) -> Opened:
    """Open a file without following or blocking on anything, hash it, and unpack it if it is gzip or zstd.

    Raises BadInput when it is no regular file any more, is a Git LFS pointer, or is not what its name says; TryLater when it
    changes while it is hashed.
    """
    raw = _open(found)
    try:
        seen = os.fstat(raw.fileno())
        start = raw.read(64)
        _check_start(found, start, seen.st_size)
        raw.seek(0)
        sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
        raw.seek(0)
        stream: BinaryIO = unpacked(raw, found.name) if found.compressed and seen.st_size > 0 else raw
        opened = Opened(found, stream, sha256, seen.st_size, raw, seen)
        opened.check_unchanged()
        return opened
    except BaseException:
        raw.close()
        raise


def _open(found: Found) -> BufferedReader:
    try:
        descriptor = os.open(found.path, _CAREFULLY)
    except FileNotFoundError:
        raise _changed(found) from None
    except OSError as error:
        raise BadInput(f"this file cannot be read: {error.strerror}", where=found.where, fix="grant read access") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadInput("this is no regular file", where=found.where, fix="replace it by a copy of the data")
    return BufferedReader(FileIO(descriptor, "rb"), _BUFFER)


def _check_start(found: Found, start: bytes, size: int) -> None:
    where = found.where
    if start.startswith(_LFS):
        raise lfs_error(where)
    named, there = compression_of(found.name) if found.compressed else None, compression_by(start)
    if named and size and there != named:
        ending = ".zst" if named == "zstd" else ".gz"
        raise BadInput(f"this file is named {ending} but is not {named}", where=where, fix="fetch it again, or mend its name")
    if there and not named:
        ending = ".zst" if there == "zstd" else ".gz"
        raise BadInput(f"this file is {there} but is not named so", where=where, fix=f"add {ending} to its name")
    for kind, (marks, what) in _MARKS.items():
        if found.kind == kind and not found.compressed and not start.startswith(marks):
            raise BadInput(f"this file is named {_ending(found)} but is not {what}", where=where, fix="fetch or write it again")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) and not found.compressed:
        raise BadInput("this file is UTF-16, not UTF-8", where=where, fix="convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW")


def _ending(found: Found) -> str:
    return "." + found.name.rsplit(".", 1)[-1][:20]


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file stands for one that Git LFS has not fetched."""
    try:
        with os.fdopen(os.open(path, _CAREFULLY), "rb") as file:
            return file.read(len(_LFS)) == _LFS
    except OSError:
        return False


def lfs_error(where: str) -> BadInput:
    """The refusal of a Git LFS pointer."""
    return BadInput(
        "this is a Git LFS pointer, not the data it stands for", where=where, fix="run `git lfs pull` in its repository"
    )


def _changed(found: Found) -> TryLater:
    return TryLater(
        "this file changed while it was read",
        where=found.where,
        fix="let its writer finish; write to a name ending in .part and rename when done",
    )


def _marks(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
