"""Bytes of JSON cut into values without parsing them: strings and brackets are told apart, without recursion, in flat memory.

What a value says is curation/strict_json.py's work, and which values are rows curation/documents.py's.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from pipeline.curation.lines import PIECE, RAW_CAP, SKIP_CAP

_NO_SPACE = re.compile(rb"[^ \t\r\n]")
_OUTSIDE = re.compile(rb'["\[\]{},]')
_INSIDE = re.compile(rb'["\\]')
_OUTSIDE_MARKS, _INSIDE_MARKS = (b'"', b"[", b"]", b"{", b"}", b","), (b'"', b"\\")


class JsonBytes:
    """A stream of bytes and how far it is read: `held[at:]` comes next."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.held = b""
        self.at = 0

    def more(self) -> bool:
        """Whether anything comes next; reads on when all that is held was taken."""
        if self.at >= len(self.held):
            self.held, self.at = self._stream.read(PIECE), 0
        return bool(self.held)

    def take(self) -> bytes:
        """The next byte, or nothing at the end."""
        if not self.more():
            return b""
        self.at += 1
        return self.held[self.at - 1 : self.at]

    def peek(self) -> bytes:
        """The next byte that is no white space, which stays; or nothing at the end."""
        while self.more():
            if match := _NO_SPACE.search(self.held, self.at):
                self.at = match.start()
                return match.group()
            self.at = len(self.held)
        return b""


def cut_value(text: JsonBytes, limit: int, closing: bytes) -> tuple[bytes, int, str]:
    """(bytes or their beginning, how many, its end: `comma`, `close` or `file`) of what comes next in an array or object.

    Only strings and brackets are told apart here, without recursion.
    """
    kept, length, depth, in_string, escaped = b"", 0, 0, False, False
    while text.more() and length <= SKIP_CAP:
        chunk, begin = text.held, text.at
        at, escaped = (begin + 1, False) if escaped else (begin, False)
        if begin or at or any(mark in chunk for mark in (_INSIDE_MARKS if in_string else _OUTSIDE_MARKS)):
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
                elif depth and token in b"]}":
                    depth -= 1
                elif not depth and token in (b",", closing):
                    piece = chunk[begin : match.start()]
                    text.at = at
                    return grown(kept, piece, limit), length + len(piece), "comma" if token == b"," else "close"
        text.at = len(chunk)
        length += len(chunk) - begin
        kept = grown(kept, chunk[begin:], limit)
    return kept, length, "file"


def grown(kept: bytes, piece: bytes, limit: int) -> bytes:
    """`kept` grown by `piece` as long as the row may still be parsed; afterwards its beginning is all that is needed."""
    return kept + piece if len(kept) + len(piece) <= max(limit, RAW_CAP) else (kept + piece[:RAW_CAP])[:RAW_CAP]
