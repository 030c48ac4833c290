"""Metrics of answers that are to be JSON: whether they are, and which fields are right. Strings in, numbers out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pipeline.evaluation.metrics.texts import f1


def json_valid(expected: str, answer: str) -> float:
    """1 if the answer is one JSON value, by the standard: no NaN, no duplicate keys, nothing around it. `expected` is unread."""
    try:
        parse(answer)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def json_fields(expected: str, answer: str) -> float:
    """Harmonic mean of precision and recall over fields: leaf paths with their values, as a bag (micro-F1 of slots, as in MUC-4,
    M92-1002, within one row).

    A leaf is a string, number, true, false, null, or an empty list or object. Items of a list share one path, so that their order
    does not count. Strings are compared up to white space, numbers by value (1 is 1.0). An answer that is no JSON has no field
    right; where what is expected is no JSON either, the whole text is one field.
    """
    wanted, given = _fields(expected), _fields(answer)
    if wanted is None or given is None:
        return float(wanted is given and expected.split() == answer.split())
    return f1((wanted & given).total(), wanted.total(), given.total())


def parse(text: str) -> Any:
    """One JSON value, by the standard. Raises ValueError, or RecursionError where it is nested too deeply."""
    return json.loads(text, parse_constant=_refuse, object_pairs_hook=_without_duplicates)


def _fields(text: str) -> Counter[tuple[str, str]] | None:
    """The leaves of a JSON text; None where it is none."""
    try:
        return Counter(_leaves(parse(text), ""))
    except (ValueError, RecursionError):
        return None


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{json.dumps(key)}")
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _leaves(inner, f"{path}[]")
    elif isinstance(value, str):
        yield path, "text " + " ".join(value.split())
    else:
        whole = isinstance(value, float) and value.is_integer()
        yield path, json.dumps(int(value) if whole else value)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found
