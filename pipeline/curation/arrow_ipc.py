"""Arrow IPC files and streams (.arrow, .feather), a record batch at a time. Nothing that the file claims is believed unchecked.

Arrow allocates what a message says it needs, and trusts offsets within it. So each message is looked at before Arrow sees it, and
each batch is validated before a row is made of it. The layout is that of Arrow's "IPC format" page: a file is a stream between
two marks.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipeline.curation.lines import Row
from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.tables import ROW_GROUP_CAP, batch_rows, first_line
from pipeline.errors import BadInput

_MAGIC = b"ARROW1\0\0"
_CONTINUES = b"\xff\xff\xff\xff"
_METADATA_CAP = 16 << 20
_ROWS_CAP = 1 << 24
_SLICE = 1024
_RECORD_BATCH, _DICTIONARY = 3, 2


def arrow_rows(stream: BinaryIO, max_bytes: int, where: str) -> Iterator[Row]:
    """Rows of an Arrow IPC file or stream, numbered from 1. Damage ends it with one rejected row.

    Raises BadInput when the schema cannot be read, columns share a name, or a batch unpacks to more than ROW_GROUP_CAP.
    """
    import pyarrow as pa

    try:
        reader = pa.ipc.open_stream(pa.PythonFile(_Messages(stream, where), mode="r"))
        names = reader.schema.names
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        fix = "fetch or write it again"
        raise BadInput(f"this Arrow file is damaged: {first_line(error)}", where=where, fix=fix) from None
    if len(set(names)) != len(names):
        raise BadInput("two columns of this Arrow file share a name", where=where, fix="write it again with distinct names")
    number = 0
    try:
        while (batch := _next_batch(reader)) is not None:
            for start in range(0, batch.num_rows, _SLICE):
                part = batch.slice(start, _SLICE)
                yield from batch_rows(part, number, max_bytes)
                number += part.num_rows
    except (pa.ArrowException, OSError, ValueError, struct.error, MemoryError, RecursionError) as error:
        yield Row(number + 1, Rejected(Code.UNREADABLE, f"damaged from here on: {first_line(error)}"), b"", 0)


def _next_batch(reader: Any) -> Any:
    try:
        batch = reader.read_next_batch()
    except StopIteration:
        return None
    if batch.num_rows > _ROWS_CAP:
        raise ValueError(f"a batch says it has {batch.num_rows} rows")
    batch.validate(full=True)
    return batch


class _Messages(io.RawIOBase):
    """The messages of a stream, each checked as a whole before any of it is given to Arrow."""

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self._stream = stream
        self._where = where
        self._held = memoryview(b"")
        start = stream.read(len(_MAGIC))
        self._pushed = b"" if start == _MAGIC else start

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts = []
        while size and (self._held or self._load()):
            piece, self._held = self._held[:size], self._held[size:]
            parts.append(piece)
            size -= len(piece)
        return b"".join(parts)

    def _load(self) -> bool:
        """Hold the next message; False at the end of the stream, behind which a file has its footer."""
        head = self._take(8)
        if len(head) < 8 or head[:4] != _CONTINUES or head[4:] == b"\0\0\0\0":
            return False
        size = struct.unpack("<i", head[4:])[0]
        if not 0 < size <= _METADATA_CAP:
            raise ValueError(f"a message describes itself in {size} bytes")
        metadata = self._take(size)
        if len(metadata) < size:
            raise ValueError("the file is cut off")
        kind, body_size, compressed = _described(metadata)
        if not 0 <= body_size <= ROW_GROUP_CAP:
            raise self._too_large(body_size)
        body = self._take(body_size)
        if len(body) < body_size:
            raise ValueError("the file is cut off")
        if kind in (_RECORD_BATCH, _DICTIONARY):
            unpacked = sum(_unpacked_size(body, offset, length) for offset, length in compressed)
            if unpacked > ROW_GROUP_CAP:
                raise self._too_large(unpacked)
        self._held = memoryview(head + metadata + body)
        return True

    def _take(self, size: int) -> bytes:
        taken, self._pushed = self._pushed[:size], self._pushed[size:]
        while len(taken) < size and (piece := self._stream.read(min(size - len(taken), 1 << 20))):
            taken += piece
        return taken

    def _too_large(self, size: int) -> BadInput:
        return BadInput(f"a batch of this Arrow file takes {size} bytes", where=self._where, fix="write it with smaller batches")


def _described(metadata: bytes) -> tuple[int, int, list[tuple[int, int]]]:
    """(type of message, size of its body, where compressed buffers lie in it) as a flatbuffer says."""
    message = struct.unpack_from("<I", metadata)[0]
    kind = _scalar(metadata, message, 1, "<B")
    body = _scalar(metadata, message, 3, "<q")
    header = _deeper(metadata, message, 2)
    if kind == _DICTIONARY and header:
        header = _deeper(metadata, header, 1)
    if kind not in (_RECORD_BATCH, _DICTIONARY) or not header or not _deeper(metadata, header, 3):
        return kind, body, []
    vector = _deeper(metadata, header, 2)
    count = struct.unpack_from("<I", metadata, vector)[0] if vector else 0
    return kind, body, [struct.unpack_from("<qq", metadata, vector + 4 + 16 * i) for i in range(count)]


def _field(metadata: bytes, table: int, index: int) -> int:
    """Where field `index` of a flatbuffer's table lies; 0 when it is left out."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if vtable < 0 or 4 + 2 * index >= struct.unpack_from("<H", metadata, vtable)[0]:
        return 0
    offset: int = struct.unpack_from("<H", metadata, vtable + 4 + 2 * index)[0]
    return table + offset if offset else 0


def _scalar(metadata: bytes, table: int, index: int, form: str) -> int:
    at = _field(metadata, table, index)
    return int(struct.unpack_from(form, metadata, at)[0]) if at else 0


def _deeper(metadata: bytes, table: int, index: int) -> int:
    at = _field(metadata, table, index)
    return at + int(struct.unpack_from("<I", metadata, at)[0]) if at else 0


def _unpacked_size(body: bytes, offset: int, length: int) -> int:
    """A compressed buffer begins with its unpacked size, or -1 where it is not compressed after all."""
    if not 0 <= offset <= len(body):
        raise ValueError("a buffer lies outside its message")
    if length < 8:
        return 0
    size: int = struct.unpack_from("<q", body, offset)[0]
    return length if size == -1 else size if size >= 0 else ROW_GROUP_CAP + 1
