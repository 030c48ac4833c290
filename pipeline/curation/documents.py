"""JSON documents into rows, an element at a time: a top-level array, arrays within an object, or one object a line.

Memory stays flat, whatever the document holds: strings and brackets are told apart without parsing, and only one element at a
time goes through curation/strict_json.py. Parts of an object that no row comes from are passed over unparsed. What a row means is
curation/formats/'s work.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import count
from typing import BinaryIO

import orjson

from pipeline.curation.json_pieces import JsonBytes, cut_value, grown
from pipeline.curation.lines import BOM, RAW_CAP, SKIP_CAP, Row, json_lines, parsed_row, too_long
from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.strict_json import parse
from pipeline.errors import BadInput

_SPACE = b" \t\r\n"
_KEY_CAP = 1 << 12
_KEYS_CAP = 1 << 20


def json_document(stream: BinaryIO, max_bytes: int, max_depth: int, where: str, records: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of a .json stream, which must be seekable: the elements of a top-level array, numbered from 1, or one object a line.

    records: where the rows are in a document that is an object: dotted keys of arrays, `*` for every key at its level. Rows are
    numbered through all arrays, and each names its own as `section`. A document that breaks off ends with one rejected row.
    `.` alone says that the document is one row, whatever it is.
    Raises BadInput when the document is nothing of this kind, or has no such arrays.
    """
    if stream.read(3) != BOM:
        stream.seek(0)
    text = JsonBytes(stream)
    first = text.peek()
    if tuple(records) == (".",):
        yield from _whole(text, max_bytes, max_depth)
        return
    if records and first not in (b"{", b""):
        raise BadInput(
            "ingest.records names keys, but this document is no object", where=where, fix="leave records out for this source"
        )
    numbers = count(1)
    if first == b"[":
        text.take()
        yield from _array(text, max_bytes, max_depth, numbers)
        yield from _rest(text, numbers)
    elif first == b"{" and records:
        yield from _Arrays(text, max_bytes, max_depth, records, where).rows(numbers)
    elif first == b"{" and _is_object_a_line(text, max_bytes):
        stream.seek(0)
        yield from json_lines(stream, max_bytes, max_depth)
    elif first:
        raise BadInput(
            "this JSON document is no list of rows",
            where=where,
            fix="give a top-level array of objects, or one object a line; of an object, name the arrays: records: [KEY]",
        )


class _CutOff(Exception):
    """The document ended within an array, whose last row has said so."""


class _Arrays:
    """The arrays of rows within a document that is an object."""

    def __init__(self, text: JsonBytes, max_bytes: int, max_depth: int, records: Sequence[str], where: str) -> None:
        self._text = text
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._wanted = [name.split(".") for name in records]
        self._where = where
        self._seen: set[str] = set()
        self._found = False

    def rows(self, numbers: Iterator[int]) -> Iterator[Row]:
        try:
            self._text.take()
            yield from self._object((), numbers)
            yield from _rest(self._text, numbers)
        except _CutOff:
            return
        except Rejected as rejected:
            # The rest is one row: without knowing where it broke, nothing behind it can be told apart.
            raw = self._text.held[self._text.at :][:RAW_CAP]
            yield Row(next(numbers), rejected, raw, len(raw))
            return
        if not self._found:
            keys = ", ".join(repr(key[:60]) for key in sorted(self._seen)[:12]) or "none"
            raise BadInput(
                f"no array of this document is named by records; its keys are: {keys}",
                where=self._where,
                fix="correct the records of this source in params.yaml",
            )

    def _object(self, path: tuple[str, ...], numbers: Iterator[int]) -> Iterator[Row]:
        """Rows below an object whose `{` was just taken, up to and with its `}`."""
        if self._text.peek() == b"}":
            self._text.take()
            return
        while True:
            here = (*path, self._key(path))
            opening = self._text.peek()
            if self._is_wanted(here):
                if opening == b"[":
                    self._found = True
                    self._text.take()
                    if not (yield from _array(self._text, self._max_bytes, self._max_depth, numbers, ".".join(here))):
                        raise _CutOff
                elif not self._is_wanted(here, by_name=True):
                    self._pass_over()
                else:
                    raise BadInput(
                        f"records names {'.'.join(here)!r}, which is no array",
                        where=self._where,
                        fix="name arrays of rows; of an object that holds arrays: KEY.*",
                    )
            elif opening == b"{" and self._leads_on(here):
                self._text.take()
                yield from self._object(here, numbers)
            else:
                self._pass_over()
            end = self._text.peek()
            self._text.take()
            if end == b"}":
                return
            if end != b",":
                raise _broken(end)

    def _key(self, path: tuple[str, ...]) -> str:
        if (mark := self._text.peek()) != b'"':
            raise _broken(mark)
        kept = self._text.take()
        while (byte := self._text.take()) not in (b'"', b"") and len(kept) <= _KEY_CAP:
            kept += byte + (self._text.take() if byte == b"\\" else b"")
        if not byte:
            raise _broken(byte)
        key = str(parse(kept + byte, self._max_depth))
        name = "\0".join((*path, key))
        if len(self._seen) >= _KEYS_CAP:
            raise Rejected(Code.TOO_LONG, f"an object of more than {_KEYS_CAP} keys; the rest was not read")
        if name in self._seen:
            raise Rejected(Code.DUPLICATE_KEY, f"the key {key[:100]!r} comes twice in one object; the rest was not read")
        self._seen.add(name)
        if (mark := self._text.peek()) != b":":
            raise _broken(mark)
        self._text.take()
        return key

    def _pass_over(self) -> None:
        """Go to what ends the value that comes next, which is not parsed."""
        piece, _, end = cut_value(self._text, 0, b"}")
        if end == "file" or not piece.strip(_SPACE):
            raise _broken(b"" if end == "file" else b",")
        self._text.at -= 1

    def _is_wanted(self, path: tuple[str, ...], *, by_name: bool = False) -> bool:
        return any(len(name) == len(path) and _match(name, path, stars=not by_name) for name in self._wanted)

    def _leads_on(self, path: tuple[str, ...]) -> bool:
        return any(len(name) > len(path) and _match(name, path) for name in self._wanted)


