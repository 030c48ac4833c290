"""A sweep bound to the stores of a project: a kept run's splits, a study in the state folder, one tracked run a trial, params.

What is tried and when a trial ends is steps/sweep.py's and the study's. Nothing that a run depends on is made here, but for the
params that the winner is written to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.domain.curated import Splits
from pipeline.domain.model import Starts
from pipeline.domain.record import digest_value
from pipeline.domain.sweeping import Dimension, Point, SweepResult, ranked
from pipeline.errors import Misuse
from pipeline.params.sweep import stage_place, whole_numbers
from pipeline.placing import lay_starts
from pipeline.ports import Progress, Study, Tracker, silent
from pipeline.trials import Bench, beside, compare, edited, tidy, together, train_trial, with_point
from pipeline.wiring import World, find_base, find_engine
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.backends.run_folder import KeptRun
    from pipeline.params import Params
    from pipeline.steps.sweep import Budget

BEST = "best"
"""In MLflow, the curve of the best value so far, over the numbers of trials."""


def run_sweep(
    world: World,
    path: Path,
    *,
    number: int | None = None,
    trials: int | None = None,
    max_hours: float | None = None,
    out: Path | None = None,
    say: Callable[[str], None],
    progress: Progress = silent,
) -> SweepResult:
    """Sweep what the params file at `path` asks for, on the splits of a kept run, and write the winner to it, or to `out`.

    number: of the run; default: the newest. trials, max_hours: instead of those in params. Safe to repeat: what was tried before
    with the same data, base and other params counts. Raises TryLater while another sweep of the model is under way, Misuse when
    there is nothing to sweep or nothing to judge by; see steps/sweep.py.
    """
    from pipeline.backends.params_file import parse_params
    from pipeline.backends.run_folder import find_kept, open_kept
    from pipeline.backends.run_locks import one_run_at_a_time
    from pipeline.steps.sweep import sweep

    text = path.read_text(encoding="utf-8")
    params = parse_params(text, where=str(path))
    if not params.sweep.space:
        raise Misuse("there is nothing to try", where="sweep.space", fix="name keys of train and their ranges; see docs/sweep.md")
    _check_effects(params, text)
    kept = find_kept(world.git, params.model.name, number)
    find_engine(world, params)  # what could not be trained is said before anything is looked up
    with one_run_at_a_time(world.project, f"{params.model.name}-sweep"), ExitStack() as stack:
        there = open_kept(world.git, world.project, kept, remote=world.settings.dvc_remote)
        splits = _splits(there, kept)
        workspace = beside(there, stack.enter_context(world.scratch()) / "run")
        starts = lay_starts(world, workspace, params, dirty=True)  # nothing of a sweep is released
        folder = world.project.sweeps / _identity(world, workspace, params, text, splits, starts)[:12]
        study, own = _study(folder, params), _own_point(params)
        bench = Bench(world, params, text, workspace, splits, folder, study, own, progress, together(params))
        parent = stack.enter_context(world.tracked(params.model.name, bench.name, {"tuneline.sweep": folder.name}))
        budget = _budget(params, trials, max_hours)
        train = partial(train_trial, bench, parent=parent)
        ended = sweep(study, train, budget, own=own, say=say, at_once=bench.at_once)
        tidy(bench)
        say(ended)
        result = _write_winner(_result(bench, kept.key, ended), bench, path, out)
        _tell(parent, result, folder)
    return result


def _check_effects(params: Params, text: str) -> None:
    """A key that stages share moves nothing when each gives its own. Raises Misuse for one, or for a value that is refused."""
    for key, space in params.sweep.space.items():
        chains = [with_point(params, text, {key: value}).train.chain(params.model.task) for value in space.ends]
        if all(chain == chains[0] for chain in chains):
            raise Misuse(
                "every stage gives its own, so this changes nothing", where=f"sweep.space.{key}", fix=f"stages.NAME.{key}"
            )


def _splits(workspace: Workspace, kept: KeptRun) -> Splits:
    if not workspace.splits_record.is_file():
        raise Misuse(
            "this run has no splits", where=kept.key, fix="name a run that has, with --run, or make one: tuneline ingest"
        )
    splits = Splits.read(workspace.splits_record)
    if not splits.eval.rows:
        raise Misuse(
            "trials are judged on the eval split, and it is empty", where=kept.key, fix="raise split.eval, and run again"
        )
    return splits


def _identity(world: World, workspace: Workspace, params: Params, text: str, splits: Splits, starts: Starts) -> str:
    """Names all that trials depend on but the values that are tried: what the winner is written to is the same sweep."""
    from pipeline.modeling.base import describe_base

    base = describe_base(params.model, find_base(world, workspace, params), root=workspace.root)
    fixed = with_point(params, text, {key: space.ends[0] for key, space in params.sweep.space.items()})
    train = fixed.train.model_dump(mode="json", exclude={"max_hours", "max_cost", "price_per_hour"})
    asked = params.sweep.model_dump(mode="json", exclude={"trials", "max_hours", "max_cost"})
    return digest_value([splits.digest, starts.digest, base.digest, params.model.task, train, asked])


def _study(folder: Path, params: Params) -> Study:
    from pipeline.backends.optuna import OptunaStudy

    sweep = params.sweep
    return OptunaStudy(
        folder / "study.db",
        folder.name,
        {key: _dimension(key, params) for key in sweep.space},
        least=sweep.measure == "eval_loss",
        pruning=sweep.pruning,
        seed=sweep.seed,
    )


def _dimension(key: str, params: Params) -> Dimension:
    space = params.sweep.space[key]
    if space.choices is not None:
        return Dimension(choices=space.choices)
    low, high = space.ends
    return Dimension(low=low, high=high, log=space.log, whole=whole_numbers(key, params.train, params.model.task))


def _own_point(params: Params) -> Point | None:
    """The params as they are, as a point of the space; None when they lie outside it."""
    said: Any = params.train.model_dump(mode="json")
    point: Point = {}
    for key in sorted(params.sweep.space):
        value = said
        for part in stage_place(key, params.train, params.model.task):
            value = value.get(part) if isinstance(value, Mapping) else value[part]
        if not _dimension(key, params).holds(value):
            return None
        point[key] = value
    return point


def _budget(params: Params, trials: int | None, max_hours: float | None) -> Budget:
    from pipeline.steps.sweep import Budget

    sweep, price = params.sweep, params.train.price_per_hour
    hours = [max_hours or sweep.max_hours]
    if sweep.max_cost is not None and price is not None:
        hours.append(sweep.max_cost / price)
    capped = [found for found in hours if found is not None]
    return Budget(trials=trials or sweep.trials, seconds=min(capped) * 3600 if capped else None)


def _result(bench: Bench, run: str, ended: str) -> SweepResult:
    trials, price = bench.study.trials(), bench.params.train.price_per_hour
    best = next(iter(ranked(trials, least=bench.least)), None)
    seconds = sum(trial.seconds for trial in trials)
    return SweepResult(
        name=bench.name,
        run=run,
        measure=bench.params.sweep.measure,
        ended=ended,
        trials=trials,
        best=best.number if best else None,
        own=bench.own_trial.number if bench.own_trial else None,
        seconds=round(seconds, 3),
        cost=None if price is None else round(seconds / 3600 * price, 6),
        comparison=compare(bench, best) if best else None,
    )


def _write_winner(result: SweepResult, bench: Bench, path: Path, out: Path | None) -> SweepResult:
    """Write the params with the best point to `out`, or in place where it is another than the params' own."""
    from pipeline.backends.params_edit import difference
    from pipeline.backends.params_file import parse_params

    best = result.trial(result.best)
    if best is None:
        return result
    text = path.read_text(encoding="utf-8")  # a person may have written in it meanwhile
    changed = text if best.point == bench.own else edited(bench.params, text, best.point)
    parse_params(changed, where=str(path))
    target = out or path
    if changed == text and out is None:
        return result
    aside = target.with_name(f".{target.name}.new")
    aside.write_text(changed, encoding="utf-8")
    aside.replace(target)
    return result.model_copy(update={"change": difference(text, changed, path.name), "written": str(target)})


def _tell(parent: Tracker, result: SweepResult, folder: Path) -> None:
    """Put what the sweep came to where MLflow's readers look for it."""
    least = result.measure == "eval_loss"
    for at in range(len(result.trials)):
        if found := ranked(result.trials[: at + 1], least=least):
            parent.log_metrics({f"{BEST}_{result.measure}": found[0].value or 0.0}, step=at)
    parent.set_tags({"tuneline.sweep.best": str(result.best), "tuneline.sweep.ended": result.ended})
    record = folder / "sweep.json"
    record.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    parent.log_file(record)
