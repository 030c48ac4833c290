"""The nouns of models: which base, what was trained, what was measured. Pure values."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pipeline.domain.data import Task
from pipeline.domain.record import FileDigest, Record, Value, digest_value
from pipeline.domain.tuning import Objective, Tuner


class BaseModelRef(Value):
    """The base model by content. `id` is what params said (a folder, `package:…` or a hub id), never an absolute path.

    weights, tokenizer, template: digests of the weight files, of the tokenizer files and of the chat template's text
    (None where the task has no template).
    """

    id: str
    revision: str | None = None
    weights: str
    tokenizer: str
    template: str | None = None

    @property
    def digest(self) -> str:
        return digest_value(self.model_dump(mode="json"))


class StageRun(Value):
    """One training stage of a chain. start: digest of what it began from, the base's or an adapter's; start_from: which that was,
    as params name it. steps: taken in all; kept_step: after which the weights are the result.

    counts: per side what became of its rows. measures: what else was measured, the last value of each. alarms: sentences for
    people. machine: what was chosen for the hardware.
    """

    name: str
    objective: Objective
    tuner: Tuner
    start: str
    start_from: str
    adapter_digest: str
    steps: int
    kept_step: int
    train_loss: float
    eval_loss: float | None
    train_rows: int
    trainable_parameters: int
    counts: dict[str, dict[str, int]]
    measures: dict[str, float]
    alarms: tuple[str, ...]
    machine: dict[str, str]


class TrainingRun(Record):
    """A finished training: what went in, and the adapter files that came out (paths relative to the adapter folder).

    stages: the chain, first to last; the adapter and the losses are the last one's, steps are those of all. starts: digest of the
    Starts record, the released adapters that stages could begin from.
    """

    kind: ClassVar[str] = "training_run"

    splits: str
    task: Task
    base: BaseModelRef
    params: dict[str, Any]
    adapter: tuple[FileDigest, ...]
    steps: int
    train_loss: float
    eval_loss: float | None
    train_rows: int
    trainable_parameters: int
    versions: dict[str, str]
    starts: str
    stages: tuple[StageRun, ...]

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.splits, self.base.digest, self.starts)

    @property
    def adapter_digest(self) -> str:
        return digest_value([f.model_dump(mode="json") for f in self.adapter])


class Start(Value):
    """A released adapter that a training stage may begin from, laid beside the data as `folder`.

    name: as params say it: `champion`, `version:N` or `version:MODEL/N`. shards: those of its snapshot that it was trained on.
    """

    name: str
    model: str
    version: str
    training: str
    adapter_digest: str
    folder: str
    shards: tuple[str, ...] = ()


class Starts(Record):
    """What params ask to begin from, put beside the data so that training is a function of files."""

    kind: ClassVar[str] = "starts"

    entries: tuple[Start, ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        return tuple(start.training for start in self.entries)

    def named(self, name: str) -> Start | None:
        return next((start for start in self.entries if start.name == name), None)


class Champion(Record):
    """What held production when the run began, put beside the data so that evaluation is a function of files. May be nobody."""

    kind: ClassVar[str] = "champion"

    version: str | None = None
    training: str | None = None
    adapter_digest: str | None = None


class MetricValue(Value):
    """A metric over the test split with its confidence interval (bootstrap over rows; see evaluation/statistics.py)."""

    metric: str
    value: float
    low: float
    high: float
    rows: int


class Subject(Value):
    """One of those measured: `candidate`, `champion` or `base`. `identity` is its adapter digest, or the base's digest."""

    name: str
    identity: str
    metrics: tuple[MetricValue, ...]


class Comparison(Value):
    """Paired difference candidate minus other, on the same rows, with its interval."""

    metric: str
    other: str
    difference: float
    low: float
    high: float
    rows: int


class SliceValue(Value):
    """A metric of one subject on the rows where `field` equals `value`, with its interval.

    comparison: candidate minus this subject on the same rows; None for the candidate itself. Many slices make some intervals
    miss by chance alone, so no gate reads them.
    """

    field: str
    value: str
    subject: str
    metric: str
    score: float
    low: float
    high: float
    rows: int
    comparison: Comparison | None = None


class EvaluationReport(Record):
    """Candidate, champion and bare base on one test split. `test` is the SHA-256 of the test file that all of them saw.

    rows: those that were asked. counted: metric: how many of them are of the kinds that it counts; one not named counts all.
    """

    kind: ClassVar[str] = "evaluation_report"

    training: str
    champion: str
    splits: str
    test: str
    rows: int
    subjects: tuple[Subject, ...]
    comparisons: tuple[Comparison, ...]
    slices: tuple[SliceValue, ...]
    predictions: FileDigest
    params: dict[str, Any]
    counted: dict[str, int] = Field(default_factory=dict)

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.training, self.champion, self.splits)

    @property
    def primary_rows(self) -> int:
        """The rows that the first metric counts."""
        return self.rows_of(next(iter(self.params.get("metrics", ())), ""))

    def rows_of(self, metric: str) -> int:
        """The rows that `metric` counts."""
        return self.counted.get(metric, self.rows)

    def subject(self, name: str) -> Subject | None:
        return next((s for s in self.subjects if s.name == name), None)

    def metric(self, subject: str, metric: str) -> MetricValue | None:
        found = self.subject(subject)
        return next((m for m in found.metrics if m.metric == metric), None) if found else None

    def slice(self, field: str, value: str, subject: str) -> SliceValue | None:
        wanted = (field, value, subject)
        return next((s for s in self.slices if (s.field, s.value, s.subject) == wanted), None)

    def comparison(self, other: str, metric: str) -> Comparison | None:
        return next((c for c in self.comparisons if c.other == other and c.metric == metric), None)
