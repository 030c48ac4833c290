"""Answers that are far from the others in length or in style: what a person should look at first, not what is wrong.

Style is told by byte trigrams: an answer made of trigrams that are rare in the whole dataset surprises. This is the n-gram
profile of Cavnar & Trenkle 1994 ("N-Gram-Based Text Categorization") with one profile, the dataset's own, and the mean surprisal
of an answer's trigrams as the distance. Two passes over the texts, memory of a fixed size and eight bytes a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.curation.rules.findings import Findings, Mask, findings
from pipeline.curation.rules.spread import robust_z
from pipeline.domain.data import ExampleKind

ENOUGH = 20
"""Of fewer answers none can be odd."""
FAR = 5.0
"""In standard deviations, told robustly; a normal distribution has 3 in ten million beyond it on one side."""
_SLOTS = 1 << 16
_PIECE = 4 << 20
_SHORTEST = 20
"""Texts of fewer bytes have too few trigrams to have a style."""
_WORDINGS = (
    "its length is far from that of the other answers ({:.1f} deviations)",
    "its style is far from that of the other answers ({:.1f} deviations)",
)
Numbers = npt.NDArray[np.float32]


class StyleProfile:
    """How often each byte trigram comes in all answers: `count` every batch first, then ask for the `oddness` of each."""

    def __init__(self) -> None:
        self._counts = np.zeros(_SLOTS, np.int64)

    def count(self, batch: Any) -> None:
        """Add the answers of a batch with the columns kind and output."""
        for piece in _pieces(_answers(batch)[1]):
            _, slots, _ = _trigrams(piece)
            self._counts += np.bincount(slots, minlength=_SLOTS)

    def oddness(self, batch: Any) -> tuple[npt.NDArray[np.int64], Numbers, Numbers]:
        """(places of the answers in a batch, their lengths in bytes, the mean surprisal of their trigrams in bits; NaN where an
        answer is too short to have a style)."""
        places, texts = _answers(batch)
        # Half a count more than was seen, so that what was never counted has a probability too.
        bits = -np.log2((self._counts + 0.5) / (self._counts.sum() + 0.5 * _SLOTS))
        lengths, means = [np.zeros(0, np.int64)], [np.zeros(0)]
        for piece in _pieces(texts):
            starts, slots, grams = _trigrams(piece)
            total = np.concatenate([[0.0], np.cumsum(bits[slots])])
            lengths.append(np.diff(starts))
            ends = np.cumsum(grams)
            means.append((total[ends] - total[ends - grams]) / np.maximum(grams, 1))
        size, mean = np.concatenate(lengths), np.concatenate(means)
        return places, size.astype(np.float32), np.where(size < _SHORTEST, np.nan, mean).astype(np.float32)


def odd_answers(batches: Iterable[Any], profile: StyleProfile, kept: Mask) -> Findings:
    """The kept answers that lie FAR from the others in length (on a logarithmic scale, either way) or in surprisal (above).

    `values` is how many deviations; where both are odd the greater counts. Fewer than ENOUGH answers give no findings.
    """
    rows, sizes, surprisals, start = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)], [np.zeros(0, np.float32)], 0
    for batch in batches:
        places, size, surprisal = profile.oddness(batch)
        chosen = kept[start + places]
        rows.append(start + places[chosen])
        sizes.append(size[chosen])
        surprisals.append(surprisal[chosen])
        start += batch.num_rows
    row, length, bits = np.concatenate(rows), np.concatenate(sizes), np.concatenate(surprisals)
    if len(row) < ENOUGH:
        return findings([], _WORDINGS)
    by_length = np.abs(robust_z(np.log1p(length)))
    by_style = np.zeros(len(row), np.float32)
    told = np.isfinite(bits)
    by_style[told] = robust_z(bits[told])
    worst = np.maximum(by_length, by_style)
    odd = worst >= FAR
    return findings(row[odd], _WORDINGS, codes=(by_style > by_length)[odd], values=worst[odd])


def _answers(batch: Any) -> tuple[npt.NDArray[np.int64], Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    places = np.flatnonzero(pc.equal(batch.column("kind"), ExampleKind.ANSWER.value).to_numpy(zero_copy_only=False))
    return places, pc.utf8_lower(batch.column("output").take(pa.array(places)))


def _pieces(texts: Any) -> Iterator[Any]:
    """Slices of a string column that hold about _PIECE bytes each, so that long answers need no more memory than short ones."""
    ends = np.cumsum(_lengths(texts))
    start = 0
    while start < len(texts):
        before = int(ends[start - 1]) if start else 0
        end = max(int(np.searchsorted(ends, before + _PIECE, side="right")), start + 1)
        yield texts.slice(start, end - start)
        start = end


def _lengths(texts: Any) -> npt.NDArray[np.int64]:
    import pyarrow.compute as pc

    lengths: npt.NDArray[np.int64] = pc.binary_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths


def _trigrams(texts: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """(where each text starts and the last one ends, the slots of all trigrams in order, how many each text has)."""
    lengths = _lengths(texts)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    data = np.frombuffer("".join(texts.to_pylist()).encode(), np.uint8).astype(np.uint32)
    grams = np.maximum(lengths - 2, 0)
    if len(data) < 3:
        return starts, np.zeros(0, np.uint32), grams
    mixed = data[:-2] * np.uint32(0x9E3779B1) ^ data[1:-1] * np.uint32(0x85EBCA77) ^ data[2:] * np.uint32(0xC2B2AE3D)
    within = np.ones(len(data), np.bool_)
    # A trigram that begins on one of the last two bytes of a text would reach into the next.
    for back in (1, 2):
        ends = starts[1:][lengths >= back] - back
        within[ends] = False
    return starts, (mixed >> np.uint32(16))[within[:-2]], grams
