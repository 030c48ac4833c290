"""Streams of bytes into rows of JSON: JSONL and JSON arrays, a row at a time, whatever the bytes are.

Memory stays flat: a row beyond the limit is skipped in pieces and only its beginning is kept. Every row goes through
curation/strict_json.py; what a row means is curation/formats.py's work. Opening files is curation/files.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import orjson

from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.strict_json import parse
from pipeline.errors import BadInput

RAW_CAP = 1 << 16
"""So much of a row's bytes is kept in quarantine."""
SKIP_CAP = 4 << 30
"""After so many bytes of one row the rest of the file is given up: it is no text, or an archive made to never end."""
PIECE = 1 << 20
BOM = b"\xef\xbb\xbf"

_SPACE = b" \t\r\n"
_OUTSIDE = re.compile(rb'["\[\]{},]')
_INSIDE = re.compile(rb'["\\]')
_OUTSIDE_MARKS, _INSIDE_MARKS = (b'"', b"[", b"]", b"{", b"}", b","), (b'"', b"\\")


class Row(NamedTuple):
    """One row of a source. value: what it says, or why it is refused. raw: its bytes or their beginning; raw_bytes: how many."""

    line: int
    value: Any | Rejected
    raw: bytes
    raw_bytes: int


def json_lines(stream: BinaryIO, max_bytes: int, max_depth: int) -> Iterator[Row]:
    """Rows of a JSONL stream, numbered by line from 1. Lines of white space alone are no rows; LF and CR LF both end a line."""
    for number, line, length in _lines(stream, max_bytes):
        if number == 1 and line.startswith(BOM):
            line, length = line[3:], length - 3
        if length > max_bytes:
            yield Row(number, too_long(max_bytes, length), line[:RAW_CAP], length)
        elif line := line.strip(_SPACE):
            yield _row(number, line, max_depth)


def json_document(stream: BinaryIO, max_bytes: int, max_depth: int, where: str) -> Iterator[Row]:
    """Rows of a .json stream, which must be seekable: the elements of a top-level array, numbered from 1, or one object a line.

    Raises BadInput when the document is neither.
    """
    if stream.read(3) != BOM:
        stream.seek(0)
    while (first := stream.read(1)) and first in _SPACE:
        pass
    if first == b"[":
        yield from _array(stream, max_bytes, max_depth)
    elif first == b"{" and _is_object_a_line(stream, max_bytes):
        stream.seek(0)
        yield from json_lines(stream, max_bytes, max_depth)
    elif first:
        raise BadInput(
            "this JSON document is no list of rows",
            where=where,
            fix="give a top-level array of objects, or one object a line; from an object, extract the array: jq '.KEY' OLD > NEW",
        )


def too_long(limit: int, length: int) -> Rejected:
    """Why a row of `length` bytes is refused when `limit` bytes are allowed."""
    rest = "; the rest of the file was not read" if length > SKIP_CAP else ""
    return Rejected(Code.TOO_LONG, f"{length} bytes, and ingest.max_line_bytes is {limit}{rest}")


def _row(number: int, text: bytes, max_depth: int) -> Row:
    try:
        return Row(number, parse(text, max_depth), text, len(text))
    except Rejected as rejected:
        return Row(number, rejected, text[:RAW_CAP], len(text))


def _lines(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes, int]]:
    """(number, bytes without the line's end, how many). Of a line beyond `limit` only the beginning comes."""
    number, most = 0, max(limit, RAW_CAP) + 2
    while line := stream.readline(most):
        number += 1
        length = len(line)
        if length == most and not line.endswith(b"\n"):
            line = line[:RAW_CAP]
            while piece := stream.readline(PIECE):
                length += len(piece)
                if piece.endswith(b"\n"):
                    length -= 1
                    break
                if length > SKIP_CAP:
                    yield number, line, length
                    return
            yield number, line, length
        else:
            line = line.rstrip(b"\r\n") if line.endswith(b"\n") else line
            yield number, line, len(line)


def _is_object_a_line(stream: BinaryIO, limit: int) -> bool:
    """Whether the line whose `{` was just read is a whole object; then the document is JSONL under another name."""
    line = b"{" + stream.readline(limit)
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _array(stream: BinaryIO, limit: int, max_depth: int) -> Iterator[Row]:
    """Rows of the array whose `[` was just read. Elements that are cut off, and what follows the array, are rejected rows."""
    number = 0
    for text, length, end in _elements(stream, limit):
        bare = text.strip(_SPACE)
        if not bare and (end == "rest" or (end == "array" and number == 0)):
            continue
        number += 1
        if length > limit:
            yield Row(number, too_long(limit, length), text[:RAW_CAP], length)
        elif end == "file":
            yield Row(number, Rejected(Code.UNREADABLE, "the file ends before its array does"), text[:RAW_CAP], length)
        elif end == "rest":
            yield Row(number, Rejected(Code.BAD_JSON, "something follows the end of the array"), text[:RAW_CAP], length)
        elif not bare:
            yield Row(number, Rejected(Code.BAD_JSON, "nothing between two commas, or after the last"), text[:RAW_CAP], length)
        else:
            yield _row(number, bare, max_depth)


def _elements(stream: BinaryIO, limit: int) -> Iterator[tuple[bytes, int, str]]:
    """(bytes or their beginning, how many, its end: `comma`, `array` or `file`) for each element, then what follows as `rest`.

    Only strings and brackets are told apart here, without recursion.
    """
    kept, length, depth, in_string, escaped = b"", 0, 0, False, False
    while chunk := stream.read(PIECE):
        if not any(mark in chunk for mark in (_INSIDE_MARKS if in_string else _OUTSIDE_MARKS)) and not escaped:
            kept, length = _join(kept, chunk, limit), length + len(chunk)
            if length > SKIP_CAP:
                break
            continue
        begin, at = 0, 1 if escaped else 0
        escaped = False
        while match := (_INSIDE if in_string else _OUTSIDE).search(chunk, at):
            at, token = match.end(), match.group()
            if in_string:
                if token == b"\\":
                    at += 1
                    escaped = at > len(chunk)
                else:
                    in_string = False
            elif token == b'"':
                in_string = True
            elif token in b"[{":
                depth += 1
            elif token in b"]}" and depth:
                depth -= 1
            elif token in b",]" and not depth:
                piece = chunk[begin : match.start()]
                begin = at
                yield _join(kept, piece, limit), length + len(piece), "array" if token == b"]" else "comma"
                kept, length = b"", 0
                if token == b"]":
                    yield _rest(stream, chunk[at:])
                    return
        length += len(chunk) - begin
        kept = _join(kept, chunk[begin:], limit)
        if length > SKIP_CAP:
            break
    yield kept, length, "file"


def _rest(stream: BinaryIO, piece: bytes) -> tuple[bytes, int, str]:
    kept, length = b"", 0
    while piece:
        piece = piece if kept else piece.lstrip(_SPACE)
        kept, length = kept or piece[:RAW_CAP], length + len(piece)
        piece = stream.read(PIECE) if length <= SKIP_CAP else b""
    return kept, length, "rest"


def _join(kept: bytes, piece: bytes, limit: int) -> bytes:
    """`kept` grown by `piece` as long as the row may still be parsed; afterwards its beginning is all that is needed."""
    return kept + piece if len(kept) + len(piece) <= max(limit, RAW_CAP) else (kept + piece[:RAW_CAP])[:RAW_CAP]
