"""The trials of a sweep: each trained on a kept run's splits in a folder of its own, and the best of them held beside others.

The run's folder is only read. What is tried next is the study's to say, what becomes of the winner sweeping.py's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.domain.curated import Splits
from pipeline.domain.data import ExampleKind
from pipeline.domain.model import TrainingRun
from pipeline.domain.record import canonical_json
from pipeline.domain.sweeping import Against, Comparison, Point, Trial, ranked
from pipeline.errors import Misuse
from pipeline.params.sweep import stage_place
from pipeline.ports import Progress, Study, Tracker
from pipeline.stages import train_in
from pipeline.wiring import World, find_base
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.evaluation.rows import Said, SplitRows
    from pipeline.params import Params
    from pipeline.steps.sweep import Sitting

NEAREST = 3
"""So many trials next to the best are held beside it, and that of the params' own point."""


@dataclass(frozen=True, slots=True)
class Bench:
    """All that trials of one sweep share. text: of the params file. workspace: a folder that looks like the kept run's, where
    trials are trained (see `beside`). folder: the sweep's own, in the state folder. own: the params as they are, as a point; None
    where they lie outside the space."""

    world: World
    params: Params
    text: str
    workspace: Workspace
    splits: Splits
    folder: Path
    study: Study
    own: Point | None
    progress: Progress
    at_once: int = 1
    """Trials that are under way together, each on a worker of a cluster."""

    @contextmanager
    def apart(self) -> Iterator[Workspace]:
        """Where one trial is trained: the common folder, or one beside it where others are trained at the same time."""
        if self.at_once == 1:
            yield self.workspace
            return
        with self.world.scratch() as scratch:
            made = beside(self.workspace, scratch / "run")
            made.starts.symlink_to(self.workspace.starts.resolve())
            yield made

    @property
    def name(self) -> str:
        """Of the sweep's parent run."""
        return f"{self.params.model.name}-sweep-{self.folder.name}"

    @property
    def least(self) -> bool:
        """Whether less of the measure is better."""
        return self.params.sweep.measure == "eval_loss"

    @property
    def own_trial(self) -> Trial | None:
        return next((trial for trial in self.study.trials() if trial.point == self.own), None)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def adapter(self, number: int) -> Path:
        """Where a trial's adapter is kept, as long as it may be asked for."""
        return self.folder / "adapters" / f"{number:04d}"


def train_trial(bench: Bench, sitting: Sitting, parent: Tracker) -> float:
    """Train a trial as a child of the tracked run `parent`, keep its adapter, and give the value that it is judged by.

    Raises Pruned, CapReached when the sitting's hours are over, and what training raises.
    """
    from pipeline.steps.sweep import Pruned, Watched

    trial, params = sitting.trial, with_point(bench.params, bench.text, sitting.trial.point)
    if bench.at_once > 1:
        params = params.model_copy(update={"compute": params.compute.model_copy(update={"workers": 1, "least": 1})})
    elif not trial.seconds:
        tidy(bench)
    caps = [hours for hours in (params.train.max_hours, sitting.hours) if hours is not None and hours != float("inf")]
    capped = params.train.model_copy(update={"max_hours": min(caps, default=None)})
    chain = params.train.chain(params.model.task)
    tags = {"mlflow.parentRunId": parent.run_id, "tuneline.trial": str(trial.number)}
    with bench.apart() as workspace:
        with bench.world.tracked(params.model.name, f"{bench.name}-{trial.number:04d}", tags) as child:
            watched = Watched(
                child,
                bench.study,
                sitting,
                measure=bench.params.sweep.measure,
                stage=str(chain[-1].name) if len(chain) > 1 else None,
                prunable=trial.point != bench.own,  # what the winner is held beside is trained to its end
            )
            trained, ended = None, "pruned"
            try:
                trained = train_in(
                    bench.world,
                    workspace,
                    params.model_copy(update={"train": capped}),
                    watched,
                    bench.progress,
                    checkpoints=bench.checkpoints,
                )
                ended = "finished"
            except Pruned:
                pass
            child.set_tags({"tuneline.trial.ended": ended})
        if trained is None:
            raise Pruned(f"trial {trial.number}")
        shutil.rmtree(bench.adapter(trial.number), ignore_errors=True)
        shutil.copytree(workspace.training / "adapter", bench.adapter(trial.number))
        return _value(trained, workspace.training / "curves.jsonl", bench.params.sweep.measure)


def tidy(bench: Bench) -> None:
    """Remove what no trial to come can use: checkpoints, unless of stages that trials have in common, and adapters of the others.

    Does nothing while a trial that has begun is to be taken up again.
    """
    from pipeline.modeling.chain import RESULT

    trials = bench.study.trials()
    if any(trial.state == "running" and trial.seconds for trial in trials):
        return
    shared = _shared(bench.params)
    for folder in bench.checkpoints.iterdir() if bench.checkpoints.is_dir() else ():
        try:
            name = json.loads((folder / RESULT).read_bytes())["run"]["name"]
        except (OSError, ValueError, KeyError, TypeError):
            name = None
        if name not in shared:
            shutil.rmtree(folder, ignore_errors=True)
    wanted = {trial.number for trial in (*ranked(trials, least=bench.least)[: NEAREST + 1], bench.own_trial) if trial}
    for adapter in (bench.folder / "adapters").glob("[0-9]*"):
        if int(adapter.name) not in wanted:
            shutil.rmtree(adapter, ignore_errors=True)


