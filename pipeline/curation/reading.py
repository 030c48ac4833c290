"""The one way from an opened file to its rows, whatever its kind. Damage within a file ends it with one rejected row."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from io import BufferedReader
from typing import cast

from pipeline.curation.arrow_ipc import arrow_rows
from pipeline.curation.documents import json_document
from pipeline.curation.files import Opened
from pipeline.curation.intake import Chunk
from pipeline.curation.lines import Row, cut_lines, json_lines
from pipeline.curation.prose import document_row, text_rows
from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.tables import csv_rows, parquet_rows
from pipeline.errors import BadInput
from pipeline.params import IngestParams

_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)
_CHUNK_ROWS, _CHUNK_RAW = 8192, 2 << 20
"""So many rows that are parsed already, or bytes of them, make a chunk; values take several times the memory of their text."""


def read_chunks(opened: Opened, params: IngestParams) -> Iterator[Chunk]:
    """A file in chunks, in its order: JSONL as bytes, to be parsed wherever a chunk is taken in; other kinds as rows.

    Raises what `read_rows` raises.
    """
    source, reading = opened.found.name, opened.found.reading
    if opened.found.kind != "jsonl":
        for rows in _batches(read_rows(opened, params)):
            yield Chunk(source, reading, rows)
        return
    before = 0
    try:
        for part, beyond in cut_lines(cast(BufferedReader, opened.stream), params.max_line_bytes):
            yield Chunk(source, reading, part, before, beyond)
            before += part.count(b"\n") + (not part.endswith(b"\n"))
    except _DAMAGE as error:
        yield Chunk(source, reading, [_damaged(before + 1, error)])
    except OSError as error:
        raise _unreadable(error, opened.found.where) from error


def read_rows(opened: Opened, params: IngestParams) -> Iterator[Row]:
    """Rows of a file in their order. An empty file has none (an empty Parquet file is none: see files.open_checked).

    Raises BadInput when the file as a whole is not of its kind, or the disk cannot read it.
    """
    where = opened.found.where
    line = 0
    try:
        for row in _rows(opened, params, where):
            line = row.line
            yield row
    except _DAMAGE as error:
        yield _damaged(line + 1, error)
    except OSError as error:
        raise _unreadable(error, where) from error


def _rows(opened: Opened, params: IngestParams, where: str) -> Iterator[Row]:
    stream, kind = opened.stream, opened.found.kind
    if kind == "jsonl":
        return json_lines(stream, params.max_line_bytes, params.max_depth)
    if kind == "json":
        return json_document(stream, params.max_line_bytes, params.max_depth, where, opened.found.reading.records)
    if kind == "csv":
        return csv_rows(stream, params.max_line_bytes, where, opened.found.reading.header)
    if kind == "txt":
        return text_rows(stream, opened.found.reading.sample_by, params.max_line_bytes)
    if kind in ("markdown", "html"):
        return document_row(stream, kind, params.max_line_bytes)
    if kind == "arrow":
        return arrow_rows(stream, params.max_line_bytes, where)
    return parquet_rows(stream, params.max_line_bytes, where)


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += row.raw_bytes
        if len(batch) >= _CHUNK_ROWS or size >= _CHUNK_RAW:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _damaged(line: int, error: Exception) -> Row:
    return Row(line, Rejected(Code.UNREADABLE, f"the compressed stream is cut off or damaged from here on: {error}"), b"", 0)


def _unreadable(error: OSError, where: str) -> BadInput:
    return BadInput(f"this file cannot be read: {error.strerror or error}", where=where, fix="check the disk it is on")
