"""The step `plan`: before a training, what each tuner would take here of memory, time and money, and which one to take.

Rows are drawn as explore and advise draw them. Nothing is written but what a few trial steps leave in `scratch`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.curation.sampling import draw_rows
from pipeline.curation.shards import read_tables
from pipeline.domain.data import Snapshot, Task
from pipeline.domain.exploration import Shown
from pipeline.domain.model import BaseModelRef
from pipeline.domain.planning import Forecast, Plan, StagePlan, pick_tuner
from pipeline.domain.tuning import Objective, Tuner, refusal
from pipeline.errors import TunelineError
from pipeline.modeling.base import count_tokens, describe_base, template_text
from pipeline.modeling.hardware.fitting import choose_for
from pipeline.modeling.hardware.forecasting import Here, fitting, forecast, reckon_step
from pipeline.modeling.hardware.room import room
from pipeline.modeling.hardware.shape import Shape, read_shape
from pipeline.modeling.hardware.speed import count_steps, machine_flops
from pipeline.modeling.hardware.trying import STEPS, time_step
from pipeline.modeling.hardware.work import Sides, Work, work_of
from pipeline.modeling.job import Job
from pipeline.params import ModelParams, StageParams, TrainParams
from pipeline.ports import Progress, silent

ROWS = 500
_TRIED_WEIGHTS, _TRIED_SECONDS = 400_000_000, 30.0
"""Larger bases, and stages whose trial steps are reckoned to last longer, are not tried out."""


@dataclass(slots=True)
class _Planning:
    """What all stages of one plan share. rewards: adapters that trial steps of reward stages made, for ppo's."""

    snapshot: Snapshot
    folder: Path
    drawn: Sequence[Shown]
    lengths: Sequence[tuple[int, int]]
    sides: Sides
    model: ModelParams
    base: Path
    ref: BaseModelRef
    template: str | None
    shape: Shape
    here: Here
    scratch: Path
    trying: bool
    progress: Progress
    rewards: dict[tuple[str, Tuner], Path] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def plan(
    snapshot: Snapshot,
    train: TrainParams,
    model: ModelParams,
    *,
    folder: Path,
    sides: Sides,
    base: Path,
    scratch: Path,
    root: Path = Path(),
    trying: bool = True,
    progress: Progress = silent,
) -> Plan:
    """Forecasts for each stage of `train` and each tuner that its objective allows, on the data in `folder` and this machine.

    trying: take a few steps of each where the base is small enough, to see how long they last; else time is reckoned from the
    speed of the machine. scratch: a folder for that. root: where relative paths of params start. Raises Misuse when the data hold
    no row that a stage learns from.
    """
    shape, ref = read_shape(base), describe_base(model, base, root=root)
    progress("drawing rows", 0, 0)
    drawn = draw_rows(folder, snapshot, ROWS)
    spoken = [row.text for row in drawn], [row.output for row in drawn]
    chosen, free = choose_for(base, train.chain(model.task)[0], train.machine), room()
    here = Here(free, chosen, machine_flops(gpu=free.gpu, half=chosen.half), train.machine, train.price_per_hour)
    planning = _Planning(
        snapshot=snapshot,
        folder=folder,
        drawn=drawn,
        lengths=list(zip(*(count_tokens(texts, base / "tokenizer.json") for texts in spoken), strict=True)),
        sides=sides,
        model=model,
        base=base,
        ref=ref,
        template=template_text(model, base, root=root) if ref.template is not None else None,
        shape=shape,
        here=here,
        scratch=scratch,
        trying=trying and shape.weights <= _TRIED_WEIGHTS,
        progress=progress,
    )
    stages = tuple(_stage_plan(planning, stage) for stage in train.chain(model.task))
    found = Plan(
        snapshot=snapshot.digest,
        data=sides.said,
        base=ref.id,
        weights=shape.weights,
        machine={"flops": f"{here.flops:.3g}", **chosen.because},
        room=free.bytes,
        bound=free.bound,
        stages=stages,
    )
    return found.model_copy(update={"warnings": (*_warnings(found, train), *planning.failed)})


