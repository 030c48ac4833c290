"""All that decides what one training stage comes to, and what it came to, as paths and values: both can be handed to another
process. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.domain.data import Task
from pipeline.domain.model import BaseModelRef
from pipeline.domain.tuning import OUTPUT_OF, Objective, Output
from pipeline.params.train import MachineParams, StageParams


@dataclass(frozen=True, slots=True)
class Job:
    """One stage of a chain, ready to run.

    stage: with name and objective filled in. train, held: the split's part files. old: names of those parts of `train` that the
    champion was trained on. base, ref, template: the base's folder, what it is, its chat template (generate). start: the adapter
    folder it begins from, None for the bare base; start_digest: of what that is, the base's digest for None. rewards: a reward
    stage's name to its adapter folder (ppo). cache: a folder for what can be made again, by content. folder: this stage's own,
    for checkpoints. adapter, curves: what is written. max_hours: of training in all, from caps of time and cost; None: no cap.
    """

    stage: StageParams
    task: Task
    labels: tuple[str, ...]
    base: Path
    ref: BaseModelRef
    template: str | None
    train: tuple[Path, ...]
    held: tuple[Path, ...]
    start: Path | None
    start_digest: str
    cache: Path
    folder: Path
    adapter: Path
    curves: Path
    old: frozenset[str] = frozenset()
    rewards: Mapping[str, Path] = field(default_factory=dict)
    machine: MachineParams = field(default_factory=MachineParams)
    max_hours: float | None = None

    @property
    def objective(self) -> Objective:
        return self.stage.learns(self.task)

    @property
    def output(self) -> Output:
        return OUTPUT_OF[self.objective]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a stage came to; see domain.model.StageRun. train_loss is the mean over all steps; hours are those of all attempts."""

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
    hours: float
