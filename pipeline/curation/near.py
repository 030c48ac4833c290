"""Near duplicates: texts whose sets of character shingles are alike, in time that grows with the texts, not with their pairs.

Each text is folded and kept on disk (folded_store.py); MinHash band keys (shingles.py, made by rensa) bring texts together that
are likely alike; each such pair is then compared exactly, so nothing is reported that is below the threshold. What is missed
is what meets in no band: at the threshold 1 pair in 100, above it fewer. The results depend on the texts and their order
alone, not on how they come in batches. Which texts of a row are compared, and what becomes of those found, is for the callers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.curation.band_files import BandFiles
from pipeline.curation.folded_store import FoldedStore
from pipeline.curation.folding import Folded, fold_batch, in_pieces
from pipeline.curation.in_order import in_order
from pipeline.curation.minhash import Banding, Signatures, banding, may_be_alike, signatures
from pipeline.curation.shingles import jaccard, shingle_hashes, text_keys
from pipeline.ports import Progress, silent

EARLIEST, LATEST = 4, 12
"""Of the texts that meet in a band, with how many of the first, and of those just before it, a text is compared. A bound: a
million texts made of one template meet in the same bands, and comparing all pairs would take forever."""
_MOST_HELD = 32
_PAIRS = 8192
_UNKNOWN, _KEPT, _DROPPED = 0, 1, 2

Texts = Callable[[], Iterable[Sequence[str]]]
"""Gives the texts in order, in batches of any size."""


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Pairs of near duplicates, arrays of one length sorted by `row`, each row at most once. row, earlier: numbers of texts, from
    0 (int64); similarity: their exact Jaccard similarity (float32)."""

    row: Any
    earlier: Any
    similarity: Any

    def __len__(self) -> int:
        return len(self.row)


def near_duplicates(texts: Texts, *, threshold: float, scratch: Path, progress: Progress = silent) -> NearDuplicates:
    """The texts that repeat an earlier one: leave out each `row`, and what is left is unlike, but for the misses above.

    A `row` is at least `threshold` alike to its `earlier`, which is smaller and is itself kept, so it is no `row`. Texts of which
    folding leaves nothing are like none. `scratch` is a folder for files, about 50 bytes a text and the texts themselves, which
    are gone at the end. `texts` is gone through once. Memory: some 50 bytes a text.
    """
    cut = banding(threshold)
    with FoldedStore(scratch / "near-texts") as store, BandFiles(scratch, cut.bands + 1) as bands:
        sketches = [np.zeros(0, np.uint64)]
        for folded, signed, filled in in_order(partial(_prepared, cut), _pieces(texts, progress)):
            store.add(folded)
            bands.add(signed.keys, filled)
            sketches.append(signed.sketches)
        count, sketch = store.close_for_reading(), np.concatenate(sketches)
        del sketches
        earlier, similarity = np.full(count, -1, np.int64), np.zeros(count, np.float32)
        for number in range(cut.bands + 1):
            progress("comparing near duplicates", number, cut.bands + 1)
            for rows, others in bands.meetings(number, EARLIEST, LATEST):
                worth = (earlier[rows] < 0) & may_be_alike(sketch[rows], sketch[others], threshold, cut)
                rows, others = rows[worth], others[worth]
                alike = _similarities(store, rows, others)
                hit = alike >= threshold
                earlier[rows[hit]], similarity[rows[hit]] = others[hit], alike[hit]
        return _settled(store, earlier, similarity, threshold)


