"""The nouns of data: example, snapshot, validation report. Pure values; reading and writing is done elsewhere.

A snapshot folder (`data/snapshot/`) holds `snapshot.json` (the Snapshot record), `shards/<sha256[:16]>.parquet` (columns of
`EXAMPLE_COLUMNS`), `quarantine/<sha256[:16]>.jsonl` (one QuarantinedRow a line), and what describes it: `README.md` (the dataset
card) and `statistics/`. Shards are append-only: a later snapshot keeps every earlier shard, byte for byte, but for the rows
that were forgotten on request.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from pipeline.domain.record import FileDigest, Record, Value, canonical_json, digest_value

EXAMPLE_COLUMNS = ("id", "group", "input", "output", "meta", "source", "line", "kind")


class Task(StrEnum):
    """What the tuned model does: write an answer, or pick a label."""

    GENERATE = "generate"
    CLASSIFY = "classify"


class ExampleKind(StrEnum):
    """What an example teaches, and so what its `input` and `output` hold; docs/formats.md says which formats give which.

    A conversation is the canonical JSON of its messages `[{"content":…,"role":…},…]`, or, where tools are offered,
    `{"messages":[…],"tools":[…]}`. Texts in `output` are as they are; everything else is canonical JSON.
    """

    ANSWER = "answer"
    """input: a conversation; output: the assistant's answer."""
    CALL = "call"
    """input: a conversation; output: the assistant's message that calls tools, {"content":…,"tool_calls":[…]}."""
    LABEL = "label"
    """input: a text; output: its label."""
    PREFERENCE = "preference"
    """input: a conversation; output: {"chosen":[messages],"rejected":[messages]}, what follows it either way."""
    FEEDBACK = "feedback"
    """input: a conversation; output: {"answer":text,"good":true or false}."""
    RANKING = "ranking"
    """input: a conversation; output: {"answers":[texts, best first]}."""
    TEXT = "text"
    """input: empty; output: a document."""
    PROMPT = "prompt"
    """input: a conversation that waits for an answer; output: empty."""


KINDS_OF_TASK: dict[Task, frozenset[ExampleKind]] = {
    Task.GENERATE: frozenset(ExampleKind) - {ExampleKind.LABEL},
    Task.CLASSIFY: frozenset({ExampleKind.LABEL}),
}
"""What a snapshot of a task may hold."""

LEARNED_KINDS: dict[Task, frozenset[ExampleKind]] = {
    Task.GENERATE: frozenset({ExampleKind.ANSWER, ExampleKind.CALL}),
    Task.CLASSIFY: frozenset({ExampleKind.LABEL}),
}
"""The rows that show an answer or a label: what is probed before a training, and what the bare base is shown of labels."""


@dataclass(frozen=True, slots=True)
class Example:
    """One training or test item, in the one form that all formats are parsed into.

    id: 32 hex digits, from input and output only, so the same content has the same id wherever it comes from.
    group: 32 hex digits; examples of one group always land on the same side of the split. By default made of the input.
    input: for `classify` the text; for `generate` the canonical JSON of the prompt messages [{"content":…,"role":…},…].
    output: the label, or the assistant's answer; other kinds: see ExampleKind. meta: canonical JSON object of strings: what else
    the row said. source: name of the file it came from. line: 1-based line (or row) there. kind: an ExampleKind.
    """

    id: str
    group: str
    input: str
    output: str
    meta: str
    source: str
    line: int
    kind: str = ExampleKind.ANSWER


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
    """One ingested file: where each of its rows ended. read = accepted + duplicate + quarantined + forgotten.

    origin: the entry of ingest.sources that it came by. license: an SPDX id, or what the entry says. watermark: by what the next
    run tells what is new: of a query the greatest value of its watermark column, as JSON; of an object its ETag; of a member of
    an archive the archive's digest; of a file of the hub its commit. altered: what the rules of `clean` did to its rows,
    repeated ones included: rows `normalised` and `stripped_controls`, marks put `redacted.email`, findings left alone
    `warned.phone`, …. forgotten: rows left out because they were forgotten on request before.
    """

    name: str
    sha256: str
    bytes: int
    read: int
    accepted: int
    duplicate: int
    quarantined: int
    forgotten: int = 0
    origin: str = ""
    license: str | None = None
    watermark: str | None = None
    altered: dict[str, int] = Field(default_factory=dict)


class Shard(FileDigest):
    """One Parquet file of accepted examples, or one JSONL file of quarantined rows."""

    rows: int


class Snapshot(Record):
    """A dataset at one time. `sources`, `shards` and `quarantine` hold everything since the first snapshot, oldest first.

    fresh: how many of `sources`, the last ones, came with this snapshot: the newest batch. described: the dataset card and the
    statistics. forgotten: accepted rows that were taken out of the shards on request since; the accepted rows of all sources =
    rows + forgotten. tombstones: keyed digests of what may not come back, sorted.
    """

    kind: ClassVar[str] = "snapshot"

    dataset: str
    task: Task
    parent: str | None
    sources: tuple[SourceFile, ...]
    shards: tuple[Shard, ...]
    quarantine: tuple[Shard, ...]
    fresh: int = 0
    described: tuple[FileDigest, ...] = ()
    forgotten: int = 0
    tombstones: tuple[str, ...] = ()

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


class Judged(Record):
    """A record of something that was checked. A failed check is a value, and `failures` are all of them."""

    checks: tuple[CheckResult, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        return tuple(c for c in self.checks if not c.passed or c.error is not None)


class ValidationReport(Judged):
    kind: ClassVar[str] = "validation_report"

    snapshot: str
    rows: int
    suite: str

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.snapshot,)

    @property
    def passed(self) -> bool:
        """Nothing checked is nothing passed."""
        return bool(self.checks) and super().passed


def empty_snapshot(dataset: str, task: Task) -> Snapshot:
    """The snapshot that holds nothing: what a dataset begins from."""
    return Snapshot(dataset=dataset, task=task, parent=None, sources=(), shards=(), quarantine=())
