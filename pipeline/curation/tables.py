"""Streams of bytes into rows of tables: CSV as RFC 4180 defines it, and Parquet a few rows at a time.

A row becomes a dict by column name. Quoting is never guessed at: where CSV could be read in two ways the row is rejected, since
a wrong reading would become a wrong training example. Opening files is curation/files.py's work.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from typing import Any, BinaryIO

import orjson

from pipeline.curation.features import label_names, named
from pipeline.curation.lines import BOM, PIECE, RAW_CAP, SKIP_CAP, Row, too_long
from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.strict_json import has_nul
from pipeline.errors import BadInput

ROW_GROUP_CAP = 1 << 30
"""Row groups of more unpacked bytes are refused, since one must fit in memory."""

_CELL = re.compile(r'(?:"((?:[^"]++|"")*+)"|([^",\r\n]*+))(,|\Z)')
_PARQUET_ROWS = 1024


def csv_rows(stream: BinaryIO, max_bytes: int, where: str, names: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of a CSV stream, numbered by the line they start on. Empty lines are no rows.

    names: of the columns, where the file has no header. Cells are texts; quoted cells may hold line ends.
    Raises BadInput when the header cannot be one.
    """
    header = list(names) or None
    for line, record, length, closed in _records(stream, max_bytes):
        if header is None:
            header = _header(record, length, closed, max_bytes, where)
        elif length > max_bytes and closed:
            yield Row(line, too_long(max_bytes, length), record[:RAW_CAP], length)
        elif not closed:
            problem = f"a quote opened here is never closed; {length} bytes up to the end of the file were not read as rows"
            yield Row(line, Rejected(Code.BAD_CSV, problem), record[:RAW_CAP], length)
        elif record:
            try:
                yield Row(line, _fields(header, record), record, length)
            except Rejected as rejected:
                yield Row(line, rejected, record[:RAW_CAP], length)


def parquet_rows(stream: BinaryIO, max_bytes: int, where: str) -> Iterator[Row]:
    """Rows of a Parquet file, numbered from 1. A damaged row group ends the file with one rejected row.

    Raises BadInput when the footer cannot be read, columns share a name, or a row group is larger than ROW_GROUP_CAP.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(stream, pre_buffer=False)
        groups = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(f"this Parquet file is damaged: {first_line(error)}", where=where, fix="fetch or write it again") from None
    if len(set(names)) != len(names):
        raise BadInput("two columns of this Parquet file share a name", where=where, fix="write it again with distinct names")
    if max(groups, default=0) > ROW_GROUP_CAP:
        raise BadInput(
            f"a row group of this Parquet file takes {max(groups)} bytes", where=where, fix="write it with smaller row groups"
        )
    number = 0
    try:
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, use_threads=False):
            yield from batch_rows(batch, number, max_bytes)
            number += batch.num_rows
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        yield Row(number + 1, Rejected(Code.UNREADABLE, f"damaged from here on: {first_line(error)}"), b"", 0)


def _records(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes, int, bool]]:
    """(first line's number, bytes without the line end, how many, whether quotes are balanced) for each CSV record."""
    lines, most = 0, max(limit, RAW_CAP) + 2
    while piece := stream.readline(most):
        first, lines = lines + 1, lines + piece.endswith(b"\n")
        parts, length, quotes = [piece], len(piece), piece.count(b'"')
        while (not piece.endswith(b"\n") or quotes % 2) and length <= SKIP_CAP and (piece := stream.readline(PIECE)):
            lines += piece.endswith(b"\n")
            length, quotes = length + len(piece), quotes + piece.count(b'"')
            if length <= most:
                parts.append(piece)
        record = b"".join(parts)
        if first == 1 and record.startswith(BOM):
            record, length = record[3:], length - 3
        if length == len(record) and record.endswith(b"\n"):
            record = record[:-2] if record.endswith(b"\r\n") else record[:-1]
            length = len(record)
        yield first, record, length, quotes % 2 == 0
        if length > SKIP_CAP:
            return


def _header(record: bytes, length: int, closed: bool, limit: int, where: str) -> list[str]:
    fix = "the first line must name the columns: distinct, comma-separated, UTF-8"
    if length > limit or not closed:
        raise BadInput("the header of this CSV file does not end", where=where, fix=fix)
    try:
        names = _cells(record)
    except Rejected as rejected:
        if rejected.code is Code.BARE_CR:
            fix = "the lines end in bare carriage returns; convert them: tr '\\r' '\\n' < OLD > NEW"
        raise BadInput(f"the header of this CSV file cannot be read: {rejected.reason}", where=where, fix=fix) from None
    if "" in names or len(set(names)) != len(names):
        raise BadInput("a column of this CSV file has no name, or two have the same", where=where, fix=fix)
    return names


def _fields(header: list[str], record: bytes) -> dict[str, str]:
    cells = _cells(record)
    if len(cells) != len(header):
        raise Rejected(Code.COLUMNS, f"{len(cells)} cells under a header of {len(header)}")
    return dict(zip(header, cells, strict=True))


def _cells(record: bytes) -> list[str]:
    if record.startswith(BOM):
        raise Rejected(Code.BOM, "the row starts with a byte order mark")
    try:
        text = record.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected(Code.BAD_UTF8, f"byte {error.start} of the row is not UTF-8") from None
    if "\0" in text:
        raise Rejected(Code.NUL, "the row holds a NUL byte")
    if '"' not in text:
        if "\r" in text:
            raise Rejected(Code.BARE_CR, "a carriage return without line feed outside quotes")
        return text.split(",")
    return _quoted_cells(text)


def _quoted_cells(text: str) -> list[str]:
    cells: list[str] = []
    at = 0
    while match := _CELL.match(text, at):
        quoted, plain, comma = match.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        if not comma:
            return cells
        at = match.end()
    if re.match(r'[^",\n]*\r', text[at:]):
        raise Rejected(Code.BARE_CR, "a carriage return without line feed outside quotes")
    raise Rejected(Code.BAD_CSV, f"a quote at or after character {at + 1} is neither around a cell nor doubled")


def batch_rows(batch: Any, before: int, max_bytes: int) -> Iterator[Row]:
    """Rows of an Arrow record batch, numbered on from `before`."""
    try:
        rows: list[Any] = batch.to_pylist()
    except UnicodeDecodeError:
        rows = [_row_or_rejected(batch.slice(i, 1)) for i in range(batch.num_rows)]
    labels = label_names(batch.schema)
    for number, fields in enumerate(rows, start=before + 1):
        if isinstance(fields, Rejected):
            yield Row(number, fields, b"", 0)
            continue
        value = {key: named(item, labels[key]) if key in labels else plain(item) for key, item in fields.items()}
        raw = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
        if len(raw) > max_bytes:
            yield Row(number, too_long(max_bytes, len(raw)), raw[:RAW_CAP], len(raw))
        elif has_nul(value):
            yield Row(number, Rejected(Code.NUL, "the row holds a NUL character"), raw[:RAW_CAP], len(raw))
        else:
            yield Row(number, value, raw, len(raw))


def _row_or_rejected(one: Any) -> Any:
    try:
        return one.to_pylist()[0]
    except UnicodeDecodeError:
        return Rejected(Code.BAD_UTF8, "a text of the row is not UTF-8")


def plain(value: Any) -> Any:
    """A value of a table as JSON has it: dates and decimals become their text, bytes base64. As deep as the schema is."""
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value.isoformat() if isinstance(value, datetime | date | time) else str(value)


def first_line(error: Exception) -> str:
    """What an error says first, cut short."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
