"""Rows from elsewhere as one file of JSON lines, sorted by their bytes: in whatever order they come, the file is the same.

Memory is bounded: what is beyond it is sorted in parts on disk, and merged. What rows mean is for curation.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from pipeline.backends.sources.staging import write
from pipeline.curation.tables import plain
from pipeline.errors import BadInput

_SORTED_BYTES = 64 << 20
_MOST_PARTS = 128


class StagedRows:
    """Rows on their way into a file of JSON lines in `folder`, of at most `limit` bytes. where: what messages call them."""

    def __init__(self, folder: Path, limit: int, where: str) -> None:
        self.count = 0
        self.where = where
        self._folder = folder
        self._limit = limit
        self._bytes = 0
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._parts: list[Path] = []
        self._made = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one more row. Raises BadInput when they grow beyond the limit."""
        line = _line(row)
        self.count += 1
        self._bytes += len(line)
        self._held_bytes += len(line) + 64
        if self._bytes > self._limit:
            fix = "ask for less, e.g. by a watermark, or raise the limit"
            raise BadInput(f"the rows take more than {self._limit} bytes (ingest.max_staged_bytes)", where=self.where, fix=fix)
        self._held.append(line)
        if self._held_bytes > _SORTED_BYTES:
            self._put_down()

    def merged(self) -> Path:
        """The file of all rows, sorted by their bytes."""
        self._put_down()
        if len(self._parts) > 1:
            self._merge()
        return self._parts[0]

    def _put_down(self) -> None:
        if not self._held:
            return
        with self._next_part() as file:
            for line in sorted(self._held):
                write(file, line)
        self._held, self._held_bytes = [], 0
        if len(self._parts) >= _MOST_PARTS:
            self._merge()

    def _merge(self) -> None:
        """Make one part of all: no more files are ever open than a process may have."""
        parts, self._parts = self._parts, []
        with ExitStack() as stack, self._next_part() as file:
            for line in heapq.merge(*(stack.enter_context(part.open("rb")) for part in parts)):
                write(file, line)
        for part in parts:
            part.unlink()

    def _next_part(self) -> BinaryIO:
        self._made += 1
        part = self._folder / f"part-{self._made:06d}"
        self._parts.append(part)
        return part.open("xb")


def _line(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON. What JSON has no number for (NaN) stays as it is, for the parser of rows to refuse by name."""
    value = {key: plain(item) for key, item in row.items()}
    if not any(isinstance(item, float) and not math.isfinite(item) for item in value.values()):
        try:
            # Copied: what orjson returns lies in a buffer of several kilobytes, and hundreds of thousands of lines are held.
            return bytes(memoryview(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)))
        except TypeError:  # an integer beyond 64 bits, or half of a surrogate pair
            pass
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
