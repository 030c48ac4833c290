"""What a look at a dataset found: its topics, what is odd in it, what to label next. Pure values."""

from __future__ import annotations

from typing import ClassVar

from pipeline.domain.record import Record, Value


class Shown(Value):
    """A row as it is shown: where it came from, and the beginning of what it says."""

    id: str
    source: str
    line: int
    kind: str
    text: str
    output: str = ""
    score: float | None = None


class Topic(Value):
    """rows: of those looked at. labels: for classify, the most frequent in it with their rows. examples: nearest its centre."""

    name: str
    rows: int
    labels: tuple[tuple[str, int], ...] = ()
    examples: tuple[Shown, ...] = ()


class Exploration(Record):
    """looked: rows of the snapshot that were looked at, of `rows`. silhouette: how well the topics are parted, -1 to 1.
    anomalies: rows without neighbours, the oddest first. picked: what to label next, the most worthwhile first."""

    kind: ClassVar[str] = "exploration"

    snapshot: str
    rows: int
    looked: int
    encoder: str
    silhouette: float
    topics: tuple[Topic, ...]
    anomalies: tuple[Shown, ...]
    picked: tuple[Shown, ...]

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.snapshot,)
