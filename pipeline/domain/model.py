"""The nouns of models: which base, what was trained, what holds production. What was measured of them is measured.py's."""

from __future__ import annotations

from typing import Any, ClassVar

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


KEPT_LOSS = "kept_train_loss"
"""Among StageRun.measures: the loss of training over the steps that led to those weights."""


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
