"""Lines of bytes into rows of JSON, a row at a time, whatever the bytes are.

Memory stays flat: a row beyond the limit is skipped in pieces and only its beginning is kept. Every row goes through
curation/strict_json.py; what a row means is curation/formats/'s work. JSON documents are curation/documents.py's.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from typing import Any, BinaryIO, NamedTuple

from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.strict_json import parse

RAW_CAP = 1 << 16
"""So much of a row's bytes is kept in quarantine."""
SKIP_CAP = 4 << 30
"""After so many bytes of one row the rest of the file is given up: it is no text, or an archive made to never end."""
PIECE = 1 << 20
CHUNK_BYTES = 8 << 20
"""So large is a part of a JSONL stream that is taken in by itself. What becomes of rows does not depend on it."""
BOM = b"\xef\xbb\xbf"

_SPACE = b" \t\r\n"


class Row(NamedTuple):
    """One row of a source. value: what it says, or why it is refused. raw: its bytes or their beginning; raw_bytes: how many.

    section: the key of the array that it lay in, where a document has several.
    """

    line: int
    value: Any | Rejected
    raw: bytes
    raw_bytes: int
    section: str = ""


def json_lines(stream: BinaryIO, max_bytes: int, max_depth: int, *, before: int = 0, beyond: int = 0) -> Iterator[Row]:
    """Rows of a JSONL stream, numbered by line from 1. Lines of white space alone are no rows; LF and CR LF both end a line.

    Of a part of a stream (see cut_lines): `before` lines came before it, and its last one had `beyond` more bytes.
    """
    for number, line, length in _lines(stream, max_bytes, before, beyond):
        if number == 1 and line.startswith(BOM):
            line, length = line[3:], length - 3
        if length > max_bytes:
            yield Row(number, too_long(max_bytes, length), line[:RAW_CAP], length)
        elif line := line.strip(_SPACE):
            yield parsed_row(number, line, max_depth)


def cut_lines(stream: BufferedReader, max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """A stream in parts of whole lines, about CHUNK_BYTES each: (bytes, how many were left out after them).

    Of a last line that is far too long only the beginning is in the part, and the number of bytes that follow is said. When the
    stream breaks, the whole lines before the break come first, then its exception.
    """
    held: list[bytes] = []
    size = unended = 0  # bytes held, and those of them that no line end follows
    most = max(max_bytes, RAW_CAP) + 2
    while True:
        try:
            piece = stream.read1(PIECE)
            end = piece.rfind(b"\n") + 1
            held.append(piece)
            size, unended = size + len(piece), len(piece) - end if end else unended + len(piece)
            far_too_long = unended > most
            beyond, rest = _skip_line(stream, unended) if far_too_long else (0, b"")
        except Exception:
            if whole := b"".join(held)[: size - unended]:
                yield whole, 0
            raise
        if not piece:
            break
        if far_too_long:
            yield b"".join(held), beyond
            if unended + beyond > SKIP_CAP:
                return
            held, size, unended = [rest], len(rest), len(rest) - (rest.rfind(b"\n") + 1)
        elif size >= CHUNK_BYTES and size > unended:
            part = b"".join(held)
            yield part[: size - unended], 0
            held, size = [part[size - unended :]], unended
    if size:
        yield b"".join(held), 0


def too_long(limit: int, length: int) -> Rejected:
    """Why a row of `length` bytes is refused when `limit` bytes are allowed."""
    rest = "; the rest of the file was not read" if length > SKIP_CAP else ""
    return Rejected(Code.TOO_LONG, f"{length} bytes, and ingest.max_line_bytes is {limit}{rest}")


def parsed_row(number: int, text: bytes, max_depth: int) -> Row:
    """The row that one JSON text makes, or why it is refused."""
    try:
        return Row(number, parse(text, max_depth), text, len(text))
    except Rejected as rejected:
        return Row(number, rejected, text[:RAW_CAP], len(text))


def _lines(stream: BinaryIO, limit: int, before: int, beyond: int) -> Iterator[tuple[int, bytes, int]]:
    """(number, bytes without the line's end, how many). Of a line beyond `limit` only the beginning comes."""
    number, most = before, max(limit, RAW_CAP) + 2
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
            yield number, line, length if piece else length + beyond
        else:
            line = line.rstrip(b"\r\n") if line.endswith(b"\n") else line
            yield number, line, len(line)


def _skip_line(stream: BufferedReader, length: int) -> tuple[int, bytes]:
    """(bytes up to the end of the line of which `length` are read, what was read after it). At SKIP_CAP it is given up."""
    skipped = 0
    while length + skipped <= SKIP_CAP and (piece := stream.read1(PIECE)):
        end = piece.find(b"\n")
        if end >= 0:
            return skipped + end, piece[end + 1 :]
        skipped += len(piece)
    return skipped, b""
