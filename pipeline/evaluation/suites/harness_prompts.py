"""Rows of a task of lm-evaluation-harness into what a subject is asked: its doc_to_text, doc_to_target and doc_to_choice.

As in version 0.4.13: each is the name of a field, or a template over the row's fields; a worked example is text,
target_delimiter, target, fewshot_delimiter.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import BadInput
from pipeline.evaluation.suites.harness_scoring import Extraction, Generated, Matching
from pipeline.evaluation.suites.questions import MOST_CHOICES, Question
from pipeline.evaluation.suites.templates import filled

_GENERATION = {"until", "max_gen_toks", "max_new_tokens", "do_sample", "temperature"}
_MATCHING = {"ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore"}


@dataclass(slots=True)
class Prompts:
    """task: the file's keys; lines: where each stands. prompts: of docs, after the examples. targets, choices: of docs."""

    task: dict[str, Any]
    lines: dict[str, str]
    where: str
    examples: list[dict[str, Any]]
    docs: list[dict[str, Any]]
    prompts: list[str] = field(init=False)
    targets: list[Any] = field(init=False)
    choices: list[list[str]] | None = field(init=False)

    def __post_init__(self) -> None:
        rows = [*self.examples, *self.docs]
        count = len(self.examples)
        made = self._filled(rows)
        texts, targets, choices = self._texts(rows, made), self._targets(rows, made), self._choices(rows, made)
        before = made.get("description") or [self._text("description", "")] * len(rows)
        delimiter, between = self._text("target_delimiter", " "), self._text("fewshot_delimiter", "\n\n")
        shots = ""
        for at in range(count):
            answer = self._answer(targets[at], choices[at] if choices is not None else None)
            shots += texts[at] + (delimiter + answer + between if answer else "")
        self.prompts = [b + shots + text for b, text in zip(before[count:], texts[count:], strict=True)]
        self.targets, self.choices = targets[count:], None if choices is None else choices[count:]

    @property
    def delimiter(self) -> str:
        return self._text("target_delimiter", " ")

    def wrong(self, key: str, what: str, fix: str | None = None) -> BadInput:
        return BadInput(what, where=self.lines.get(key, f"{self.where} {key}"), fix=fix)

    def _text(self, key: str, usual: str) -> str:
        value = self.task.get(key, usual)
        if not isinstance(value, str):
            raise self.wrong(key, f"{key} is no text")
        return value

    def _filled(self, rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
        """The keys that are templates, filled in."""
        features = set(rows[0]) if rows else set[str]()
        keys = ("doc_to_text", "doc_to_target", "doc_to_choice", "description")
        templates = {key: v for key in keys if isinstance(v := self.task.get(key), str) and v and v not in features}
        return filled(templates, rows, self.where)

    def _texts(self, rows: Sequence[dict[str, Any]], made: dict[str, list[str]]) -> list[str]:
        texts: list[Any] = list(made.get("doc_to_text") or ()) or [row.get(self._text("doc_to_text", "")) for row in rows]
        if not all(isinstance(text, str) for text in texts):
            raise self.wrong("doc_to_text", "doc_to_text gives no text for every row", "name a field, or write a template")
        return [str(text) for text in texts]

    def _targets(self, rows: Sequence[dict[str, Any]], made: dict[str, list[str]]) -> list[Any]:
        target = self.task.get("doc_to_target")
        if isinstance(target, int) and not isinstance(target, bool):
            return [target] * len(rows)
        texts = made.get("doc_to_target")
        if texts is None:
            found = [row.get(self._text("doc_to_target", "")) for row in rows]
        elif self.task.get("doc_to_choice") is not None:
            found = [int(text) if text.isdigit() else text for text in texts]
        else:
            found = list(texts)
        if not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in found):
            raise self.wrong("doc_to_target", "doc_to_target gives no text and no number for every row")
        return found

    def _choices(self, rows: Sequence[dict[str, Any]], made: dict[str, list[str]]) -> list[list[str]] | None:
        choice = self.task.get("doc_to_choice")
        if choice is None:
            return None
        texts: list[str | None] = list(made.get("doc_to_choice") or ()) or [None] * len(rows)
        return [self._listed(choice, row, text) for row, text in zip(rows, texts, strict=True)]

    def _listed(self, choice: Any, row: dict[str, Any], text: str | None) -> list[str]:
        found = list(choice.values()) if isinstance(choice, dict) else choice
        if isinstance(choice, str):
            try:
                found = row[choice] if text is None else ast.literal_eval(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                raise self.wrong("doc_to_choice", f"{str(text)[:80]!r} is no list of texts") from None
        if not isinstance(found, list) or not 2 <= len(found) <= MOST_CHOICES or not all(isinstance(c, str) and c for c in found):
            raise self.wrong("doc_to_choice", f"doc_to_choice gives no list of 2 to {MOST_CHOICES} texts")
        return found

    def _answer(self, target: Any, choices: list[str] | None) -> str:
        """What a worked example answers."""
        if choices is not None and isinstance(target, int):
            if not 0 <= target < len(choices):
                raise self.wrong("doc_to_target", f"the target {target} is none of {len(choices)} choices")
            return choices[target]
        return str(target)


def questions(prompts: Prompts, names: Sequence[str]) -> tuple[Question, ...]:
    """The rows of a task of the kind multiple_choice."""
    if prompts.choices is None:
        raise prompts.wrong("doc_to_choice", "multiple_choice needs doc_to_choice")
    found = []
    for name, prompt, target, choices in zip(names, prompts.prompts, prompts.targets, prompts.choices, strict=True):
        right = choices.index(target) if isinstance(target, str) and target in choices else target
        if not isinstance(right, int) or not 0 <= right < len(choices):
            raise prompts.wrong("doc_to_target", f"{name}: the target {target!r} is none of the choices")
        asked = tuple(prompts.delimiter + choice for choice in choices)
        found.append(Question(name, prompt, asked, right, tuple(len(choice) for choice in choices)))
    return tuple(found)


def generated(prompts: Prompts, max_new_tokens: int) -> Generated:
    """The rows of a task of the kind generate_until."""
    given = prompts.task.get("generation_kwargs") or {}
    if not isinstance(given, dict) or (odd := set(given) - _GENERATION):
        raise prompts.wrong(
            "generation_kwargs",
            f"{', '.join(sorted(map(str, odd)))} is not read" if isinstance(given, dict) else "generation_kwargs is no mapping",
        )
    if given.get("do_sample") or given.get("temperature"):
        raise prompts.wrong("generation_kwargs", "answers are made greedily", "do_sample: false, temperature: 0")
    until = given.get("until", [prompts.task.get("fewshot_delimiter", "\n\n")])
    stops = [until] if isinstance(until, str) else until
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops) or len(stops) > 64:
        raise prompts.wrong("generation_kwargs", "until is no list of texts")
    most = given.get("max_gen_toks", given.get("max_new_tokens", max_new_tokens))
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= 32_768:
        raise prompts.wrong("generation_kwargs", f"max_gen_toks is {most!r}", "write a whole number up to 32768")
    return Generated(
        tuple(prompts.prompts), tuple(map(str, prompts.targets)), tuple(stops), most, _extraction(prompts), _matching(prompts)
    )


