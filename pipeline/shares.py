"""One training on a share of a kept run's rows: its rows laid out, trained, measured on the test side, and noted for good.

The run's folder is only read. Which rows a share has is steps/curve.py's; what a curve is made of, curves.py's.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.domain.curated import SplitFile, Splits, SplitSide
from pipeline.domain.model import TrainingRun
from pipeline.domain.record import digest_file
from pipeline.errors import Broken, CapReached, Misuse
from pipeline.placing import lay_starts
from pipeline.ports import Progress, Tracker
from pipeline.stages import train_in
from pipeline.trials import beside
from pipeline.wiring import World, find_base
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.evaluation.metrics import Metric
    from pipeline.evaluation.rows import SplitRows
    from pipeline.params import Params
    from pipeline.steps.curve import Measured, Sitting


@dataclass(frozen=True, slots=True)
class Bench:
    """All that the trainings of one curve share. there: the kept run's folder. folder: the curve's own, in the state folder.
    hours: of training in all; None: no cap."""

    world: World
    params: Params
    there: Workspace
    splits: Splits
    folder: Path
    scratch: Path
    train: SplitRows
    test: SplitRows
    metric: Metric
    hours: float | None
    say: Callable[[str], None]
    progress: Progress

    @property
    def name(self) -> str:
        """Of the curve's tracked run."""
        return f"{self.params.model.name}-curve-{self.folder.name}"

    @property
    def spent(self) -> float:
        """Seconds of training so far, all sittings together."""
        try:
            return float(json.loads((self.folder / "spent.json").read_text())["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0

    def note(self, seconds: float) -> None:
        _write(self.folder / "spent.json", {"seconds": round(seconds, 3)})


class Uncapped:
    """A tracked run that is not told of the cap on hours: what is left of a budget is another number at each sitting, and a
    logged param can't be changed."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._tracker.log_params({name: value for name, value in params.items() if name != "train.max_hours"})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)


def measure_share(bench: Bench, sitting: Sitting, parent: Tracker) -> Measured | None:
    """What a share came to: as noted, or trained and measured now. None when the budget does not allow it."""
    place = bench.folder / "shares" / f"{sitting.rows}-{sitting.seed}.json"
    if place.is_file():
        return _noted(place, len(bench.test))
    if bench.hours is not None and bench.spent >= bench.hours * 3600:
        return None
    try:
        found = _trained(bench, sitting, parent)
    except CapReached:
        if bench.hours is None or bench.spent < bench.hours * 3600 - 1:
            raise  # a cap of train's own: the share goes on when that is raised
        bench.say(f"{sitting.rows} rows: goes on when the budget is raised")
        return None
    _write(place, {"trained": found.trained, "training": found.training, "scores": list(found.scores)})
    shutil.rmtree(bench.folder / "checkpoints", ignore_errors=True)
    score = sum(found.scores) / max(len(found.scores), 1)
    bench.say(f"{found.trained} rows, seed {sitting.seed}: {bench.metric.name} {score:.4g}")
    return found


def _trained(bench: Bench, sitting: Sitting, parent: Tracker) -> Measured:
    from pipeline.steps.curve import Measured, share_of

    places = share_of(bench.train.groups, sitting.rows, sitting.seed)
    kept = _kept_training(bench) if len(places) == len(bench.train) and sitting.seed == 0 else None
    if kept is not None:
        return Measured(len(places), kept.digest, _scores(bench, bench.there.training / "adapter"))
    place = bench.scratch / f"{sitting.rows}-{sitting.seed}"
    workspace = beside(bench.there, place)
    if bench.there.starts_record.is_file():
        workspace.starts.symlink_to(bench.there.starts)  # what all rows began from
    else:
        lay_starts(bench.world, workspace, bench.params, dirty=True)  # nothing of a curve is released
    _lay_share(bench, workspace, {bench.train.ids[at] for at in places}, sitting)
    before, begun = bench.spent, time.monotonic()
    left = None if bench.hours is None else bench.hours - before / 3600
    caps = [hours for hours in (bench.params.train.max_hours, left) if hours is not None]
    train = bench.params.train.model_copy(update={"max_hours": min(caps, default=None), **_seeded(bench.params, sitting.seed)})
    tags = {"mlflow.parentRunId": parent.run_id, "tuneline.share": str(sitting.rows)}
    try:
        with bench.world.tracked(bench.params.model.name, f"{bench.name}-{sitting.rows}-{sitting.seed}", tags) as child:
            trained = train_in(
                bench.world,
                workspace,
                bench.params.model_copy(update={"train": train}),
                cast(Tracker, Uncapped(child)),
                bench.progress,
                checkpoints=bench.folder / "checkpoints",
            )
    finally:
        bench.note(before + time.monotonic() - begun)
    scores = _scores(bench, workspace.training / "adapter")
    shutil.rmtree(place)
    return Measured(len(places), trained.digest, scores)


def _seeded(params: Params, seed: int) -> dict[str, Any]:
    """Another draw of rows is another training altogether; the first is by the params as they are."""
    return {"seed": params.train.seed + seed} if seed else {}


def _kept_training(bench: Bench) -> TrainingRun | None:
    """The run's own training, which is the one on all rows; None where it took data in alone."""
    if not bench.there.training_record.is_file() or not (bench.there.training / "adapter").is_dir():
        return None
    found = TrainingRun.read(bench.there.training_record)
    same = found.params.get("train") == bench.params.train.model_dump(mode="json")
    return found if found.splits == bench.splits.digest and same else None


def _lay_share(bench: Bench, workspace: Workspace, wanted: set[str], sitting: Sitting) -> None:
    """The run's split with a train side of the wanted rows alone, in place of the link to it."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    there, here = bench.there.splits, workspace.splits
    here.unlink()
    here.mkdir()
    for one in there.iterdir():
        if one.name not in ("train", bench.there.splits_record.name):
            (here / one.name).symlink_to(one)
    parts = []
    for part in bench.splits.train.parts:
        table = parquet.read_table(there / part.path)
        rows = table.filter(pa.array([id in wanted for id in table.column("id").to_pylist()], pa.bool_()))
        if not rows.num_rows:
            continue
        path = here / part.path
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(rows, path, compression="zstd")
        parts.append(SplitFile(path=part.path, sha256=digest_file(path), bytes=path.stat().st_size, rows=rows.num_rows))
    params = {**bench.splits.params, "curve": {"rows": sitting.rows, "seed": sitting.seed}}
    changed = bench.splits.model_copy(update={"train": SplitSide(parts=tuple(parts)), "params": params})
    changed.write(workspace.splits_record)


def _scores(bench: Bench, adapter: Path) -> tuple[float, ...]:
    """The score of each test row, of the run's first metric."""
    from pipeline.asking.answers import answering, as_said
    from pipeline.modeling.answering.generate import Subjects  # torch and peft: seconds to import

    subjects = Subjects(find_base(bench.world, bench.there, bench.params), bench.params.model, root=bench.there.root)
    subjects.add("candidate", adapter)
    rows = as_said(bench.test, subjects)
    said = answering(subjects, bench.params.evaluate, bench.progress)("candidate", rows)
    found = bench.metric.scores(rows, said)
    if found is None:
        raise Misuse(f"{bench.metric.name} has no score a row", where="evaluate.metrics", fix="put one first that has")
    return tuple(round(float(score), 9) for score in found)


def _noted(place: Path, rows: int) -> Measured:
    from pipeline.steps.curve import Measured

    try:
        said = json.loads(place.read_text(encoding="utf-8"))
        found = Measured(int(said["trained"]), str(said["training"]), tuple(float(score) for score in said["scores"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Broken(f"what a share came to cannot be read: {error}", where=str(place), fix="remove the file") from error
    if len(found.scores) != rows:
        raise Broken(f"{len(found.scores)} scores are noted of {rows} test rows", where=str(place), fix="remove the file")
    return found


def _write(path: Path, value: Any) -> None:
    """By rename: a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(json.dumps(value) + "\n", encoding="utf-8")
    aside.replace(path)
