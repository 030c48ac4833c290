"""Compressed streams, gzip and zstd, as streams of bytes that can be read in pieces and begun again. Damage is an EOFError.

What a stream says once unpacked is for others; how much of it they read is bounded by them (a line, a member of an archive).
Memory is bounded here: zstd streams whose window is beyond 128 MiB are refused by the library, as their format advises.
"""

from __future__ import annotations

import gzip
import io
from typing import Any, BinaryIO

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"

_BUFFER = 1 << 20
_SMALL = 1 << 14


def compression_of(name: str) -> str | None:
    """The compression that a file's name tells: gzip, zstd or None."""
    lower = name.lower()
    return "gzip" if lower.endswith((".gz", ".tgz")) else "zstd" if lower.endswith(".zst") else None


def compression_by(start: bytes) -> str | None:
    """The compression that a file's first bytes tell."""
    return "gzip" if start.startswith(GZIP) else "zstd" if start.startswith(ZSTD) else None


def unpacked(raw: BinaryIO, name: str) -> BinaryIO:
    """The unpacked bytes of `raw`, a seekable stream that is compressed as its name tells. Does not close `raw`."""
    packed: Any = gzip.GzipFile(fileobj=raw, mode="rb") if compression_of(name) == "gzip" else _Zstd(raw)
    return io.BufferedReader(packed, _BUFFER)


class _Zstd(io.RawIOBase):
    """Arrow's zstd reader as Python's streams are. Unlike zstandard's, it tells a stream that was cut off from one that ended."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._start()

    def _start(self) -> None:
        import pyarrow as pa

        self._at = 0
        self._raw.seek(0)
        self._unpacked = pa.CompressedInputStream(pa.PythonFile(_Unclosed(self._raw), mode="r"), "zstd")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset, whence = offset + self._at, io.SEEK_SET
        if whence != io.SEEK_SET or offset not in (0, self._at):
            raise io.UnsupportedOperation("a zstd stream can only be begun again")
        if offset != self._at:
            self._start()
        return self._at

    def readinto(self, buffer: Any) -> int:
        try:
            # In small pieces: what Arrow unpacked of a piece is lost when the stream breaks within it.
            piece = self._unpacked.read(min(len(buffer), _SMALL))
        except OSError as error:
            if error.errno is not None:
                raise
            raise EOFError(str(error).splitlines()[0][:200]) from None
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


class _Unclosed:
    """A stream that does not close what it reads from: Arrow closes its input when it is done or forgotten."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(size)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True
