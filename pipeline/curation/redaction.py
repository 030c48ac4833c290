"""Marks in place of what a detector found: `<EMAIL>`, `<AWS_KEY>`. Pure; what is found is the detector's knowledge."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import orjson

from pipeline.ports import Detector, Finding

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


def redact(text: str, detector: Detector) -> tuple[str, Counter[str]]:
    """The text with a mark in place of each finding, and how many marks of each type were put.

    It is looked at again until nothing more is found, since a mark can bare what stood beside it. A text that is JSON stays JSON:
    a number becomes a string.
    """
    counts: Counter[str] = Counter()
    while findings := detector.find(text):
        counts.update(finding.type for finding in findings)
        text = _marked(text, findings)
    return text, counts


def mark(type: str) -> str:
    """What stands in place of a finding of `type`."""
    return f"<{type.upper()}>"


def _marked(text: str, findings: list[Finding]) -> str:
    strings = [match.span() for match in _STRING.finditer(text)] if _is_json(text) else None
    pieces, at = [], 0
    for finding in findings:
        sign, end = mark(finding.type), finding.end
        if strings is not None:
            around = next((span for span in strings if span[0] < finding.start < span[1]), None)
            sign, end = (sign, min(end, around[1] - 1)) if around else (f'"{sign}"', end)
        # An accent must not be left to join the mark.
        while end < len(text) and unicodedata.combining(text[end]):
            end += 1
        pieces += [text[at : finding.start], sign]
        at = end
    return "".join([*pieces, text[at:]])


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
