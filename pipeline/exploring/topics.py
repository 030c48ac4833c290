"""Topics: texts that lie together, and the words that set each apart. Arrays in, labels and words out.

No text is judged here; which of them are odd is anomalies.py's, which to look at next picking.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
_CHOICES = (4, 6, 8, 12, 16, 24, 32, 48, 64)
_SAMPLE = 2_000
_SEED = 7


@dataclass(frozen=True, slots=True)
class Topics:
    """of: topic of each text; centres: [topics, hidden]; words: the terms of each topic, the most telling first; silhouette: how
    well the topics are parted, -1 to 1 (Rousseeuw 1987), on a sample."""

    of: npt.NDArray[np.int64]
    centres: Vectors
    words: tuple[tuple[str, ...], ...]
    silhouette: float

    def name(self, topic: int) -> str:
        return ", ".join(self.words[topic]) or f"topic {topic + 1}"


def find_topics(vectors: Vectors, texts: Sequence[str], count: int | None = None) -> Topics:
    """k-means on unit vectors, topics in order of size, the largest first.

    count: how many; by default the number among a few whose topics are parted best by silhouette. The same input gives the same
    topics. Fewer than eight texts are one topic.
    """
    if len(texts) < 8:
        of, centres, parted = np.zeros(len(texts), np.int64), vectors.sum(0, keepdims=True), 0.0
    else:
        tried = [count] if count else [number for number in _CHOICES if number <= max(len(texts) // 4, _CHOICES[0])]
        parted, of, centres = max((_cluster(vectors, min(number, len(texts))) for number in tried), key=lambda found: found[0])
    sizes = np.bincount(of, minlength=len(centres))
    order = [topic for topic in np.argsort(-sizes, kind="stable").tolist() if sizes[topic]]
    rank = np.zeros(len(centres), np.int64)
    rank[order] = np.arange(len(order))
    of = rank[of] if len(of) else of
    return Topics(of, centres[order], _telling_words(texts, of, len(order)), parted)


def _cluster(vectors: Vectors, count: int) -> tuple[float, npt.NDArray[np.int64], Vectors]:
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(count, random_state=_SEED, n_init=3, batch_size=2048).fit(vectors)
    of = model.labels_.astype(np.int64)
    return _silhouette(vectors, of), of, model.cluster_centers_.astype(np.float32)


def _silhouette(vectors: Vectors, of: npt.NDArray[np.int64]) -> float:
    from sklearn.metrics import silhouette_score

    rows = np.random.default_rng(_SEED).permutation(len(of))[:_SAMPLE]
    if not 2 <= len(np.unique(of[rows])) < len(rows):
        return -1.0
    return float(silhouette_score(vectors[rows], of[rows]))


def _telling_words(texts: Sequence[str], of: npt.NDArray[np.int64], topics: int, most: int = 4) -> tuple[tuple[str, ...], ...]:
    """Class-based TF-IDF: how frequent a term is in a topic times how rare it is in all (Grootendorst 2022, BERTopic, eq. 2)."""
    from sklearn.feature_extraction.text import CountVectorizer

    joined = [" ".join(text[:2000] for text, topic in zip(texts, of.tolist(), strict=True) if topic == t) for t in range(topics)]
    counter = CountVectorizer(max_features=20_000, stop_words="english", token_pattern=r"(?u)\b[^\W\d_]{2,}\b")
    try:
        counts = counter.fit_transform(joined)
    except ValueError:  # not one word in all the texts
        return tuple(() for _ in range(topics))
    total = np.asarray(counts.sum(0)).ravel()
    weight = np.log1p(counts.sum() / max(topics, 1) / np.maximum(total, 1))
    names = counter.get_feature_names_out()
    found = []
    for topic in range(topics):
        row = np.asarray(counts[topic].todense()).ravel()
        scores = row / max(row.sum(), 1) * weight
        best = sorted(np.flatnonzero(scores).tolist(), key=lambda i: (-scores[i], names[i]))[:most]
        found.append(tuple(str(names[i]) for i in best))
    return tuple(found)
