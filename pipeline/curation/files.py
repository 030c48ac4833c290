"""Finding and opening data files safely: regular files only, nothing followed, nothing half-written, nothing mistaken for data.

What is in a file is for curation/lines.py and curation/tables.py to say. No row is looked at here, and nothing is written.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import BadInput, TryLater
from pipeline.ports import Found as Found

KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
UNREAD = {".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".tsv", ".xlsx", ".xls", ".arrow", ".feather", ".avro", ".pkl"}
"""Data that Tuneline does not read. It is named, rather than passed over, so that nobody thinks it was learned from."""

_LFS = b"version https://git-lfs.github.com/spec/"
_GZIP = b"\x1f\x8b"
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


def find(sources: Sequence[Path], root: Path | None = None) -> list[Found]:
    """The data files that `sources` (files and folders) name, folders walked in sorted order, no file twice.

    Hidden files and names ending in .tmp or .part are passed over (still being written); so are files in folders that are no
    data by their name, such as a licence. Raises BadInput for a missing source, a symlink, FIFO, socket or device wherever it
    lies, and data of a kind that is not read.
    """
    found: dict[Path, Found] = {}
    for source in sources:
        for path, status in _regular_files(source):
            if path in found or (item := _describe(path, status, root, named=path == source)) is None:
                continue
            found[path] = item
    return list(found.values())


def open_checked(found: Found) -> Opened:
    """Open a file without following or blocking on anything, hash it, and unpack it if it is gzip.

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
        unpack = found.compressed and seen.st_size > 0
        stream: BinaryIO = BufferedReader(gzip.GzipFile(fileobj=raw, mode="rb"), _BUFFER) if unpack else raw
        opened = Opened(found, stream, sha256, seen.st_size, raw, seen)
        opened.check_unchanged()
        return opened
    except BaseException:
        raw.close()
        raise


def _regular_files(source: Path) -> Iterator[tuple[Path, os.stat_result]]:
    waiting = [source]
    while waiting:
        path = waiting.pop()
        status = _status(path)
        if stat.S_ISDIR(status.st_mode):
            waiting.extend(reversed(_entries(path)))
        elif stat.S_ISREG(status.st_mode):
            yield path, status
        else:
            raise BadInput(
                f"{_what_it_is(status.st_mode)} lies among the data; only regular files are read",
                where=str(path),
                fix="replace it by a copy of the data, or move it away",
            )


def _status(path: Path) -> os.stat_result:
    try:
        return os.lstat(path)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"this data source cannot be read: {getattr(error, 'strerror', error)}",
            where=str(path),
            fix="create it, or correct ingest.sources in params.yaml",
        ) from None


def _entries(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise BadInput(f"this folder cannot be read: {error.strerror}", where=str(folder), fix="grant read access") from None
    return [folder / name for name in names if not name.startswith(".") and not name.endswith((".tmp", ".part"))]


def _describe(path: Path, status: os.stat_result, root: Path | None, *, named: bool) -> Found | None:
    name = _record_name(path, root)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = suffixes[-1:] == [".gz"]
    suffix = (suffixes[-2:-1] if compressed else suffixes[-1:]) or [""]
    kind = KINDS.get(suffix[0])
    if kind is not None and not (compressed and kind == "parquet"):
        return Found(path, name, kind, compressed, status.st_mtime)
    if _is_lfs_pointer(path):
        raise _lfs_error(path)
    if named or compressed or suffix[0] in UNREAD:
        raise BadInput(
            "this kind of file is not read",
            where=str(path),
            fix="give .jsonl, .json or .csv (each also as .gz) or .parquet, or move it away from the data",
        )
    return None


def _record_name(path: Path, root: Path | None) -> str:
    name = path.name
    if root is not None:
        absolute, base = Path(os.path.abspath(path)), Path(os.path.abspath(root))
        if absolute.is_relative_to(base):
            name = absolute.relative_to(base).as_posix()
    # A file name may hold any bytes; records hold text only.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\0")


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
        raise _lfs_error(found.path)
    if found.compressed and size and not start.startswith(_GZIP):
        raise BadInput("this file is named .gz but is not gzip", where=where, fix="fetch it again, or drop .gz from its name")
    if not found.compressed and start.startswith(_GZIP):
        raise BadInput("this file is gzip but is not named so", where=where, fix="add .gz to its name")
    if found.kind == "parquet" and not start.startswith(b"PAR1"):
        raise BadInput("this file is named .parquet but is not Parquet", where=where, fix="fetch or write it again")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) and not found.compressed:
        raise BadInput("this file is UTF-16, not UTF-8", where=where, fix="convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW")


def _is_lfs_pointer(path: Path) -> bool:
    try:
        with os.fdopen(os.open(path, _CAREFULLY), "rb") as file:
            return file.read(len(_LFS)) == _LFS
    except OSError:
        return False


def _lfs_error(path: Path) -> BadInput:
    return BadInput(
        "this is a Git LFS pointer, not the data it stands for", where=str(path), fix="run `git lfs pull` in its repository"
    )


def _changed(found: Found) -> TryLater:
    return TryLater(
        "this file changed while it was read",
        where=found.where,
        fix="let its writer finish; write to a name ending in .part and rename when done",
    )


def _marks(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _what_it_is(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a symlink"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a device")
