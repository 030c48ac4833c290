"""What can be said of a dataset before anything is trained on it. Pure values."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pipeline.domain.record import Record, Value


class Opinion(StrEnum):
    YES = "yes"
    NO = "no"
    UNCLEAR = "unclear"


class Answer(Value):
    """One question, what the evidence says, and the numbers behind it (each with its unit or interval in the text)."""

    question: str
    opinion: Opinion
    because: str
    evidence: dict[str, str]


class Advice(Record):
    """Whether tuning on this snapshot is likely to be worth it. probed: rows looked at of `rows`."""

    kind: ClassVar[str] = "advice"

    snapshot: str
    rows: int
    probed: int
    answers: tuple[Answer, ...]

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.snapshot,)

    @property
    def fine(self) -> bool:
        return all(answer.opinion is not Opinion.NO for answer in self.answers)
