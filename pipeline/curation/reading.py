"""The one way from an opened file to its rows, whatever its kind. Damage inside gzip ends a file with one rejected row."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

from pipeline.curation.files import Opened
from pipeline.curation.lines import Row, json_document, json_lines
from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.tables import csv_rows, parquet_rows
from pipeline.errors import BadInput
from pipeline.params import IngestParams


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
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        problem = f"the gzip stream is cut off or damaged from here on: {error}"
        yield Row(line + 1, Rejected(Code.UNREADABLE, problem), b"", 0)
    except OSError as error:
        raise BadInput(
            f"this file cannot be read: {error.strerror or error}", where=where, fix="check the disk it is on"
        ) from error


def _rows(opened: Opened, params: IngestParams, where: str) -> Iterator[Row]:
    stream, kind = opened.stream, opened.found.kind
    if kind == "jsonl":
        return json_lines(stream, params.max_line_bytes, params.max_depth)
    if kind == "json":
        return json_document(stream, params.max_line_bytes, params.max_depth, where)
    if kind == "csv":
        return csv_rows(stream, params.max_line_bytes, where)
    return parquet_rows(stream, params.max_line_bytes, where)