def _extraction(prompts: Prompts) -> Extraction:
    """The first filter of the file, or that which metric_list is read by: a regular expression and which of its finds counts."""
    listed = prompts.task.get("filter_list")
    if not listed:
        return Extraction(None, 0, "")
    first = listed[0] if isinstance(listed, list) and isinstance(listed[0], dict) else {}
    steps = first.get("filter")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise prompts.wrong("filter_list", "the first filter is no list of functions")
    found = Extraction(None, 0, "")
    for step in steps:
        name = step.get("function")
        if name == "take_first" or (name == "remove_whitespace" and found.pattern is None):
            continue
        if name != "regex" or found.pattern is not None or set(step) - {"function", "regex_pattern", "group_select", "fallback"}:
            raise prompts.wrong("filter_list", f"the filter {name} is not read here", "regex, then take_first, are")
        pattern, select = step.get("regex_pattern", r"#### (\-?[0-9\.\,]+)"), step.get("group_select", 0)
        if not isinstance(pattern, str) or not isinstance(select, int):
            raise prompts.wrong("filter_list", "regex_pattern is no text, or group_select no number")
        found = Extraction(pattern, select, str(step.get("fallback", "[invalid]")))
    found.check(prompts.lines.get("filter_list", prompts.where))
    return found


def _matching(prompts: Prompts) -> Matching:
    listed = prompts.task.get("metric_list") or [{"metric": "exact_match"}]
    given = next(one for one in listed if one.get("metric") == "exact_match")
    if odd := set(given) - _MATCHING - {"metric", "aggregation", "higher_is_better"}:
        raise prompts.wrong("metric_list", f"{', '.join(sorted(map(str, odd)))} of exact_match is not read")
    if given.get("aggregation", "mean") != "mean":
        raise prompts.wrong("metric_list", "exact_match is averaged", "aggregation: mean")
    patterns = given.get("regexes_to_ignore") or []
    if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
        raise prompts.wrong("metric_list", "regexes_to_ignore is no list of texts")
    found = Matching(
        tuple(patterns), bool(given.get("ignore_case")), bool(given.get("ignore_punctuation")), bool(given.get("ignore_numbers"))
    )
    found.check(prompts.lines.get("metric_list", prompts.where))
    return found
