"""Anomalies: texts that have no neighbours. Vectors in, scores out; whether an odd text is a bad one is for a person to say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.exploring.topics import Vectors

THRESHOLD = 3.5
"""Robust z-score from which a text is flagged (Iglewicz & Hoaglin 1993, How to Detect and Handle Outliers)."""


def oddness(vectors: Vectors, neighbours: int = 10) -> npt.NDArray[np.float64]:
    """Robust z-score of each text's mean distance to its nearest neighbours (weighted kNN outliers, Angiulli & Pizzuti 2002).

    Distances are of unit vectors, 0 to 2. With fewer than three texts nothing can be odd: all scores are 0.
    """
    from sklearn.neighbors import NearestNeighbors

    if len(vectors) < 3:
        return np.zeros(len(vectors))
    count = min(neighbours, len(vectors) - 1)
    found, _ = NearestNeighbors(n_neighbors=count + 1).fit(vectors).kneighbors(vectors)
    mean = found[:, 1:].mean(1)
    middle = np.median(mean)
    spread = np.median(np.abs(mean - middle)) * 1.4826
    return (mean - middle) / spread if spread > 0 else np.zeros(len(vectors))
