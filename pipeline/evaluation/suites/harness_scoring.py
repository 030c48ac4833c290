"""Answers of a generate_until task, scored as lm-evaluation-harness 0.4.13 does: its regex filter, its exact_match.

Patterns come from a task file and are tried on what a model says: each within a second, or the row is not judged.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

import regex

from pipeline.errors import BadInput
from pipeline.evaluation.suites.suite import Scores, Ways
from pipeline.ports import Judge

_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Extraction:
    """pattern: what is looked for in an answer, None for the whole of it; select: which of its finds; fallback: where there is
    none."""

    pattern: str | None
    select: int
    fallback: str

    def check(self, where: str) -> None:
        if self.pattern is not None:
            _check(self.pattern, where)

    def of(self, answer: str) -> str:
        if self.pattern is None:
            return answer
        found = regex.findall(self.pattern, answer, timeout=_SECONDS)
        if not found or not -len(found) <= self.select < len(found):
            return self.fallback
        one = found[self.select]
        if isinstance(one, tuple):
            one = next((part for part in one if part), self.fallback)
        return str(one).strip()


@dataclass(frozen=True, slots=True)
class Matching:
    """What is taken out of answer and target before they are compared."""

    ignored: tuple[str, ...] = ()
    case: bool = False
    punctuation: bool = False
    numbers: bool = False

    def check(self, where: str) -> None:
        for pattern in self.ignored:
            _check(pattern, where)

    def same(self, answer: str, target: str) -> bool:
        return self._bare(answer) == self._bare(target)

    def _bare(self, text: str) -> str:
        for pattern in self.ignored:
            text = regex.sub(pattern, "", text, timeout=_SECONDS)
        text = text.lower() if self.case else text
        gone = (string.punctuation if self.punctuation else "") + (string.digits if self.numbers else "")
        return text.translate(str.maketrans("", "", gone))


@dataclass(frozen=True, slots=True)
class Generated:
    """Scores 1 where what is extracted of an answer matches the target; None where a pattern takes too long on it."""

    prompts: tuple[str, ...]
    targets: tuple[str, ...]
    stops: tuple[str, ...]
    max_new_tokens: int
    extraction: Extraction
    matching: Matching

    def scores(self, subject: str, ways: Ways, judge: Judge | None) -> Scores:
        answers = ways.answers(subject, self.prompts, max_new_tokens=self.max_new_tokens, stop=self.stops, raw=True)
        return [self.score(answer, target) for answer, target in zip(answers, self.targets, strict=True)]

    def score(self, answer: str, target: str) -> float | None:
        try:
            return float(self.matching.same(self.extraction.of(answer), target))
        except TimeoutError:
            return None


def _check(pattern: str, where: str) -> None:
    try:
        if len(pattern) > 1000:
            raise ValueError("it is longer than 1000 characters")
        regex.compile(pattern)
    except (regex.error, ValueError, RecursionError) as error:
        raise BadInput(f"the pattern {pattern[:80]!r} cannot be used: {error}", where=where) from None