def _match(name: Sequence[str], path: Sequence[str], *, stars: bool = True) -> bool:
    return all(step == key or (stars and step == "*") for step, key in zip(name, path, strict=False))


def _array(text: JsonBytes, limit: int, max_depth: int, numbers: Iterator[int], section: str = "") -> Generator[Row, None, bool]:
    """Rows of the array whose `[` was just taken, up to and with its `]`; returns whether it was closed before the file ended."""
    first, end = True, "comma"
    while end == "comma":
        piece, length, end = cut_value(text, limit, b"]")
        bare = piece.strip(_SPACE)
        if not bare and end == "close" and first:
            return True
        first = False
        number, raw = next(numbers), piece[:RAW_CAP]
        if length > limit:
            yield Row(number, too_long(limit, length), raw, length, section)
        elif end == "file":
            yield Row(number, Rejected(Code.UNREADABLE, "the file ends before its array does"), raw, length, section)
        elif not bare:
            yield Row(number, Rejected(Code.BAD_JSON, "nothing between two commas, or after the last"), raw, length, section)
        else:
            yield parsed_row(number, bare, max_depth)._replace(section=section)
    return end == "close"


def _whole(text: JsonBytes, limit: int, max_depth: int) -> Iterator[Row]:
    kept, length = b"", 0
    while text.more() and length <= SKIP_CAP:
        piece, text.at = text.held[text.at :], len(text.held)
        kept, length = grown(kept, piece, limit), length + len(piece)
    if length > limit:
        yield Row(1, too_long(limit, length), kept[:RAW_CAP], length)
    elif bare := kept.strip(_SPACE):
        yield parsed_row(1, bare, max_depth)


def _rest(text: JsonBytes, numbers: Iterator[int]) -> Iterator[Row]:
    """What follows the end of the document is one rejected row; nothing, if it is white space."""
    if not text.peek():
        return
    kept, length = text.held[text.at :][:RAW_CAP], 0
    while text.more() and length <= SKIP_CAP:
        length += len(text.held) - text.at
        text.at = len(text.held)
    yield Row(next(numbers), Rejected(Code.BAD_JSON, "something follows the end of the document"), kept, length)


def _is_object_a_line(text: JsonBytes, limit: int) -> bool:
    """Whether the line that comes next is a whole object; then the document is JSONL under another name."""
    line = b""
    while text.more() and len(line) <= limit:
        end = text.held.find(b"\n", text.at)
        line += text.held[text.at : end if end >= 0 else len(text.held)][: limit + 1]
        if end >= 0:
            break
        text.at = len(text.held)
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _broken(mark: bytes) -> Rejected:
    if not mark:
        return Rejected(Code.UNREADABLE, "the file ends before its document does")
    return Rejected(Code.BAD_JSON, f"the document cannot be read on from here: {mark.decode('latin-1')!r} does not belong")
