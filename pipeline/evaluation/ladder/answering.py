"""The rungs of generate: the commonest answer, the nearest row's answer, the bare base after rows that show how it is done."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import zip_longest

from pipeline.domain.measured import Rung
from pipeline.domain.record import digest_value
from pipeline.evaluation.ladder.conversations import Shot, after, words_of
from pipeline.evaluation.ladder.words import Words
from pipeline.evaluation.rows import Said, SplitRows

AskBase = Callable[[list[str]], list[str]]
"""The bare base's answers to conversations (canonical JSON each)."""

SHOT_CHARACTERS = 6000
"""A longer row is not shown, as long as there are shorter ones: it would push the question's own beginning out of the context."""


def fit(rung: Rung, train: SplitRows, *, shots: int, ask_base: AskBase | None, seed: int) -> Callable[[SplitRows], Said] | None:
    """A rung fitted to rows of answers and calls, at least one; None for one that generate has no use for, or nobody to ask."""
    if rung is Rung.MAJORITY:
        answer = commonest(train.expected)
        return lambda asked: Said([answer] * len(asked))
    if rung is Rung.NEIGHBOUR:
        return _neighbour(train)
    if ask_base is None or rung not in (Rung.FEW_SHOT, Rung.RETRIEVAL):
        return None
    return _few_shot(train, shots, ask_base, seed) if rung is Rung.FEW_SHOT else _retrieval(train, shots, ask_base)


def commonest(expected: Sequence[str]) -> str:
    """What is expected most often; of equals the first by alphabet."""
    return min(Counter(expected).items(), key=lambda pair: (-pair[1], pair[0]))[0]


def _neighbour(train: SplitRows) -> Callable[[SplitRows], Said]:
    words, otherwise = Words([words_of(input) for input in train.inputs]), commonest(train.expected)

    def ask(asked: SplitRows) -> Said:
        places, near = words.nearest([words_of(input) for input in asked.inputs], 1)
        picked = zip(places[:, 0].tolist(), near[:, 0].tolist(), strict=True)
        return Said([train.expected[at] if alike > 0 else otherwise for at, alike in picked])

    return ask


def _few_shot(train: SplitRows, shots: int, ask_base: AskBase, seed: int) -> Callable[[SplitRows], Said]:
    shown = [_shot(train, at) for at in spread(train, shots, seed)]
    return lambda asked: Said(ask_base([after(input, shown) for input in asked.inputs]))


def _retrieval(train: SplitRows, shots: int, ask_base: AskBase) -> Callable[[SplitRows], Said]:
    held = train.only(_showable(train))
    words = Words([words_of(input) for input in held.inputs])

    def ask(asked: SplitRows) -> Said:
        places, _ = words.nearest([words_of(input) for input in asked.inputs], shots)
        # The nearest stands last, next to the question: a small model attends most to what it has just read.
        shown = [[_shot(held, at) for at in reversed(near)] for near in places.tolist()]
        return Said(ask_base([after(input, rows) for input, rows in zip(asked.inputs, shown, strict=True)]))

    return ask


def spread(train: SplitRows, number: int, seed: int) -> list[int]:
    """The numbers of `number` rows, drawn by the seed, in turn from each kind and source, those with most rows first.

    A row's place in the draw hangs on its id alone, so that a few new rows change few of the shots."""
    strata: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at in _showable(train):
        strata[train.kinds[at] if train.kinds else "", train.sources[at]].append(at)
    drawn = [
        sorted(places, key=lambda at: (digest_value([seed, train.ids[at]]), at))
        for _, places in sorted(strata.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    turns = (at for turn in zip_longest(*drawn) for at in turn if at is not None)
    return [at for at, _ in zip(turns, range(number), strict=False)]


def _showable(train: SplitRows) -> list[int]:
    """One row of each content, without those too long to be shown where others are left."""
    contents = list(zip(train.inputs, train.expected, strict=True))
    unlike = list(dict(reversed([(content, at) for at, content in enumerate(contents)])).values())
    short = sorted(at for at in unlike if sum(map(len, contents[at])) <= SHOT_CHARACTERS)
    return short or sorted(unlike)


def _shot(train: SplitRows, at: int) -> Shot:
    return Shot(train.inputs[at], train.expected[at], train.kinds[at] if train.kinds else "")
