"""Problems that are worked out in words, and the number (or text) at the end; plain text, after worked examples.

Prompts and extraction follow GSM8K (Cobbe et al. 2021, arXiv:2110.14168) in lm-evaluation-harness: "Question: …\nAnswer:", up to
the next "Question:". Of an answer counts what follows `#### `, else the last number in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from pipeline.errors import BadInput
from pipeline.evaluation.suites.files import Fields, File, json_lines
from pipeline.evaluation.suites.suite import Scores, Ways
from pipeline.ports import Judge

METRIC = "final_answer"
STOPS = ("Question:", "</s>", "<|im_end|>")
MARKED = re.compile(r"#### *([^\n]+)")
NUMBER = re.compile(r"-?[$€£]?[0-9][0-9.,]*|-?\.[0-9]+")
"""A number as people write it; what a currency sign, commas and a closing full stop are stripped of in `normal`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt in plain text, and what is to come out, as it is compared."""

    name: str
    prompt: str
    right: str


@dataclass(frozen=True, slots=True)
class Problems:
    """Scores 1 where what comes out is right."""

    problems: tuple[Problem, ...]
    max_new_tokens: int

    def scores(self, subject: str, ways: Ways, judge: Judge | None) -> Scores:
        prompts = [problem.prompt for problem in self.problems]
        answers = ways.answers(subject, prompts, max_new_tokens=self.max_new_tokens, stop=STOPS, raw=True)
        return [float(final(a, problem.right) == problem.right) for a, problem in zip(answers, self.problems, strict=True)]


def final(answer: str, right: str) -> str | None:
    """What an answer comes to: after its last `####`; else its last number where a number is right, else its last line."""
    marked = MARKED.findall(answer)
    if marked:
        return normal(marked[-1])
    if _number(right) is not None:
        numbers = NUMBER.findall(answer)
        return normal(numbers[-1]) if numbers else None
    lines = [line for line in answer.splitlines() if line.strip()]
    return normal(lines[-1]) if lines else None


def normal(text: str) -> str:
    """A number by its value, without currency, thousands' commas or a closing full stop (1,000.00 is 1000); any other text
    without regard to case, to white space and to a closing full stop."""
    text = " ".join(text.split()).removesuffix(".")
    number = _number(text)
    return text.casefold() if number is None else str(number)


def _number(text: str) -> Decimal | None:
    if len(text) > 60:
        return None
    bare = re.sub(r"[$€£,%\s]", "", text).rstrip(".")
    try:
        value = Decimal(bare) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)", bare, re.ASCII) else None
    except InvalidOperation:
        return None
    if value is None:
        return None
    return Decimal(0) if value == 0 else Decimal(format(value.normalize(), "f"))


@dataclass(frozen=True, slots=True)
class Given:
    """A problem as a file has it: question, and the answer with its way."""

    name: str
    question: str
    answer: str


def read_problems(file: File) -> list[tuple[Given, Any]]:
    """JSON lines with question and answer; what follows `####` in an answer is the final one, without it all of it is."""
    found = []
    for number, (where, row) in enumerate(json_lines(file), 1):
        fields = Fields({key: value for key, value in row.items() if key not in ("id", "category")}, where)
        name = fields.optional_text("name") or f"row {number}"
        given = Given(name, fields.text("question"), fields.text("answer"))
        fields.done()
        if "####" in given.answer and not MARKED.findall(given.answer):
            raise BadInput("nothing follows #### in the answer", where=where, fix="write the final answer there")
        found.append((given, row))
    return found


def prompted(asked: Sequence[Given], shots: Sequence[Given]) -> tuple[Problem, ...]:
    before = "".join(f"Question: {shot.question}\nAnswer: {shot.answer}\n\n" for shot in shots)
    return tuple(Problem(one.name, f"{before}Question: {one.question}\nAnswer:", _right(one.answer)) for one in asked)


def _right(answer: str) -> str:
    marked = MARKED.findall(answer)
    return normal(marked[-1] if marked else answer)
