"""Rows that are not answered but weighed: how likely a subject finds texts that are there. Strings and numbers; no model here.

What a subject says of such a row is the mean log-probability a token of each of its texts, best first, as a JSON list: that is
its answer in predictions.parquet, and what the metrics below read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from pipeline.domain.data import ExampleKind
from pipeline.domain.record import canonical_json
from pipeline.errors import Broken

WEIGHED = frozenset({ExampleKind.PREFERENCE, ExampleKind.RANKING, ExampleKind.TEXT})
PAIRED = frozenset({ExampleKind.PREFERENCE, ExampleKind.RANKING})

LogProbs = Callable[[list[str], list[str]], Sequence[float]]
"""Given inputs (a conversation each, or '' for a text by itself) and what follows each: its mean log-probability a token."""

_DECIMALS = 6
Message = dict[str, object]
Asked = list[tuple[str, str]]
"""(conversation, answer) of each turn of the assistant that is weighed."""


def weigh(inputs: Sequence[str], outputs: Sequence[str], kinds: Sequence[str], log_probs: LogProbs) -> list[str]:
    """What a subject says of each row (a JSON list, best first). `log_probs` is asked once, for all texts of all rows."""
    rows = [_texts(*row) for row in zip(inputs, outputs, kinds, strict=True)]
    asked = [turn for row in rows for text in row for turn in text]
    found = iter(log_probs([conversation for conversation, _ in asked], [answer for _, answer in asked]))
    said = []
    for row in rows:
        means = [math.fsum(turns) / len(turns) for text in row if (turns := [next(found) for _ in text])]
        said.append(canonical_json([round(mean, _DECIMALS) for mean in means]))
    return said


def prefers_chosen(expected: str, answer: str) -> float:
    """The share of neighbouring texts, best first, of which the better is likelier a token; ties count half.

    Per token, so that a longer answer is not less likely by its length alone. Of a pair it is 0, 1/2 or 1.
    """
    pairs = list(pairwise(_numbers(answer, least=2)))
    return math.fsum(1.0 if better > worse else 0.5 * (better == worse) for better, worse in pairs) / len(pairs)


def text_likelihood(expected: str, answer: str) -> float:
    """The geometric mean of the probabilities of a text's tokens: one over its perplexity."""
    return math.exp(min(_numbers(answer, least=1)[0], 0.0))


def _texts(input: str, output: str, kind: str) -> list[Asked]:
    """The texts of one row, best first, each as the turns of the assistant in it."""
    if kind == ExampleKind.TEXT:
        return [[("", output)]]
    said = json.loads(output)
    if kind == ExampleKind.RANKING:
        return [[(input, answer)] for answer in said["answers"]]
    return [_turns(input, said[side]) for side in ("chosen", "rejected")]


def _turns(input: str, following: Sequence[Message]) -> Asked:
    """The assistant's turns in what follows a conversation, each with all that was said before it."""
    parsed = json.loads(input)
    before: list[Message] = list(parsed["messages"] if isinstance(parsed, dict) else parsed)
    turns: Asked = []
    for message in following:
        if message["role"] == "assistant":
            whole = {**parsed, "messages": before} if isinstance(parsed, dict) else before
            turns.append((canonical_json(whole), spoken(message)))
        before = [*before, message]
    return turns


def spoken(message: Message) -> str:
    """What an assistant's message says; one that calls tools as the message itself, which is what a row of calls holds."""
    if not message.get("tool_calls"):
        return str(message.get("content") or "")
    return canonical_json({"content": message.get("content") or "", "tool_calls": message["tool_calls"]})


def _numbers(answer: str, *, least: int) -> list[float]:
    try:
        found = [float(number) for number in json.loads(answer)]
    except (ValueError, TypeError) as error:
        raise Broken(f"log-probabilities are expected, not {answer[:80]!r}") from error
    if len(found) < least or not all(math.isfinite(number) for number in found):
        raise Broken(f"at least {least} finite log-probabilities are expected, not {answer[:80]!r}")
    return found
