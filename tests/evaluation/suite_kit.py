"""Subjects of plain functions for the tests of suites, and suites written to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.evaluation.metrics import metric
from pipeline.evaluation.rows import SplitRows
from pipeline.evaluation.suites import Suite, read_suite, run_suite
from pipeline.params.evaluate import SuiteParams

NOBODY = SplitRows([], [], [], [], [], [])


def content(conversation: str) -> str:
    """What the user said last."""
    return json.loads(conversation)[-1]["content"] if conversation.startswith("[") else conversation


class Told:
    """Ways by functions: answer(subject, text), likely(subject, prompt, continuation), label(subject, text)."""

    def __init__(
        self,
        answer: Callable[[str, str], str] = lambda subject, text: "",
        likely: Callable[[str, str, str], float] = lambda subject, prompt, continuation: 0.0,
        label: Callable[[str, str], str] = lambda subject, text: "",
    ) -> None:
        self.answer, self.likely, self.label = answer, likely, label
        self.asked: list[tuple[str, str, Any]] = []

    def answers(self, name: str, inputs: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = (), raw: bool = False):
        self.asked += [(name, text, (max_new_tokens, tuple(stop), raw)) for text in inputs]
        return [self.answer(name, content(text)) for text in inputs]

    def choices(self, name: str, prompts: Sequence[str], choices: Sequence[Sequence[str]], *, raw: bool = False):
        self.asked += [(name, text, (tuple(own), raw)) for text, own in zip(prompts, choices, strict=True)]
        return [[self.likely(name, prompt, one) for one in own] for prompt, own in zip(prompts, choices, strict=True)]

    def log_probs(self, name: str, inputs: Sequence[str], outputs: Sequence[str]):
        return [self.likely(name, given, text) for given, text in zip(inputs, outputs, strict=True)]

    def predict(self, name: str, texts: Sequence[str]):
        return [self.label(name, text) for text in texts]


def suite_of(
    folder: Path, kind: str, text: str | None, *, name: str = "rows.jsonl", test: SplitRows = NOBODY, **params: Any
) -> Suite:
    """The suite of a file with `text`; None: of the test rows."""
    if text is None:
        return read_suite(SuiteParams(name="it", kind=kind, **params), None, test, seed=7, primary=metric("exact_match"))
    (folder / name).write_text(text, encoding="utf-8")
    return read_suite(SuiteParams(name="it", kind=kind, file=name, **params), folder / name, test, seed=7)


def run(suite: Suite, ways: Told, *, subjects: Sequence[str] = ("candidate", "base"), **more: Any):
    return run_suite(suite, {name: name * 3 for name in subjects}, ways, resamples=200, **more)


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