def _stage_plan(planning: _Planning, stage: StageParams) -> StagePlan:
    task = planning.model.task
    objective = stage.learns(task)
    work = work_of(stage, objective, stage.learns_from(task), planning.drawn, planning.lengths, planning.sides)
    refused = {tuner.value: reason for tuner in Tuner if (reason := refusal(objective, tuner)) is not None}
    able = [stage.model_copy(update={"tuner": tuner}) for tuner in Tuner if tuner.value not in refused]
    forecasts = tuple(_forecast(planning, tried, objective, work) for tried in able)
    takes, because = pick_tuner(forecasts, work.items * work.labelled)
    return StagePlan(
        name=str(stage.name),
        objective=objective.value,
        asked=stage.tuner,
        items=work.items,
        tokens=work.tokens,
        labelled=work.labelled,
        steps=count_steps(stage, objective, work.items),
        forecasts=forecasts,
        refused=refused,
        takes=takes,
        because=because,
    )


def _forecast(planning: _Planning, stage: StageParams, objective: Objective, work: Work) -> Forecast:
    shape, here = planning.shape, planning.here
    tried, _ = fitting(shape, stage, objective, work, here)
    step = None
    if planning.trying and tried.fits and reckon_step(shape, stage, objective, work, here, tried) * STEPS <= _TRIED_SECONDS:
        step = _try(planning, stage, objective)
    return forecast(shape, stage, objective, work, here, step=step)


def _try(planning: _Planning, stage: StageParams, objective: Objective) -> float | None:
    """Seconds of a step, or None where steps could not be taken; that is then among the warnings."""
    home = planning.scratch / f"{stage.name}-{stage.tuner}"
    home.mkdir(parents=True)
    rewards = {}
    for source in stage.ppo.rewards if objective is Objective.PPO else ():
        if source.stage is not None:
            made = planning.rewards.get((source.stage, stage.tuner))
            if made is None:
                return None
            rewards[source.stage] = made
    try:
        seconds = time_step(_job(planning, stage, home, rewards), home, progress=planning.progress)
    except TunelineError as error:
        planning.failed.append(f"{stage.name}: no steps could be tried with {stage.tuner}, its time is reckoned: {error.what}")
        return None
    planning.rewards[str(stage.name), stage.tuner] = home / "adapter"
    return seconds


def _job(planning: _Planning, stage: StageParams, home: Path, rewards: Mapping[str, Path]) -> Job:
    needed = max(stage.step_rows * (STEPS + 1), stage.ppo.rollouts if stage.objective is Objective.PPO else 0)
    kinds = [kind.value for kind in stage.learns_from(planning.model.task)]
    rows = _write_sample(planning, home / "train.parquet", kinds, needed)
    outputs = sorted(set(pq.read_table(rows, columns=["output"]).column("output").to_pylist()))
    return Job(
        stage=stage.model_copy(update={"start": "base", "epochs": float(STEPS)}),
        task=planning.model.task,
        labels=tuple(outputs) if planning.model.task is Task.CLASSIFY else (),
        base=planning.base,
        ref=planning.ref,
        template=planning.template,
        train=(rows,),
        held=(),
        start=None,
        start_digest=planning.ref.digest,
        cache=home,
        folder=home,
        adapter=home,
        curves=home,
        rewards=rewards,
        machine=planning.here.params,
    )


def _write_sample(planning: _Planning, path: Path, kinds: Sequence[str], rows: int) -> Path:
    """The first `rows` of the rows drawn that are of `kinds`, as a part of a split holds them."""
    wanted = pa.array([row.id for row in planning.drawn if row.kind in kinds][: max(rows, 64)])
    found = []
    for batch in read_tables(planning.folder, planning.snapshot.shards):
        found.append(batch.filter(pc.is_in(batch.column("id"), wanted)))
    pq.write_table(pa.Table.from_batches(found), path)
    return path


def _warnings(found: Plan, train: TrainParams) -> list[str]:
    said = []
    for stage in found.stages:
        if stage.as_asked is not None and stage.as_asked.problem is not None:
            said.append(f"{stage.name}: {stage.asked} does not fit: {stage.as_asked.problem}")
    hours = found.seconds.value / 3600
    between = f"{found.seconds.low / 3600:.2g} to {found.seconds.high / 3600:.2g}"
    if train.max_hours is not None and hours > train.max_hours:
        said.append(
            f"{hours:.2g} hours are expected ({between}) and max_hours is {train.max_hours:g}: it will stop at a checkpoint"
        )
    if train.max_cost is not None and train.price_per_hour is not None and hours * train.price_per_hour > train.max_cost:
        cost = hours * train.price_per_hour
        said.append(f"a cost of {cost:.2f} is expected and max_cost is {train.max_cost:g}: it will stop at a checkpoint")
    return said
