"""A map: vectors of many dimensions as points on paper, neighbours near each other. For looking at; nothing is computed on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.exploring.topics import Vectors

MOST = 3_000
"""Points that are drawn; more would be a blot, and cost minutes."""
_SEED = 7


def lay_out(vectors: Vectors) -> npt.NDArray[np.float64]:
    """Positions [texts, 2] by t-SNE (van der Maaten & Hinton 2008) from a PCA start; by PCA alone where there are few texts.

    At most MOST texts. Distances between far groups mean little, as with every such map.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(vectors) > MOST:
        raise ValueError(f"a map takes at most {MOST} points")
    if len(vectors) < 3:
        return np.zeros((len(vectors), 2))
    reduced = PCA(min(30, *vectors.shape), random_state=_SEED).fit_transform(vectors)
    if len(vectors) < 60:
        flat = np.zeros((len(vectors), 2))
        flat[:, : min(2, reduced.shape[1])] = reduced[:, :2]
        return flat
    return np.asarray(TSNE(2, init="pca", perplexity=30, random_state=_SEED, max_iter=500).fit_transform(reduced), np.float64)
