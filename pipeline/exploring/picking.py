"""What to label next: texts that a model would be unsure of, and that are unlike one another and unlike what is labelled.

Vectors and doubts in, positions out, in the order in which they are worth a person's time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.exploring.topics import Vectors

_SEED = 7


def doubt_by_labels(vectors: Vectors, labelled: Vectors, labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """1 - (best - second best probability) of a logistic regression learned from the labelled texts: margin sampling (Scheffer,
    Decomain & Wrobel 2001). 0 is sure, 1 is torn between two. One label only: all 1."""
    from sklearn.linear_model import LogisticRegression

    if len(set(labels)) < 2:
        return np.ones(len(vectors))
    model = LogisticRegression(C=10.0, max_iter=300).fit(labelled, list(labels))
    ordered = np.sort(model.predict_proba(vectors), 1)
    return np.asarray(1 - (ordered[:, -1] - ordered[:, -2]))


def doubt_by_topics(vectors: Vectors, centres: Vectors) -> npt.NDArray[np.float64]:
    """Without labels: how close to one another the nearest two topics of each text are, 0 (clear) to 1 (between two)."""
    if len(centres) < 2:
        return np.ones(len(vectors))
    distances = np.sort(np.linalg.norm(vectors[:, None] - centres[None], axis=2), 1)
    return np.asarray(distances[:, 0] / np.maximum(distances[:, 1], 1e-9))


def pick(vectors: Vectors, doubts: npt.NDArray[np.float64], count: int, known: Vectors | None = None) -> list[int]:
    """Positions of `count` texts, each chosen for its doubt times its distance to the nearest one that is known or chosen.

    Greedy k-centre (Sener & Savarese 2018) weighted by doubt. known: vectors of what is labelled already.
    """
    if known is not None and len(known):
        distance = np.full(len(vectors), np.inf)
        for start in range(0, len(known), 512):
            piece = known[start : start + 512]
            near = np.sqrt(np.maximum(2 - 2 * vectors @ piece.T, 0)).min(1)
            distance = np.minimum(distance, near)
    else:
        distance = np.ones(len(vectors))
    chosen: list[int] = []
    worth = np.maximum(doubts, 1e-3)
    for _ in range(min(count, len(vectors))):
        best = int(np.argmax(worth * distance))
        chosen.append(best)
        distance = np.minimum(distance, np.sqrt(np.maximum(2 - 2 * vectors @ vectors[best], 0)))
        distance[best] = -1.0
    return chosen
