"""Texts folded for comparing: case, white space, punctuation and ways of writing the same character are folded away.

A batch of texts is folded at once, on arrays of code points: no Python runs a character. What is done with folded texts is for
shingles.py, near.py and leaks.py; no file is touched here.

What is kept: letters, marks and digits; symbols such as +, = or an emoji, each as a word of its own, and so each character of
scripts that are written without spaces (Han, kana, Thai, Lao, Khmer, Burmese). `3.5` stays one word and the minus of `-3` is
kept, because `2.5 - 1` and `25 1` are different questions. Apostrophes inside a word go (`don't` = `dont`). Everything else
parts words. So two texts fold to the same if they differ in case, spacing and punctuation alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

# What a character is to the folding; the order has no meaning.
_GAP, _END, _LETTER, _DIGIT, _MARK, _SYMBOL, _APOSTROPHE, _POINT, _MINUS, _NOTHING, _SIGN = range(11)
_UNSPACED = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF)),
    *((0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)
"""Code points of scripts without spaces between words: each letter becomes a word."""
_SPECIAL = {
    "\0": _END,
    **dict.fromkeys("'’", _APOSTROPHE),
    **dict.fromkeys(".,", _POINT),
    **dict.fromkeys("-−", _MINUS),
    **dict.fromkeys("*/%#@&\\", _SYMBOL),
}
_SPACE = 32
_PIECE_TEXTS, _PIECE_CHARACTERS = 8192, 2_000_000


@dataclass(frozen=True, slots=True)
class Folded:
    """Folded texts, end to end. codes: code points (uint32); text i is codes[starts[i]:starts[i + 1]] (starts: int64, one more
    than there are texts). Each begins and ends with a space, and single spaces part its words; an empty text is one space."""

    codes: Any
    starts: Any

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, rows: Any) -> Folded:
        """The texts with these numbers, in this order; a number may come twice."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        starts = offsets(lengths)
        at = np.repeat(self.starts[rows] - starts[:-1], lengths) + np.arange(starts[-1])
        return Folded(self.codes[at], starts)


def fold(text: str) -> str:
    """One text, folded: words parted by single spaces, none at its ends. '' when it holds punctuation and white space alone."""
    return _decoded(fold_batch([text]).codes).strip(" ")


def fold_batch(texts: Sequence[str]) -> Folded:
    """Fold texts, in order. What a text folds to does not depend on the others. It takes 40 bytes a character: `in_pieces`."""
    codes, classes = _characters(texts)
    before, after = _shifted(classes)
    dropped = (classes == _APOSTROPHE) & _wordlike(before) & _wordlike(after)
    in_number = (classes == _POINT) & (before == _DIGIT) & (after == _DIGIT)
    # `-3` and `- 3` are the same; `covid-19` is a word and a number.
    ahead = np.append(after[1:], _END)[: len(after)]
    minus = (classes == _MINUS) & (before != _LETTER) & (before != _MARK)
    minus &= (after == _DIGIT) | ((after == _GAP) & (ahead == _DIGIT))
    own = (classes == _SYMBOL) | (classes == _SIGN) | minus
    at = np.flatnonzero(own | in_number | _wordlike(classes))
    marks, own = classes[at] == _MARK, own[at]
    # A space goes before what does not follow the kept character before it, and before and after a word of one character.
    apart = np.diff(at, prepend=-2)
    spaced = (apart > 1) & ~((apart == 2) & dropped[at - 1])
    spaced[1:] |= own[1:] | (own[:-1] & ~marks[1:])
    places = offsets(1 + spaced.astype(np.int64))
    ends = np.searchsorted(at, np.flatnonzero(classes == _END))
    starts = np.append(0, places[ends] + np.arange(1, len(texts) + 1))
    folded = np.full(starts[-1], _SPACE, np.uint32)
    folded[places[1:] - 1 + np.repeat(np.arange(len(texts)), np.diff(ends, prepend=0))] = codes[at]
    return Folded(folded, starts)


def in_pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in pieces small enough to be folded at once: at most 8192, and 2 million characters (or a single text)."""
    start = size = 0
    for stop, text in enumerate(texts):
        if stop > start and (stop - start == _PIECE_TEXTS or size + len(text) > _PIECE_CHARACTERS):
            yield texts[start:stop]
            start, size = stop, 0
        size += len(text)
    if start < len(texts):
        yield texts[start:]


def offsets(lengths: Any) -> Any:
    """Where pieces of these lengths start when laid end to end, and where the last one ends (int64, one more than lengths)."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def to_bytes(folded: Folded) -> tuple[bytes, Any]:
    """(all texts end to end in UTF-8, where each starts and the last one ends, int64)."""
    codes = folded.codes
    widths = 1 + (codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)
    return _decoded(codes).encode("utf-8", "surrogatepass"), offsets(widths)[folded.starts]


def from_bytes(data: bytes, starts: Any) -> Folded:
    """What `to_bytes` was given."""
    codes = np.frombuffer(data.decode("utf-8", "surrogatepass").encode("utf-32-le", "surrogatepass"), np.uint32)
    first = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    return Folded(codes, offsets(first)[starts])


def _decoded(codes: Any) -> str:
    text: str = codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    return text


def _characters(texts: Sequence[str]) -> tuple[Any, Any]:
    """(characters of all texts, normalised and in one case, each text followed by a NUL; the class of each character)."""
    joined = "\0".join([_normal(text) for text in texts]) + "\0" if texts else ""
    if joined.isascii():
        data = joined.encode("ascii")
        return np.frombuffer(data, np.uint8), np.frombuffer(data.translate(_basic_classes()[:256].tobytes()), np.uint8)
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    classes = _classes(codes)
    spoken = classes != _NOTHING
    return codes[spoken], classes[spoken]


def _normal(text: str) -> str:
    # Rows that hold NUL were refused long before, but here it would end a text.
    if "\0" in text:
        text = text.replace("\0", " ")
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _classes(codes: Any) -> Any:
    table = _basic_classes()
    if codes.max() < len(table):
        return table[codes]
    classes = np.zeros(len(codes), np.uint8)
    basic = codes < len(table)
    classes[basic] = table[codes[basic]]
    rare, where = np.unique(codes[~basic], return_inverse=True)
    classes[~basic] = np.array([_class_of(code) for code in rare.tolist()], np.uint8)[where]
    return classes


@cache
def _basic_classes() -> Any:
    return np.array([_class_of(code) for code in range(0x10000)], np.uint8)


def _class_of(code: int) -> int:
    character = chr(code)
    category = unicodedata.category(character)
    if character in _SPECIAL:
        return _SPECIAL[character]
    if category == "Cf" or 0xFE00 <= code <= 0xFE0F:
        return _NOTHING
    if category == "Nd":
        return _DIGIT
    if category[0] == "M":
        return _MARK
    if category[0] in "LN":
        return _SIGN if code >= _UNSPACED[0][0] and any(first <= code <= last for first, last in _UNSPACED) else _LETTER
    return _SYMBOL if category[0] in "S" or category in ("Co", "Cs") else _GAP


def _wordlike(classes: Any) -> Any:
    return (classes == _LETTER) | (classes == _DIGIT) | (classes == _MARK)


def _shifted(classes: Any) -> tuple[Any, Any]:
    before, after = np.full_like(classes, _END), np.full_like(classes, _END)
    before[1:], after[:-1] = classes[:-1], classes[1:]
    return before, after
