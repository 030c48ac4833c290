"""Ids and groups as sixteen bytes each: columns of hex digits into sorted numpy arrays that ten million rows can afford.

A key array has the dtype S16. All keys have full length, so that numpy's padding with NUL bytes makes no two of them equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.bytes_]
KEY = np.dtype("S16")
_NIBBLES = np.zeros(256, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def hex_keys(column: Any) -> Keys:
    """Keys of a pyarrow string column that holds 32 lower-case hex digits a row and no nulls."""
    import pyarrow as pa

    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not len(column):
        return np.zeros(0, KEY)
    text = column.cast(pa.large_string())
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    if column.null_count or np.any(np.diff(offsets) != 32):
        raise ValueError("not all keys are 32 hex digits")
    digits = _NIBBLES[np.frombuffer(text.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]]
    return (digits[0::2] << 4 | digits[1::2]).astype(np.uint8).view(KEY)


def key_hex(key: bytes) -> str:
    """The hex digits of one element of a key array."""
    return key.ljust(16, b"\0").hex()


def find(known: Keys, wanted: Keys) -> npt.NDArray[np.int64]:
    """Places of `wanted` in the sorted array `known`; -1 where a key is not there."""
    if not len(known):
        return np.full(len(wanted), -1, np.int64)
    places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return np.where(known[places] == wanted, places, -1).astype(np.int64)
