"""Marks in place of what detectors found: `<EMAIL>`, `<AWS_KEY>`. Pure; what is to be found is the detectors' knowledge."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable

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


def without_overlaps(found: Iterable[Iterable[Finding]]) -> list[Finding]:
    """Findings in the order of the text. Where two overlap the one of the earlier group stays, or the first of one group."""
    kept: list[Finding] = []
    for group in found:
        starts, fresh, end = [finding.start for finding in kept], [], 0
        for finding in sorted(group, key=lambda finding: finding.start):
            place = bisect_right(starts, finding.start)
            clear = (place == 0 or kept[place - 1].end <= finding.start) and (
                place == len(kept) or finding.end <= kept[place].start
            )
            if clear and finding.start >= end:
                fresh.append(finding)
                end = finding.end
        if fresh:
            kept = sorted([*kept, *fresh], key=lambda finding: finding.start)
    return kept


def mark(type: str) -> str:
    """What stands in place of a finding of `type`."""
    return f"<{type.upper()}>"


def _marked(text: str, findings: list[Finding]) -> str:
    strings = [match.span() for match in _STRING.finditer(text)] if _is_json(text) else None
    pieces, at = [], 0
    for finding in findings:
        sign, end = mark(finding.type), finding.end
        if strings is not None:
            place = bisect_right(strings, (finding.start, 0)) - 1
            within = place >= 0 and finding.start < strings[place][1]
            sign, end = (sign, min(end, strings[place][1] - 1)) if within else (f'"{sign}"', end)
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
