"""Which rung of the ladder is fitted to what: the way in. What each does stands in answering.py and labelling.py."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.domain.data import LEARNED_KINDS, Task
from pipeline.domain.measured import Rung
from pipeline.domain.record import digest_value
from pipeline.evaluation.ladder import answering, labelling
from pipeline.evaluation.ladder.answering import AskBase
from pipeline.evaluation.ladder.labelling import Embed
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.params.evaluate import LadderParams

Ask = Callable[[SplitRows], Said]
"""A fitted rung: given rows (one, or all), what it says to each."""

_ASKS_A_MODEL = frozenset({Rung.ZERO_SHOT, Rung.FEW_SHOT, Rung.RETRIEVAL})


def fit(
    rung: Rung,
    train: SplitRows,
    *,
    task: Task,
    shots: int,
    ask_base: AskBase | None,
    embed: Embed | None,
    seed: int,
) -> Ask | None:
    """A rung fitted to the training rows that show an answer or a label; None where the task has no use for it.

    generate has none for linear (answers are no labels) and zero_shot (that is the bare base itself, measured as `base`). None
    too where there is no such training row, or where what the rung asks (ask_base, embed) is not there. The order of the rows
    changes nothing. Rows of other kinds than the task's own (pairs, rankings, texts) are answered by ''.
    """
    rows = train.only(_shown(train, task))
    if not len(rows):
        return None
    if task is Task.CLASSIFY:
        return labelling.fit(rung, rows, shots=shots, embed=embed, seed=seed)
    asked = answering.fit(rung, rows, shots=shots, ask_base=ask_base, seed=seed)
    return None if asked is None else _of_answers(asked)


def climb(
    rung: Rung,
    train: SplitRows,
    test: SplitRows,
    *,
    task: Task,
    shots: int,
    ask_base: AskBase | None,
    embed: Embed | None,
    seed: int,
) -> Said | None:
    """What a rung says to all test rows; None where `fit` gives none."""
    ask = fit(rung, train, task=task, shots=shots, ask_base=ask_base, embed=embed, seed=seed)
    return None if ask is None else ask(test)


def looked_among(train: SplitRows, task: Task, most: int) -> SplitRows:
    """The training rows that the ladder looks among: those with an answer or a label, at most `most`.

    Ids are hashes, so the first by id are a fair sample, and the same one whatever the order of the rows."""
    return train.only(_shown(train, task)[:most])


def identity(rung: Rung, train: SplitRows, params: LadderParams, *, seed: int, base: str) -> str:
    """Digest of what a rung is made of: the rows, and for one that asks a model how many are shown and the base's digest."""
    rows = [list(pair) for pair in sorted(zip(train.ids, train.expected, strict=True))]
    return digest_value([rung.value, rows, *([params.shots, seed, base] if rung in _ASKS_A_MODEL else [])])


def _shown(train: SplitRows, task: Task) -> list[int]:
    """The rows with an answer or a label, by id."""
    return sorted(train.places(LEARNED_KINDS[task]), key=lambda at: (train.ids[at], train.expected[at]))


def _of_answers(ask: Ask) -> Ask:
    """The same for rows of all kinds: those that no answer can be given to get ''."""

    def asked(rows: SplitRows) -> Said:
        places = rows.places(LEARNED_KINDS[Task.GENERATE])
        texts = [""] * len(rows)
        for at, text in zip(places, ask(rows.only(places)).texts if places else (), strict=True):
            texts[at] = text
        return Said(texts)

    return asked
