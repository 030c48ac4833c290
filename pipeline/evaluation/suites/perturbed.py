"""The test rows once more, as hurried people would type them: misspelled, in other case, oddly spaced. What does a subject keep?

Words that stand in the expected answer, and words with digits, are left alone: the right answer stays right. Which change a row
gets, and where, follows from its id and the seed. Keyboard slips are those of Pruthi et al. 2019 (arXiv:1905.11268): a swap of
neighbours, a letter dropped, one doubled, one of the next key.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.domain.data import ExampleKind
from pipeline.domain.record import canonical_json, digest_value
from pipeline.evaluation.metrics import Metric, slice_metric
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.suites.suite import Scores, Ways
from pipeline.ports import Judge

ASKED = frozenset({ExampleKind.ANSWER, ExampleKind.CALL, ExampleKind.LABEL})
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEXT = {
    letter: "".join(
        {*row[max(0, at - 1) : at], *row[at + 1 : at + 2], *(other[at] for other in _ROWS if at < len(other))} - {letter}
    )
    for row in _ROWS
    for at, letter in enumerate(row)
}
_WORD = re.compile(r"[^\W\d_]{2,}")
_SHARE = 0.15
"""Of the words that may change, those that are misspelled; at least one."""


@dataclass(frozen=True, slots=True)
class PerturbedRows:
    """Scores what `primary` (by slice, where it has no score a row) gives the answers to the changed rows. places: of these rows
    among the test rows."""

    rows: SplitRows
    primary: Metric
    max_new_tokens: int
    places: tuple[int, ...]

    @property
    def metric(self) -> str:
        return slice_metric(self.primary).name

    def scores(self, subject: str, ways: Ways, judge: Judge | None) -> Scores:
        return scored(self.primary, self.rows, answered(self.rows, subject, ways, self.max_new_tokens))


def answered(rows: SplitRows, subject: str, ways: Ways, max_new_tokens: int) -> Said:
    """What a subject says to rows of a label or an answer each."""
    said = [""] * len(rows)
    labelled, others = rows.places({ExampleKind.LABEL}), rows.places(ASKED - {ExampleKind.LABEL})
    if not rows.kinds:
        labelled = []
    for at, label in zip(labelled, ways.predict(subject, [rows.inputs[at] for at in labelled]) if labelled else (), strict=True):
        said[at] = label
    inputs = [rows.inputs[at] for at in others]
    answers = ways.answers(subject, inputs, max_new_tokens=max_new_tokens) if others else ()
    for at, answer in zip(others, answers, strict=True):
        said[at] = answer
    return Said(said)


def scored(primary: Metric, rows: SplitRows, said: Said) -> Scores:
    """A score a row; None where it is no number."""
    found = slice_metric(primary).scores(rows, said)
    return [None] * len(rows) if found is None else [None if value != value else float(value) for value in found.tolist()]


def perturbed(rows: SplitRows, *, seed: int) -> SplitRows:
    """The rows with what is asked changed, the expected answers as they are."""
    inputs = [
        _changed(text, kind, expected, random.Random(digest_value([seed, row])))
        for text, kind, expected, row in zip(rows.inputs, rows.kinds or [""] * len(rows), rows.expected, rows.ids, strict=True)
    ]
    return replace(rows, inputs=inputs)


def _changed(text: str, kind: str, expected: str, draw: random.Random) -> str:
    change = draw.choice((misspelled, in_other_case, oddly_spaced))
    keep = {word.casefold() for word in re.findall(r"[^\W_]+", expected)}
    if kind == ExampleKind.LABEL or not text.startswith(("[", "{")):
        return change(text, keep, draw)
    said = json.loads(text)
    messages = said["messages"] if isinstance(said, dict) else said
    asked = next((message for message in reversed(messages) if message.get("role") == "user"), None)
    if asked is not None and isinstance(asked.get("content"), str):
        asked["content"] = change(asked["content"], keep, draw)
    return canonical_json(said)


def misspelled(text: str, keep: set[str], draw: random.Random) -> str:
    """One word in seven, and at least one, with a slip of the keyboard."""
    words = [found for found in _words(text, keep) if len(found.group()) > 3]
    slipped = {found.start() for found in draw.sample(words, max(1, round(_SHARE * len(words))))} if words else set[int]()
    return _each(text, words, lambda word, start: _slip(word, draw) if start in slipped else word)


def in_other_case(text: str, keep: set[str], draw: random.Random) -> str:
    """All in small letters, or all in capitals."""
    change: Callable[[str], str] = draw.choice((str.lower, str.lower, str.upper))
    return _each(text, _words(text, keep), lambda word, start: change(word))


def oddly_spaced(text: str, keep: set[str], draw: random.Random) -> str:
    """Spaces doubled here and there, at the ends, and none after a comma."""
    text = re.sub(r", ", lambda found: "," if draw.random() < 0.5 else found.group(), text)
    return (
        draw.choice(("", " ", "  "))
        + re.sub(r" ", lambda found: "  " if draw.random() < 0.2 else " ", text)
        + draw.choice((" ", "  "))
    )


def _words(text: str, keep: set[str]) -> list[re.Match[str]]:
    return [
        found
        for found in _WORD.finditer(text)
        if found.group().casefold() not in keep and not _touches_digit(text, found.start(), found.end())
    ]


def _touches_digit(text: str, start: int, end: int) -> bool:
    return bool(re.search(r"[\d_]\S?$", text[max(0, start - 2) : start]) or re.match(r"\S?[\d_]", text[end : end + 2]))


def _each(text: str, words: list[re.Match[str]], change: Callable[[str, int], str]) -> str:
    made, at = [], 0
    for found in words:
        made += [text[at : found.start()], change(found.group(), found.start())]
        at = found.end()
    return "".join([*made, text[at:]])


def _slip(word: str, draw: random.Random) -> str:
    at = draw.randrange(1, len(word) - 1)
    kind = draw.choice(("swap", "drop", "double", "next"))
    if kind == "swap":
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "drop":
        return word[:at] + word[at + 1 :]
    if kind == "double":
        return word[: at + 1] + word[at:]
    near = _NEXT.get(word[at].lower(), word[at])
    return word[:at] + draw.choice(sorted(near)) + word[at + 1 :]
