"""Shares of the data that one origin, users' feedback, or one of those who give it may hold: whoever can add rows without end
could steer the model.

The newest rows are what is beyond a share, since a flood comes after what was there before it. Nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.curation.rules.columns import Columns
from pipeline.curation.rules.findings import Findings, Mask, Rows, findings
from pipeline.domain.data import ExampleKind
from pipeline.domain.feedback import from_users

_WORDING = "the newest of what is beyond the share that its part of the data may hold ({:.1%})"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the data and its share of the kept rows. most: the share it may have; 1 where none was set."""

    name: str
    rows: int
    share: float
    most: float

    @property
    def exceeds(self) -> bool:
        return self.share > self.most


def origin_codes(columns: Columns, origins: Mapping[str, str]) -> tuple[Rows, tuple[str, ...]]:
    """(number of each row's origin, names). origins: source name to origin; a source without one is an origin of its own."""
    named = [origins.get(source) or source for source in columns.source_names]
    listed = sorted(set(named))
    of_source = np.array([listed.index(name) for name in named], np.int64)
    return (of_source[columns.sources] if named else np.zeros(0, np.int64)), tuple(listed)


def parts(
    columns: Columns, kept: Mask, origins: Mapping[str, str], *, origin: float, feedback: float, caller: float = 1.0
) -> list[Part]:
    """The share of each origin, largest first, and that of feedback. What one caller gave is an origin of its own."""
    codes, names = origin_codes(columns, origins)
    counts = np.bincount(codes[kept], minlength=len(names)).tolist()
    rated = int((_rated(columns, codes, names) & kept).sum())
    total = max(int(kept.sum()), 1)
    listed = [
        Part(f"origin {name}", rows, rows / total, min(origin, caller) if from_users(name) else origin)
        for name, rows in zip(names, counts, strict=True)
    ]
    listed.sort(key=lambda part: (-part.rows, part.name))
    return [*listed, Part("feedback", rated, rated / total, feedback)]


def _rated(columns: Columns, codes: Rows, names: tuple[str, ...]) -> Mask:
    """The rows that users' feedback made: those of the kind, and all that came by the server's endpoint."""
    given = np.array([from_users(name) for name in names], np.bool_)
    by_origin = given[codes] if len(names) else np.zeros(len(columns), np.bool_)
    rated: Mask = columns.of_kind(ExampleKind.FEEDBACK) | by_origin
    return rated


def surplus(
    columns: Columns, kept: Mask, origins: Mapping[str, str], *, origin: float, feedback: float, caller: float = 1.0
) -> Findings:
    """The newest kept rows without which no part exceeds its share; all rows of a part whose share cannot be met otherwise.

    With k origins a share below 1/k can never be met: then every row is found, and the caller must not drop them all.
    """
    left = kept.copy()
    found: list[tuple[Rows, float]] = []
    codes, names = origin_codes(columns, origins)
    rated = _rated(columns, codes, names)
    callers = [code for code, name in enumerate(names) if from_users(name)] if caller < 1 else []
    # Taking rows from one part raises the share of the others, so both are asked until nothing is beyond its share.
    while True:
        before = int(left.sum())
        counts = np.bincount(codes[left], minlength=len(names))
        found += [(_newest(left, codes == code, over), origin) for code, over in enumerate(_over(counts, origin)) if over]
        for code in callers:
            mine = left & (codes == code)
            beyond = int(mine.sum()) - _most_beside(int(left.sum()) - int(mine.sum()), caller)
            if beyond > 0:
                found.append((_newest(left, mine, beyond), caller))
        others = int((left & ~rated).sum())
        over = int((left & rated).sum()) - _most_beside(others, feedback)
        if over > 0:
            found.append((_newest(left, rated, over), feedback))
        if int(left.sum()) == before:
            break
    rows = np.concatenate([np.zeros(0, np.int64), *(numbers for numbers, _ in found)])
    values = np.concatenate([np.zeros(0), *(np.full(len(numbers), share) for numbers, share in found)])
    return findings(rows, _WORDING, values=values)


def _over(counts: Rows, share: float) -> list[int]:
    """By how many rows each part is beyond the greatest cap c for which no part, cut to c rows, holds more than its share."""
    least, most = 0, int(counts.max(initial=0))
    # share * sum(min(counts, c)) - c is concave in c and 0 at 0, so the caps that meet the share are an interval from 0.
    while least < most:
        cap = (least + most + 1) // 2
        if cap <= share * np.minimum(counts, cap).sum() + 1e-9:
            least = cap
        else:
            most = cap - 1
    return [max(int(count) - least, 0) for count in counts]


def _most_beside(others: int, share: float) -> int:
    """The most rows that hold at most `share` of themselves and `others` rows."""
    return int(share * others / (1 - share) + 1e-9) if share < 1 else 1 << 62


def _newest(left: Mask, part: Mask, count: int) -> Rows:
    """The last `count` rows of a part, which are taken out of `left`."""
    numbers = np.flatnonzero(left & part)[-count:]
    left[numbers] = False
    return numbers
