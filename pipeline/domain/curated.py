"""What became of a snapshot's rows: what curation left out, which side of the split each went to. Pure values.

The rows themselves, and what a snapshot is, stand in domain/data.py; how a side is drawn, in domain/splitting.py.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

from pipeline.domain.data import Judged
from pipeline.domain.record import FileDigest, Record, Value, digest_value


class Split(StrEnum):
    TRAIN = "train"
    EVAL = "eval"
    TEST = "test"


class SplitFile(FileDigest):
    """A Parquet file of examples; of a Splits record, the rows of one shard that fell to one side."""

    rows: int


class RuleCount(Value):
    """What one curation rule found. policy: what params say to do (drop, warn, block). found: rows it points at; dropped: those
    that it took out of what is split. samples: a few of them, `source:line: reason`."""

    rule: str
    policy: str
    found: int
    dropped: int
    samples: tuple[str, ...] = ()


class Curation(Judged):
    """What the rules that look across rows said of a snapshot. Rows are named, not copied: dropped.parquet lists those left out.

    dropped: a Parquet file of columns id, rule, reason, other (the id of the row that it repeats or contradicts, or ''), in the
    order of the snapshot, a row a dropped example. review: lists for people (suspected label errors and the like).
    """

    kind: ClassVar[str] = "curation"

    snapshot: str
    validation: str
    params: dict[str, Any]
    rules: tuple[RuleCount, ...]
    dropped: SplitFile
    review: tuple[FileDigest, ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.snapshot, self.validation)


class SplitSide(Value):
    """One side of the split: a file for each shard that has rows there, in the order of the snapshot."""

    parts: tuple[SplitFile, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def sha256(self) -> str:
        """Digest of the side as a whole: of its parts' digests, in order."""
        return digest_value([part.sha256 for part in self.parts])


class Splits(Judged):
    """Where each example went: the snapshot, less what curation left out, on three sides.

    frozen: digest of the Frozen record whose sides were kept. reserved: digest of the Snapshot of benchmarks and edge cases.
    sides: which group went where, for the next run to keep. checks: leakage between what is trained on and what is held out.
    leaks: a Parquet file of the rows that leaked (columns id, source, line, how, similarity, held_id, held_in, held_source,
    held_line); None when params ask for no such check.
    """

    kind: ClassVar[str] = "splits"

    snapshot: str
    validation: str
    curation: str
    frozen: str
    reserved: str
    params: dict[str, Any]
    train: SplitSide
    eval: SplitSide
    test: SplitSide
    sides: tuple[SplitFile, ...] = ()
    leaks: SplitFile | None = None
    labels: tuple[str, ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.snapshot, self.validation, self.curation, self.frozen, self.reserved)


class Frozen(Record):
    """The sides that earlier runs gave to groups, which no later run may change. Files: columns group (16 bytes), side."""

    kind: ClassVar[str] = "frozen"

    splits: str | None = None
    sides: tuple[SplitFile, ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.splits,) if self.splits else ()
