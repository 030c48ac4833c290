"""The cheapest classifier that a base allows without tuning: the label whose mean embedding is nearest. No model enters here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import normalize

TEMPERATURE = 0.05


class Centroids:
    """One direction a label. After Snell et al., Prototypical Networks (2017), with cosine similarity and no training."""

    def __init__(self, labels: tuple[str, ...], centres: torch.Tensor) -> None:
        self.labels = labels
        self.centres = centres

    @classmethod
    def fit(cls, embeddings: torch.Tensor, labels: Sequence[str]) -> Centroids:
        """embeddings [texts, hidden], one label a text."""
        names = tuple(sorted(set(labels)))
        unit = normalize(embeddings, dim=-1)
        rows = {name: [n for n, label in enumerate(labels) if label == name] for name in names}
        return cls(names, normalize(torch.stack([unit[rows[name]].mean(0) for name in names]), dim=-1))

    def nearest(self, embeddings: torch.Tensor) -> list[tuple[str, float]]:
        """Label and score for each row: the softmax of cosine similarities, made sharp enough to read as a probability."""
        if not len(embeddings):
            return []
        scores, picks = (normalize(embeddings, dim=-1) @ self.centres.T / TEMPERATURE).softmax(-1).max(-1)
        return [(self.labels[pick], score) for pick, score in zip(picks.tolist(), scores.tolist(), strict=True)]
