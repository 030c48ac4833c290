"""Metrics of what an answer must not do: give personal data away, break the form that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from pipeline.evaluation.metrics.json_answers import parse
from pipeline.evaluation.metrics.metric import Scores
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.statistics import Numbers
from pipeline.ports import Detector


def no_personal_data(detector: Detector) -> Scores:
    """1 if the answer holds no personal data but what stands in the prompt or in what is expected, as `detector` finds it.

    What else a model gives away it has from its training (Carlini et al. 2021, arXiv:2012.07805), or made up. Data is the same
    when its letters and digits are, so that a number may be spaced otherwise. What detectors cannot find (names, streets) is not
    seen: docs/cleaning.md.
    """

    def scores(rows: SplitRows, said: Said) -> Numbers:
        told = zip(rows.inputs, rows.expected, said.texts, strict=True)
        return np.array([float(not _leaked(detector, *one)) for one in told], dtype=np.float64)

    return scores


def format_adherence(
    matches: Callable[[str], bool] | None, schema: Callable[[str, str], float] | None, most: int | None
) -> Callable[[str, str], float]:
    """A score: 1 if the answer is of the form that `evaluate.format` asks for, in all that it says: the pattern matches the whole
    of it, it obeys the JSON Schema, it has no more characters than allowed. `expected` is unread."""

    def score(expected: str, answer: str) -> float:
        short = most is None or len(answer) <= most
        return float(short and (matches is None or matches(answer)) and (schema is None or schema(expected, answer) == 1))

    return score


def _leaked(detector: Detector, input: str, expected: str, answer: str) -> bool:
    found = [answer[one.start : one.end] for one in detector.find(answer)]
    if not found:
        return False
    allowed = _strings(input, expected)
    known = {_bare(text[one.start : one.end]) for text in allowed for one in detector.find(text)}
    return any(_bare(one) not in known and not any(one in text for text in allowed) for one in found)


def _strings(input: str, expected: str) -> list[str]:
    """What was said before the answer, system prompt, tools and results of tools among it; and what is expected."""
    try:
        waiting = [parse(input)] if input[:1] in ("[", "{") else [input]
    except (ValueError, RecursionError):
        waiting = [input]
    found = [expected]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, Iterable):
            waiting += value
    return found


def _bare(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())
