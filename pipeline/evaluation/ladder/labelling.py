"""The rungs of classify: the commonest label, a linear classifier of words, and what the bare base's vectors tell without tuning.

A rung gives its confidence where it has an honest one, a share of what it saw: margins and cosines are none.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.domain.measured import Rung
from pipeline.domain.record import digest_value
from pipeline.evaluation.ladder.answering import commonest
from pipeline.evaluation.ladder.words import Words, highest
from pipeline.evaluation.rows import Said, SplitRows

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
"""Texts as vectors [texts, hidden], near each other where the texts say much the same."""

_CHUNK = 1024
_Ask = Callable[[SplitRows], Said]


def fit(rung: Rung, train: SplitRows, *, shots: int, embed: Embed | None, seed: int) -> _Ask | None:
    """A rung fitted to labelled rows, at least one; None for one that embeds, where nobody does."""
    if rung is Rung.MAJORITY:
        return _always(train)
    if rung is Rung.LINEAR:
        return _linear(train, seed) if len(set(train.expected)) > 1 else _always(train)
    if rung is Rung.NEIGHBOUR:
        return _neighbour(train)
    if embed is None:
        return None
    if rung is Rung.ZERO_SHOT:
        return _zero_shot(train, embed)
    return _few_shot(train, shots, embed, seed) if rung is Rung.FEW_SHOT else _retrieval(train, shots, embed)


def _always(train: SplitRows) -> _Ask:
    label = commonest(train.expected)
    share = train.expected.count(label) / len(train)
    return lambda asked: Said([label] * len(asked), [share] * len(asked))


def _linear(train: SplitRows, seed: int) -> _Ask:
    """A linear support vector machine, one label against the others (Fan et al. 2008, LIBLINEAR), as Joachims 1998, "Text
    Categorization with Support Vector Machines", found it hard to beat."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    words = Words(train.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a label of few, contradicting rows: good enough as it is
        model = LinearSVC(C=1.0, random_state=seed).fit(words.matrix, np.array(train.expected, object))
    return lambda asked: Said([str(label) for label in model.predict(words.transform(asked.inputs))] if len(asked) else [])


def _neighbour(train: SplitRows) -> _Ask:
    words, otherwise = Words(train.inputs), commonest(train.expected)

    def ask(asked: SplitRows) -> Said:
        places, near = words.nearest(asked.inputs, 1)
        picked = zip(places[:, 0].tolist(), near[:, 0].tolist(), strict=True)
        return Said([train.expected[at] if alike > 0 else otherwise for at, alike in picked])

    return ask


def _zero_shot(train: SplitRows, embed: Embed) -> _Ask:
    """The label whose name, read as words, lies nearest. Of the training rows it knows the labels alone."""
    labels = sorted(set(train.expected))
    names = _unit(np.asarray(embed([label.replace("_", " ").strip() for label in labels]), np.float32))
    return lambda asked: Said([labels[at] for at in _nearest(embed, asked.inputs, names, 1)[:, 0].tolist()])


def _few_shot(train: SplitRows, shots: int, embed: Embed, seed: int) -> _Ask:
    """The label whose `shots` rows, drawn by the seed, lie nearest on average (Snell et al. 2017, "Prototypical Networks")."""
    of: dict[str, list[int]] = defaultdict(list)
    for at in sorted(range(len(train)), key=lambda at: (digest_value([seed, train.ids[at]]), at)):
        if len(of[train.expected[at]]) < shots:
            of[train.expected[at]].append(at)
    labels = sorted(of)
    shown = [at for label in labels for at in of[label]]
    vectors = _unit(np.asarray(embed([train.inputs[at] for at in shown]), np.float32))
    ends = np.cumsum([len(of[label]) for label in labels])[:-1]
    centres = _unit(np.stack([part.mean(0) for part in np.split(vectors, ends)]))
    return lambda asked: Said([labels[at] for at in _nearest(embed, asked.inputs, centres, 1)[:, 0].tolist()])


def _retrieval(train: SplitRows, shots: int, embed: Embed) -> _Ask:
    """The label that most of the `shots` nearest rows have; of equals the one of the nearer row. Confidence: their share."""
    vectors = _unit(np.asarray(embed(train.inputs), np.float32))

    def ask(asked: SplitRows) -> Said:
        texts, shares = [], []
        for near in _nearest(embed, asked.inputs, vectors, shots).tolist():
            label, votes = Counter(train.expected[at] for at in near).most_common(1)[0]  # of equals the first seen
            texts.append(label)
            shares.append(votes / len(near))
        return Said(texts, shares)

    return ask


def _nearest(embed: Embed, texts: Sequence[str], held: Vectors, number: int) -> npt.NDArray[np.int64]:
    """Of each text the numbers of the nearest vectors in `held`, by cosine: [texts, number], or as many as there are."""
    number = min(number, len(held))
    if not texts:
        return np.zeros((0, number), np.int64)
    vectors = _unit(np.asarray(embed(texts), np.float32))
    parts = [highest(vectors[at : at + _CHUNK] @ held.T, number)[0] for at in range(0, len(vectors), _CHUNK)]
    return np.concatenate(parts)


def _unit(vectors: Vectors) -> Vectors:
    """The same directions at unit length; a zero vector stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), np.float32)