def near_matches(held: Texts, rows: Texts, *, threshold: float, scratch: Path, progress: Progress = silent) -> NearDuplicates:
    """For each text of `rows` that is at least `threshold` alike to one of `held`, the first of those it is most alike to.

    `earlier` holds numbers of `held`. Memory: 8 bytes for each band of each held text, so some 100 bytes; `rows` pass through.
    """
    cut = banding(threshold)
    found: list[tuple[Any, Any, Any]] = []
    with FoldedStore(scratch / "held-texts") as store:
        index = _HeldBands(store, held, cut)
        start = 0
        for count, some, others, alike in in_order(partial(index.best, threshold), _pieces(rows, progress)):
            found.append((some + start, others, alike))
            start += count
    if not found:
        return NearDuplicates(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    return NearDuplicates(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


class _HeldBands:
    """The band keys of held texts, sorted, to look rows up in. `store` is filled with the texts."""

    def __init__(self, store: FoldedStore, held: Texts, cut: Banding) -> None:
        self._store, self._cut = store, cut
        keys, filled, sketches = [np.zeros((0, cut.bands + 1), np.uint32)], [np.zeros(0, bool)], [np.zeros(0, np.uint64)]
        for folded, signed, some in in_order(partial(_prepared, cut), _pieces(held, silent)):
            store.add(folded)
            keys.append(signed.keys[some])
            filled.append(some)
            sketches.append(signed.sketches)
        store.close_for_reading()
        self._sketches = np.concatenate(sketches)
        every, numbers = np.concatenate(keys), np.flatnonzero(np.concatenate(filled))
        self._bands: list[tuple[Any, Any]] = []
        for column in range(every.shape[1]):
            order = np.argsort(every[:, column], kind="stable")
            self._bands.append((every[order, column], numbers[order].astype(np.uint32)))

    def best(self, threshold: float, texts: Sequence[str]) -> tuple[int, Any, Any, Any]:
        """(how many texts; and of those that are `threshold` alike to any: number, number of the first held text it is most alike
        to, how alike)."""
        folded, signed, filled = _prepared(self._cut, texts)
        rows, others = self._candidates(signed.keys, filled)
        worth = may_be_alike(signed.sketches[rows], self._sketches[others], threshold, self._cut)
        rows, others = rows[worth], others[worth]
        alike = np.zeros(len(rows), np.float32)
        for start in range(0, len(rows), _PAIRS):
            part = slice(start, start + _PAIRS)
            some, more = folded.take(rows[part]), self._store.read(others[part])
            alike[part] = jaccard(shingle_hashes(some), shingle_hashes(more))
        hit = alike >= threshold
        rows, others, alike = rows[hit], others[hit], alike[hit]
        order = np.lexsort((others, -alike, rows))
        rows, others, alike = rows[order], others[order], alike[order]
        first = np.diff(rows, prepend=-1) != 0
        return len(folded), rows[first], others[first], alike[first]

    def _candidates(self, keys: Any, filled: Any) -> tuple[Any, Any]:
        """(numbers of the texts that have these keys, numbers of held texts) of all pairs that meet in a band, sorted, each once.

        Of one band a text meets the first 32 at most.
        """
        pairs = [np.zeros(0, np.uint64)]
        for column, (sorted_keys, numbers) in enumerate(self._bands):
            first = np.searchsorted(sorted_keys, keys[:, column], side="left")
            counts = np.minimum(np.searchsorted(sorted_keys, keys[:, column], side="right") - first, _MOST_HELD)
            counts[~filled] = 0
            rows = np.repeat(np.arange(len(keys)), counts)
            within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            others = numbers[np.repeat(first, counts) + within]
            pairs.append((rows.astype(np.uint64) << np.uint64(32)) | others)
        both = np.unique(np.concatenate(pairs))
        return (both >> np.uint64(32)).astype(np.int64), (both & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _pieces(texts: Texts, progress: Progress) -> Iterator[Sequence[str]]:
    """The texts in pieces of bounded size, whatever the size of the batches that come in."""
    done = 0
    for batch in texts():
        for piece in in_pieces(batch):
            yield piece
            done += len(piece)
            progress("fingerprinting texts", done, 0)


def _prepared(cut: Banding, texts: Sequence[str]) -> tuple[Folded, Signatures, Any]:
    """(the texts folded; their signatures, with the key of the whole text as a first band; which of them have any)."""
    folded = fold_batch(texts)
    hashes = shingle_hashes(folded)
    whole = (text_keys(hashes) >> np.uint64(32)).astype(np.uint32)
    signed = signatures(hashes, cut)
    return folded, Signatures(np.column_stack([whole, signed.keys]), signed.sketches), np.diff(hashes.starts) > 0


def _similarities(store: FoldedStore, rows: Any, others: Any) -> Any:
    parts = in_order(lambda pair: jaccard(shingle_hashes(pair[0]), shingle_hashes(pair[1])), store.pairs(rows, others))
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _settled(store: FoldedStore, earlier: Any, similarity: Any, threshold: float) -> NearDuplicates:
    """Let each row point to one that is kept. Where a row's partner is left out itself, the row is compared with what that one
    repeats, and kept if it is unlike it: a chain of small changes must not swallow texts that are unlike all that is kept."""
    state = np.where(earlier < 0, _KEPT, _UNKNOWN).astype(np.int8)
    pending = np.flatnonzero(earlier >= 0)
    while len(pending):
        partners = state[earlier[pending]]
        state[pending[partners == _KEPT]] = _DROPPED
        chained = pending[partners == _DROPPED]
        roots = earlier[earlier[chained]]
        alike = _similarities(store, chained, roots)
        hit = alike >= threshold
        earlier[chained], similarity[chained] = roots, alike
        state[chained[hit]], state[chained[~hit]] = _DROPPED, _KEPT
        pending = pending[partners == _UNKNOWN]
    row = np.flatnonzero(state == _DROPPED)
    return NearDuplicates(row, earlier[row], similarity[row])