def compare(bench: Bench, best: Trial) -> Comparison | None:
    """The best trial beside those next to it and that of the params' own point, on the eval split.

    By the first metric of evaluate; where that counts answers, by how likely the right ones are, which tells more on few rows
    than how often they are given. None where there is no other trial, or the eval split has no row to go by.
    """
    from pipeline.evaluation.comparison import measure
    from pipeline.evaluation.metrics import metric as by_name
    from pipeline.evaluation.rows import read_split
    from pipeline.steps.evaluate import asked_kinds

    params, ranking = bench.params, ranked(bench.study.trials(), least=bench.least)
    candidates = {trial.number for trial in (*ranking[1 : NEAREST + 1], bench.own_trial) if trial} - {best.number}
    others = [number for number in sorted(candidates) if bench.adapter(number).is_dir()]
    metric: str = params.evaluate.metrics[0]
    chosen = params.evaluate
    rows = read_split(bench.workspace.splits, bench.splits.eval, asked_kinds((metric,)))
    if not others or not len(rows):
        return None
    name = metric
    if rows.kinds[0] in (ExampleKind.ANSWER, ExampleKind.CALL):
        # What is right to say is weighed as a text is: each row by the mean log-probability of its tokens.
        name, metric = "likelihood of the answers", "text_likelihood"
        rows = replace(rows, kinds=[ExampleKind.TEXT.value] * len(rows))
    answers = {
        "candidate" if number == best.number else str(number): _asked(bench, number, rows) for number in (best.number, *others)
    }
    found = measure(rows, answers, [by_name(metric)], resamples=chosen.resamples, confidence=chosen.confidence, seed=chosen.seed)
    scores = {whose: values[0] for whose, values in found.values.items()}
    return Comparison(
        metric=name,
        rows=scores["candidate"].rows,
        score=scores["candidate"].value,
        low=scores["candidate"].low,
        high=scores["candidate"].high,
        others=tuple(
            Against(trial=int(c.other), score=scores[c.other].value, difference=c.difference, low=c.low, high=c.high)
            for c in found.comparisons
        ),
    )


def _asked(bench: Bench, number: int, rows: SplitRows) -> Said:
    """What a trial's adapter says to each row. Loaded by itself: weights that were tuned whole are as large as the base."""
    from pipeline.asking.answers import answering
    from pipeline.evaluation.rows import Said
    from pipeline.modeling.answering.generate import Subjects  # torch and peft: seconds to import

    base, asked = find_base(bench.world, bench.workspace, bench.params), bench.params.evaluate
    subjects = Subjects(base, bench.params.model, root=bench.workspace.root)
    subjects.add("candidate", bench.adapter(number))
    if rows.kinds[0] == ExampleKind.TEXT and rows.inputs[0]:
        found = subjects.log_probs("candidate", rows.inputs, rows.expected, batch_size=asked.batch_size, progress=bench.progress)
        return Said([canonical_json([round(value, 6)]) for value in found])
    return answering(subjects, asked, bench.progress)("candidate", rows)


def with_point(params: Params, text: str, point: Point) -> Params:
    """The params of a trial: those of the file with the point's values in their places."""
    from pipeline.backends.params_file import parse_params

    return parse_params(edited(params, text, point), where="the params of a trial")


def edited(params: Params, text: str, point: Point) -> str:
    """The text of the params file with the point's values in their places."""
    from pipeline.backends.params_edit import with_values

    return with_values(text, {("train", *stage_place(key, params.train, params.model.task)): point[key] for key in sorted(point)})


def _value(trained: TrainingRun, curves: Path, measure: str) -> float:
    """The measure of the last stage, after the step whose weights were kept."""
    last = trained.stages[-1]
    for line in reversed(curves.read_text(encoding="utf-8").splitlines()):
        point = json.loads(line)
        if point["stage"] == last.name and point["step"] == last.kept_step and measure in point:
            return float(point[measure])
    raise Misuse(
        f"nothing was measured after step {last.kept_step}", where="sweep.measure", fix="the eval split needs rows it learns from"
    )


def together(params: Params) -> int:
    """How many trials may be under way at once: a worker each, unless they have stages in common, or need several to fit."""
    return 1 if not params.far_workers or params.train.machine.shard or _shared(params) else params.far_workers


def _shared(params: Params) -> set[str]:
    """Names of the stages before the first that any key of the space touches: they are trained once for all trials."""
    chain = params.train.chain(params.model.task)
    places = [stage_place(key, params.train, params.model.task) for key in params.sweep.space]
    first = min((int(place[1]) if place[0] == "stages" else 0 for place in places), default=0)
    return {str(stage.name) for stage in chain[:first]}


def beside(run: Workspace, folder: Path) -> Workspace:
    """A folder that looks like a run's, of links, without what training reads from the params of today (data/starts) or makes."""
    made = Workspace(folder)
    for above, left_out in (
        (Path(), {".git", "data", "work"}),
        (Path("data"), {"starts"}),
        (Path("work"), {"train", "evaluate"}),
    ):
        (folder / above).mkdir(parents=True)
        for there in (run.root / above).iterdir():
            if there.name not in left_out:
                (folder / above / there.name).symlink_to(there)
    return made
