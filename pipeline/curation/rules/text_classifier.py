"""A small, fast classifier of texts: hashed words and character n-grams, weighed by rarity, and one logistic regression a label.

Deterministic, on one core, without downloads and without torch. What its answers are used for is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_HASHED = 1 << 18
_MOST_COLUMNS = 1 << 15
"""Of the n-grams that come more than once, the commonest so many are looked at: what coefficients take is bounded by it."""
_CHARS = 1000
"""Of a text its beginning is looked at."""
_EPOCHS = (5, 50)
_UPDATES = 50_000
_SEED = 7


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """Which hashed n-grams are looked at, and how rare each is. columns: their numbers; weights: smoothed inverse document
    frequencies (Spärck Jones 1972)."""

    columns: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]]) -> Self:
        """From the texts that a model will be fitted on, in batches."""
        seen, total = np.zeros(2 * _HASHED, np.int64), 0
        for batch in texts:
            seen += _hashed(batch).getnnz(axis=0)
            total += len(batch)
        commonest = np.lexsort((np.arange(len(seen)), -seen))[:_MOST_COLUMNS]
        columns = np.sort(commonest[seen[commonest] > 1])
        return cls(columns, (np.log((1 + total) / (1 + seen[columns])) + 1).astype(np.float32))

    def count(self, texts: Sequence[str]) -> Any:
        """How often each n-gram comes in each text: scipy.sparse, (texts, columns)."""
        return _hashed(texts)[:, self.columns]

    def counts(self, texts: Iterable[Sequence[str]]) -> Any:
        from scipy import sparse

        return sparse.vstack([self.count(batch) for batch in texts], format="csr")

    def weigh(self, counts: Any) -> Any:
        """Rows of length 1: logarithmic counts times rarity."""
        from sklearn.preprocessing import normalize

        weighed = counts.astype(np.float32, copy=True)
        weighed.data = 1 + np.log(weighed.data)
        return normalize(weighed.multiply(self.weights).tocsr(), copy=False)


class TextClassifier:
    """Probabilities of labels for weighed features."""

    def __init__(self, model: Any, labels: int) -> None:
        self._model = model
        self._labels = labels

    @classmethod
    def fit(cls, features: Any, given: npt.NDArray[np.int32], *, labels: int) -> Self:
        """Fit on rows of features and the number of each one's label, of `labels` in all."""
        from sklearn.linear_model import SGDClassifier

        epochs = int(np.clip(_UPDATES // max(features.shape[0], 1), *_EPOCHS))
        model = SGDClassifier(loss="log_loss", alpha=3e-5, max_iter=epochs, tol=None, random_state=_SEED)
        return cls(model.fit(features, given), labels)

    def probabilities(self, features: Any) -> npt.NDArray[np.float32]:
        """(rows, labels); 0 for labels that were not among those fitted on."""
        likely = np.zeros((features.shape[0], self._labels), np.float32)
        likely[:, self._model.classes_] = self._model.predict_proba(features)
        return likely


def _hashed(texts: Sequence[str]) -> Any:
    from scipy import sparse
    from sklearn.feature_extraction.text import HashingVectorizer

    shared = {"n_features": _HASHED, "alternate_sign": False, "norm": None, "dtype": np.float32}
    texts = [text[:_CHARS] for text in texts]
    words = HashingVectorizer(analyzer="word", ngram_range=(1, 2), token_pattern=r"\S+", **shared)
    pieces = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), **shared)
    return sparse.hstack([words.transform(texts), pieces.transform(texts)], format="csr")
