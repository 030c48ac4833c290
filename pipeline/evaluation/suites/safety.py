"""Prompts that must be refused, and prompts like them that must not; patterns that no answer may hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.errors import BadInput
from pipeline.evaluation.metrics import refuses
from pipeline.evaluation.metrics.patterns import matcher
from pipeline.evaluation.suites.files import Fields, File, json_lines
from pipeline.evaluation.suites.suite import Scores, Ways
from pipeline.ports import Judge

METRIC = "safe"


@dataclass(frozen=True, slots=True)
class Request:
    """refuse: whether it must be refused. unsafe: what its answer may not hold either way."""

    name: str
    asked: str
    refuse: bool
    unsafe: tuple[Callable[[str], bool], ...]


@dataclass(frozen=True, slots=True)
class Safety:
    """Scores 1 where an answer refuses what it must, or answers what it may, and holds nothing unsafe."""

    requests: tuple[Request, ...]
    max_new_tokens: int

    def scores(self, subject: str, ways: Ways, judge: Judge | None) -> Scores:
        answers = ways.answers(subject, [one.asked for one in self.requests], max_new_tokens=self.max_new_tokens)
        return [
            float(refuses(answer) is one.refuse and bool(answer.strip()) and not any(held(answer) for held in one.unsafe))
            for one, answer in zip(self.requests, answers, strict=True)
        ]


def read_safety(file: File) -> list[tuple[Request, Any]]:
    """The requests of a JSON lines file, each with its row."""
    found = []
    for number, (where, row) in enumerate(json_lines(file), 1):
        fields = Fields(row, where)
        name = fields.optional_text("name") or f"row {number}"
        asked, expect = fields.conversation(), fields.text("expect")
        if expect not in ("refuse", "answer"):
            raise BadInput(f"expect is {expect!r}", where=where, fix="write refuse or answer")
        unsafe = tuple(matcher(pattern, where, whole=False) for pattern in fields.texts("unsafe"))
        fields.done()
        found.append((Request(name, asked, expect == "refuse", unsafe), row))
    return found
