"""How much a stage has to learn from: items, tokens, labels, reckoned from a sample of the data. Plain numbers; no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.domain.data import ExampleKind
from pipeline.domain.exploration import Shown
from pipeline.domain.tuning import Objective
from pipeline.errors import Misuse
from pipeline.params.train import StageParams

_MARKS = 8
"""Tokens that a chat template puts around a message, about."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Rows of the data to train on and to measure on, and the labels of a classifier. said: where that is from, for people."""

    train: int
    held: int
    labels: tuple[str, ...]
    said: str


@dataclass(frozen=True, slots=True)
class Work:
    """A stage's data. items: rows or pairs to train on; held: those it is measured on. tokens: of a row on average, as it is cut;
    longest: of the longest; labelled: of a row with a loss, on average. labels: how many a classifier tells apart."""

    items: int
    held: int
    tokens: float
    longest: int
    labelled: float
    labels: int = 0


def work_of(
    stage: StageParams,
    objective: Objective,
    kinds: Sequence[ExampleKind],
    drawn: Sequence[Shown],
    lengths: Sequence[tuple[int, int]],
    sides: Sides,
) -> Work:
    """The data of one stage, from a sample with (tokens asked, tokens answered) of each row. Raises Misuse when it learns from
    none."""
    learned = [(row, length) for row, length in zip(drawn, lengths, strict=True) if row.kind in kinds]
    if not learned:
        held = ", ".join(sorted({row.kind for row in drawn})) or "no rows"
        raise Misuse(
            f"{objective} learns from rows of {' and '.join(kinds)}, and the data hold {held}",
            where=f"train: {stage.name}",
            fix="ingest rows of such a format (docs/formats.md)",
        )
    # A pair gives kto two answers, each an item.
    each = sum(2 if objective is Objective.KTO and row.kind != ExampleKind.FEEDBACK else 1 for row, _ in learned) / len(drawn)
    marks = 0 if objective in (Objective.PRETRAIN, Objective.CLASSIFY) else _MARKS
    asked = [length[0] + marks for _, length in learned]
    answers = [0 if objective is Objective.CLASSIFY else length[1] + marks for _, length in learned]
    if objective is Objective.PPO:
        answers = [stage.ppo.max_new_tokens] * len(answers)
    whole = [min(a + b, stage.max_length) for a, b in zip(asked, answers, strict=True)]
    all_learned = objective in (Objective.PRETRAIN, Objective.REWARD)
    labelled = whole if all_learned else [min(b, n) for b, n in zip(answers, whole, strict=True)]
    longest = max(whole) if len(drawn) >= sides.train + sides.held else min(round(max(whole) * 1.25), stage.max_length)
    return Work(
        items=max(round(sides.train * each), 1),
        held=round(sides.held * each),
        tokens=sum(whole) / len(whole),
        longest=longest,
        labelled=sum(labelled) / len(labelled),
        labels=len(sides.labels),
    )
