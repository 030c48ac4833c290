"""Rewards that need no model: what can be checked of an answer's text. Pure functions; a rule gives 0 to 1."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence

from pipeline.params.learning import RewardSource


def judged(source: RewardSource, answers: Sequence[str], wanted: Sequence[str]) -> list[float]:
    """What the rule of `source` gives each answer; `wanted` are the rows' own answers, empty where a row has none."""
    if source.rule == "json_valid":
        return [float(is_json(answer)) for answer in answers]
    if source.rule == "exact_match":
        return [float(answer.strip() == own.strip() != "") for answer, own in zip(answers, wanted, strict=True)]
    if source.rule == "length":
        return [nearness(len(answer.split()), source.words) for answer in answers]
    return [1.0 - repetition(answer.split()) for answer in answers]


def is_json(text: str) -> bool:
    """Whether `text` is one JSON value and nothing more; NaN and Infinity, which Python would take, are none."""
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def nearness(count: int, aim: int) -> float:
    """1 at `aim`, falling in a straight line to 0 at none and at twice as many."""
    return max(0.0, 1.0 - abs(count - aim) / aim)


def repetition(pieces: Sequence[Hashable]) -> float:
    """The share of triples of neighbours that were there before; 0 for fewer than three pieces."""
    triples = list(zip(pieces, pieces[1:], pieces[2:], strict=False))
    return 1.0 - len(set(triples)) / len(triples) if triples else 0.0


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
