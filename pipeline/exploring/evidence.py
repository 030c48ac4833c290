"""Evidence on whether prompts tell their answers: neighbours that agree, words that can be copied. Texts in, numbers out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.exploring.topics import Vectors

Likeness = Callable[[str, str], float]
"""How like two answers are, 0 to 1."""
CLOSE = 0.9
"""Cosine from which two prompts ask nearly the same."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """nearest: of each row, the row most like it; cosine: how like."""

    nearest: npt.NDArray[np.int64]
    cosine: npt.NDArray[np.float64]

    @classmethod
    def find(cls, vectors: Vectors) -> Neighbours:
        """vectors: [rows, hidden] of unit length, two rows or more."""
        nearest, cosine = np.zeros(len(vectors), np.int64), np.zeros(len(vectors))
        for start in range(0, len(vectors), 1024):
            alike = vectors[start : start + 1024] @ vectors.T
            own = np.arange(len(alike))
            alike[own, start + own] = -2.0
            nearest[start : start + 1024] = alike.argmax(1)
            cosine[start : start + 1024] = alike.max(1)
        return cls(nearest, cosine)


def disagreement(found: Neighbours, answers: Sequence[str], likeness: Likeness) -> tuple[int, float]:
    """(rows that have a near twin, mean unlikeness of their answers to the twin's). Half of what twins disagree on is beyond any
    model that sees the prompt alone (Cover & Hart 1967: the nearest-neighbour error is at most twice the least possible one)."""
    twins = np.flatnonzero(found.cosine >= CLOSE).tolist()
    if not twins:
        return 0, 0.0
    return len(twins), float(np.mean([1 - likeness(answers[i], answers[found.nearest[i]]) for i in twins]))


def lift(found: Neighbours, answers: Sequence[str], likeness: Likeness, seed: int = 7) -> tuple[float, float, float]:
    """How much more an answer is like its nearest neighbour's than like a random row's: (mean difference, least, most), 95 %."""
    generator = np.random.default_rng(seed)
    others = (np.arange(len(answers)) + generator.integers(1, len(answers), len(answers))) % len(answers)
    gains = np.array(
        [
            likeness(answer, answers[near]) - likeness(answer, answers[other])
            for answer, near, other in zip(answers, found.nearest.tolist(), others.tolist(), strict=True)
        ]
    )
    means = gains[generator.integers(0, len(gains), (500, len(gains)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return float(gains.mean()), low, high


def word_origins(prompts: Sequence[str], answers: Sequence[str], found: Neighbours) -> tuple[float, float, float]:
    """Shares of the answers' words that stand (in the prompt, else in the nearest row's answer, nowhere). What is nowhere the
    base must know, or the model will make up."""
    in_prompt = in_neighbour = nowhere = 0
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        said, near = set(_words(prompt)), set(_words(answers[found.nearest[i]]))
        for word in _words(answer):
            if word in said:
                in_prompt += 1
            elif word in near:
                in_neighbour += 1
            else:
                nowhere += 1
    total = max(in_prompt + in_neighbour + nowhere, 1)
    return in_prompt / total, in_neighbour / total, nowhere / total


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
