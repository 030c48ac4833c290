"""Texts as TF-IDF of words and pieces of words, and which of them are near. No row and no label enters here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

READ = 4000
"""Characters of a text whose words are read; what it is about is told by then."""
_READ_IN_PIECES = 1000
"""Characters that are read as pieces of words: what misspellings, inflections and scripts without spaces have in common."""
_FEATURES = 200_000
_CHUNK = 256
_DECIMALS = 9
"""Sums differ in their last bits between machines; which text is nearest does not."""


class Words:
    """Words, pairs of words and pieces of two to four characters, weighed by how rare they are among `texts` (Salton & Buckley
    1988, "Term-weighting approaches in automatic text retrieval"; logarithmic term frequency, unit length)."""

    def __init__(self, texts: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import FeatureUnion

        shared = {"sublinear_tf": True, "dtype": np.float64, "max_features": _FEATURES}
        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\w+|\x00", preprocessor=_start, **shared)
        pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), preprocessor=_beginning, **shared)
        self._union = FeatureUnion([("words", words), ("pieces", pieces)])
        self._union.fit([*texts, "\x00\x00"])  # so that there is a vocabulary even where no text holds a word
        self.matrix: Any = self._union.transform(texts)
        self._turned = self.matrix.T.tocsc()

    def transform(self, texts: Sequence[str]) -> Any:
        """A sparse row a text."""
        return self._union.transform(texts)

    def nearest(self, texts: Sequence[str], number: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Of each text the `number` nearest of those given, nearest first, and how near (0: nothing in common). Of equals the
        earlier one. Both [texts, number], or fewer columns where there are fewer texts."""
        held = self.matrix.shape[0]
        number = min(number, held)
        places = np.zeros((len(texts), number), np.int64)
        near = np.zeros((len(texts), number))
        for start in range(0, len(texts), _CHUNK):
            asked = self.transform(texts[start : start + _CHUNK])
            # Halved: two parts of unit length each stand beside one another.
            alike = (asked @ self._turned).toarray() / 2
            places[start : start + _CHUNK], near[start : start + _CHUNK] = highest(alike, number)
        return places, near


def highest(scores: NDArray[Any], number: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of each row of `scores` the columns of its `number` highest, highest first, of equals the earlier; and those scores."""
    rounded: NDArray[np.float64] = np.asarray(np.round(scores, _DECIMALS), np.float64)
    if number == 1:
        places = rounded.argmax(1)[:, None]
    else:
        places = np.argsort(-rounded, axis=1, kind="stable")[:, :number]
    return places.astype(np.int64), np.take_along_axis(rounded, places, axis=1)


def _start(text: str) -> str:
    return text[:READ].lower()


def _beginning(text: str) -> str:
    return text[:_READ_IN_PIECES].lower()
