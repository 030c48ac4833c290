"""The nouns of data: example, snapshot, validation report, splits. Pure values; reading and writing is done elsewhere.

A snapshot folder (`data/snapshot/`) holds `snapshot.json` (the Snapshot record), `shards/<sha256[:16]>.parquet` (columns of
`EXAMPLE_COLUMNS`) and `quarantine/<sha256[:16]>.jsonl` (one QuarantinedRow a line). Shards are append-only: a later
snapshot keeps every earlier shard, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from pipeline.domain.record import FileDigest, Record, Value, canonical_json, digest_value

EXAMPLE_COLUMNS = ("id", "group", "input", "output", "meta", "source", "line")


class Task(StrEnum):
    """What the tuned model does: write an answer, or pick a label."""

    GENERATE = "generate"
    CLASSIFY = "classify"


class Split(StrEnum):
    TRAIN = "train"
    EVAL = "eval"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Example:
    """One training or test item, in the one form that all formats are parsed into.

    id: 32 hex digits, from input and output only, so the same content has the same id wherever it comes from.
    group: 32 hex digits; examples of one group always land on the same side of the split. By default made of the input.
    input: for `classify` the text; for `generate` the canonical JSON of the prompt messages [{"content":…,"role":…},…].
    output: the label, or the assistant's answer. meta: canonical JSON object of strings: what else the row said.
    source: name of the file it came from. line: 1-based line (or row) there.
    """

    id: str
    group: str
    input: str
    output: str
    meta: str
    source: str
    line: int


def example_id(input: str, output: str) -> str:
    """The stable id of an example's content."""
    return digest_value([input, output])[:32]


def messages_to_input(messages: list[dict[str, str]]) -> str:
    """Canonical `input` of a prompt given as messages with the keys role and content."""
    return canonical_json(messages)


class QuarantinedRow(Value):
    """A row that was not accepted, and why. Nothing is lost: the row's bytes are kept up to a cap, base64 if not UTF-8."""

    source: str
    line: int
    code: str
    reason: str
    raw: str
    raw_encoding: str = "utf-8"
    raw_bytes: int


class SourceFile(Value):
    """One ingested file: where each of its rows ended. read = accepted + duplicate + quarantined."""

    name: str
    sha256: str
    bytes: int
    read: int
    accepted: int
    duplicate: int
    quarantined: int


class Shard(FileDigest):
    """One Parquet file of accepted examples, or one JSONL file of quarantined rows."""

    rows: int


class Snapshot(Record):
    """A dataset at one time. `sources`, `shards` and `quarantine` hold everything since the first snapshot, oldest first.

    fresh: how many of `sources`, the last ones, came with this snapshot: the newest batch.
    """

    kind: ClassVar[str] = "snapshot"

    dataset: str
    task: Task
    parent: str | None
    sources: tuple[SourceFile, ...]
    shards: tuple[Shard, ...]
    quarantine: tuple[Shard, ...]
    fresh: int = 0

    @property
    def parents(self) -> tuple[str, ...]:
        return ((self.parent,) if self.parent else ()) + tuple(s.sha256 for s in self.sources)

    @property
    def batch(self) -> tuple[SourceFile, ...]:
        """The sources that came with this snapshot; empty when nothing is known of them."""
        return self.sources[len(self.sources) - self.fresh :]

    @property
    def rows(self) -> int:
        return sum(s.rows for s in self.shards)

    @property
    def quarantined(self) -> int:
        return sum(s.rows for s in self.quarantine)


class CheckResult(Value):
    """One expectation and what was seen. `error` is set when the check itself broke, which never counts as passed."""

    name: str
    column: str | None = None
    passed: bool
    expected: str
    observed: str
    samples: tuple[str, ...] = ()
    error: str | None = None


class ValidationReport(Record):
    kind: ClassVar[str] = "validation_report"

    snapshot: str
    rows: int
    suite: str
    checks: tuple[CheckResult, ...]

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.snapshot,)

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(c.passed and c.error is None for c in self.checks)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        return tuple(c for c in self.checks if not c.passed or c.error is not None)


class SplitFile(FileDigest):
    rows: int


class Splits(Record):
    """Where each example went. Made of the snapshot and the split params alone; only a validated snapshot is split."""

    kind: ClassVar[str] = "splits"

    snapshot: str
    validation: str
    params: dict[str, Any]
    train: SplitFile
    eval: SplitFile
    test: SplitFile
    labels: tuple[str, ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.snapshot, self.validation)
