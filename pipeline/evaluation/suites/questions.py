"""Questions with several answers, of which the likeliest is the subject's; plain text, after worked examples.

Prompt and scoring are those of MMLU (Hendrycks et al. 2021, arXiv:2009.03300) in lm-evaluation-harness: the letters of the
answers are weighed after the question, the answers and "Answer:".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import BadInput
from pipeline.evaluation.suites.files import Fields, File, csv_rows, json_lines
from pipeline.evaluation.suites.suite import Scores, Ways
from pipeline.ports import Judge

METRIC, NORMALISED = "acc", "acc_norm"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_CHOICES = len(LETTERS)


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt in plain text, and its choices as they go on; right: the place of the right one. lengths: characters of each
    choice, by which acc_norm divides its likelihood."""

    name: str
    prompt: str
    choices: tuple[str, ...]
    right: int
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Questions:
    """Scores 1 where the right choice is the likeliest (of equally likely ones the first counts); `normalised`: by character."""

    questions: tuple[Question, ...]
    normalised: bool = False

    def scores(self, subject: str, ways: Ways, judge: Judge | None) -> Scores:
        prompts, choices = [q.prompt for q in self.questions], [q.choices for q in self.questions]
        found = ways.choices(subject, prompts, choices, raw=True)
        return [self._score(question, sums) for question, sums in zip(self.questions, found, strict=True)]

    def _score(self, question: Question, sums: Sequence[float]) -> float | None:
        if any(value != value for value in sums):
            return None
        weighed = [v / max(n, 1) for v, n in zip(sums, question.lengths, strict=True)] if self.normalised else list(sums)
        return float(weighed.index(max(weighed)) == question.right)


@dataclass(frozen=True, slots=True)
class Given:
    """A question as a file has it."""

    name: str
    question: str
    choices: tuple[str, ...]
    right: int


def read_questions(file: File) -> list[tuple[Given, Any]]:
    """JSON lines with question, choices and answer (a letter, a place from 0, or the choice itself), or CSV: a question, its
    choices and the letter of the right one, with or without a first line of names."""
    found: list[tuple[Given, Any]] = []
    if file.suffix == ".csv":
        for number, (where, cells) in enumerate(csv_rows(file)):
            if number == 0 and cells[0].strip().lower() == "question" and cells[-1].strip().lower() == "answer":
                continue
            if len(cells) < 4:
                raise BadInput(
                    f"the row has {len(cells)} cells", where=where, fix="a question, two choices or more, and the answer"
                )
            row = {"question": cells[0], "choices": cells[1:-1], "answer": cells[-1].strip()}
            found.append((_given(f"row {len(found) + 1}", row, where), row))
        return found
    for number, (where, row) in enumerate(json_lines(file), 1):
        found.append((_given(f"row {number}", row, where), row))
    return found


def _given(name: str, row: dict[str, Any], where: str) -> Given:
    row = {key: value for key, value in row.items() if key not in ("subject", "id", "category")}
    fields = Fields(row, where)
    name = fields.optional_text("name") or name
    question, choices, answer = fields.text("question"), fields.anything("choices"), fields.anything("answer")
    fields.done()
    if (
        not isinstance(choices, list)
        or not 2 <= len(choices) <= MOST_CHOICES
        or not all(isinstance(c, str) and c for c in choices)
    ):
        raise BadInput("choices is no list of texts", where=where, fix=f"give it 2 to {MOST_CHOICES} choices, none of them empty")
    right = -1
    if isinstance(answer, int) and not isinstance(answer, bool):
        right = answer
    elif isinstance(answer, str) and answer in choices:
        right = choices.index(answer)
    elif isinstance(answer, str) and len(answer) == 1:
        right = LETTERS.find(answer)
    if not 0 <= right < len(choices):
        raise BadInput(
            f"answer is {answer!r}, which is none of the {len(choices)} choices",
            where=where,
            fix="write its letter, its place from 0, or the choice itself",
        )
    return Given(name, question, tuple(choices), right)


def prompted(asked: Sequence[Given], shots: Sequence[Given]) -> tuple[Question, ...]:
    """Questions after worked examples, as MMLU has them."""
    before = "".join(f"{_text(shot)} {LETTERS[shot.right]}\n\n" for shot in shots)
    return tuple(
        Question(
            one.name,
            before + _text(one),
            tuple(f" {letter}" for letter in LETTERS[: len(one.choices)]),
            one.right,
            (1,) * len(one.choices),
        )
        for one in asked
    )


def _text(one: Given) -> str:
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, one.choices, strict=False)]
    return "\n".join([one.question.strip(), *lines, "Answer:"])
