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
from collections.abc import Sequence
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
_SPACE = 32


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
    """Fold texts, in order. What a text folds to does not depend on the others."""
    codes = _code_points(texts)
    classes = _classes(codes)
    if not (spoken := classes != _NOTHING).all():
        codes, classes = codes[spoken], classes[spoken]
    before, after = _shifted(classes)
    in_word = (classes == _APOSTROPHE) & _wordlike(before) & _wordlike(after)
    in_number = (classes == _POINT) & (before == _DIGIT) & (after == _DIGIT)
    # `-3` and `- 3` are the same; `covid-19` is a word and a number.
    ahead = np.append(after[1:], _END)[: len(after)]
    minus = (
        (classes == _MINUS)
        & (before != _LETTER)
        & (before != _MARK)
        & ((after == _DIGIT) | ((after == _GAP) & (ahead == _DIGIT)))
    )
    own = (classes == _SYMBOL) | (classes == _SIGN) | minus
    kept = own | in_number | (classes == _LETTER) | (classes == _DIGIT) | (classes == _MARK)
    gaps = np.cumsum(~kept & ~in_word)
    rows = np.cumsum(classes == _END)
    at = np.flatnonzero(kept)
    rows, gaps, marks, own = rows[at], gaps[at], classes[at] == _MARK, own[at]
    spaced = np.ones(len(at), bool)
    spaced[1:] = (gaps[1:] != gaps[:-1]) | own[1:] | (own[:-1] & ~marks[1:])
    places = np.arange(len(at)) + np.cumsum(spaced) + rows
    starts = offsets(np.bincount(rows, weights=1 + spaced, minlength=len(texts)).astype(np.int64) + 1)
    folded = np.full(starts[-1], _SPACE, np.uint32)
    folded[places] = codes[at]
    return Folded(folded, starts)


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


def _code_points(texts: Sequence[str]) -> Any:
    """Code points of all texts, normalised and in one case, each text followed by a NUL."""
    # NUL takes part in no composition, so normalising all at once is normalising each. Rows with NUL were refused long before.
    joined = "\0".join(text.replace("\0", " ") for text in texts) + "\0" if texts else ""
    if joined.isascii():
        return np.frombuffer(joined.lower().encode("ascii"), np.uint8).astype(np.uint32)
    same = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", joined).casefold())
    return np.frombuffer(same.encode("utf-32-le", "surrogatepass"), np.uint32)


def _classes(codes: Any) -> Any:
    table = _basic_classes()
    if len(codes) == 0 or codes.max() < len(table):
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
    special = {"\0": _END, "'": _APOSTROPHE, "’": _APOSTROPHE, ".": _POINT, ",": _POINT, "-": _MINUS, "−": _MINUS}
    if character in special:
        return special[character]
    if category == "Cf" or 0xFE00 <= code <= 0xFE0F:
        return _NOTHING
    if category == "Nd":
        return _DIGIT
    if category[0] == "M":
        return _MARK
    if category[0] in "LN":
        return _SIGN if any(first <= code <= last for first, last in _UNSPACED) else _LETTER
    return _SYMBOL if category[0] in "S" or character in "*/%#@&\\" or category in ("Co", "Cs") else _GAP


def _wordlike(classes: Any) -> Any:
    return (classes == _LETTER) | (classes == _DIGIT) | (classes == _MARK)


def _shifted(classes: Any) -> tuple[Any, Any]:
    before, after = np.full_like(classes, _END), np.full_like(classes, _END)
    before[1:], after[:-1] = classes[:-1], classes[1:]
    return before, after
