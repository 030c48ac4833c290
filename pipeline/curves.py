"""A learning curve bound to the stores of a project: shares of a kept run's train side, trained with its own params, one by one.

Which rows a share has and what the curve says is steps/curve.py's, how one is trained shares.py's. The run's folder is only read,
and nothing is registered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from pipeline.domain.curated import Splits
from pipeline.domain.curve import Curve, CurveResult
from pipeline.domain.record import digest_file, digest_value
from pipeline.errors import Misuse
from pipeline.params import Params
from pipeline.ports import Progress, Tracker, silent
from pipeline.shares import Bench, measure_share
from pipeline.wiring import World, find_base, read_params
from pipeline.workspace import Workspace

RECORD, PAGE = "curve.json", "curve.html"


def run_curve(
    world: World,
    params: Params,
    *,
    number: int | None = None,
    fractions: Sequence[float] = (0.25, 0.5, 1.0),
    rows: Sequence[int] = (),
    seeds: int = 1,
    margin: float = 0.02,
    max_hours: float | None = None,
    max_cost: float | None = None,
    out: Path | None = None,
    say: Callable[[str], None],
    progress: Progress = silent,
) -> CurveResult:
    """Draw the learning curve of a kept run (default: the newest) of the model, and leave curve.json and curve.html in `out`.

    Safe to repeat: a share that was trained on is not trained on again, and one that was interrupted goes on. max_hours and
    max_cost are of training in all. Raises TryLater while another curve of the model is drawn, Misuse when there is nothing
    to draw.
    """
    from pipeline.backends.run_folder import find_kept, open_kept
    from pipeline.backends.run_locks import one_run_at_a_time
    from pipeline.evaluation.metrics import chosen, slice_metric
    from pipeline.evaluation.rows import read_split
    from pipeline.steps.curve import curve, curve_page, sittings, sizes_of

    kept = find_kept(world.git, params.model.name, number)
    with one_run_at_a_time(world.project, f"{params.model.name}-curve"), ExitStack() as stack:
        there = open_kept(world.git, world.project, kept, remote=world.settings.dvc_remote)
        own = read_params(there.params)
        if not there.splits_record.is_file():
            raise Misuse(
                "this run has no splits", where=kept.key, fix="name a run that has, with --run, or make one: tuneline run"
            )
        splits = Splits.read(there.splits_record)
        primary = own.evaluate.model_copy(update={"metrics": own.evaluate.metrics[:1]})
        metric = slice_metric(chosen(primary, root=there.root)[0])
        train, test = read_split(there.splits, splits.train), read_split(there.splits, splits.test, metric.kinds)
        sizes = sizes_of(len(train), fractions, rows)
        scratch = stack.enter_context(world.scratch())
        folder = world.project.curves / _identity(world, there, own, splits, metric.name)[:12]
        hours = _hours(own, max_hours, max_cost)
        bench = Bench(world, own, there, splits, folder, scratch, train, test, metric, hours, say, progress)
        parent = stack.enter_context(world.tracked(params.model.name, bench.name, {"tuneline.curve": folder.name}))
        found = curve(
            sittings(sizes, seeds),
            lambda sitting: measure_share(bench, sitting, parent),
            groups=test.groups,
            total=len(train),
            splits=splits.digest,
            params=own.train.model_dump(mode="json"),
            metric=metric.name,
            margin=margin,
            confidence=own.evaluate.confidence,
            resamples=own.evaluate.resamples,
            seed=own.evaluate.seed,
        )
        target = out or folder
        html = curve_page(found, f"{params.model.name}: learning curve of {kept.key}")
        for place in dict.fromkeys((folder, target)):
            found.write(place / RECORD)
            (place / PAGE).write_text(html, encoding="utf-8")
        _tell(parent, found, folder)
    price = own.train.price_per_hour
    return CurveResult(
        name=bench.name,
        run=kept.key,
        ended="the budget is spent" if found.missing else f"all {len(found.points)} trainings were made",
        seconds=round(bench.spent, 3),
        cost=None if price is None else round(bench.spent / 3600 * price, 6),
        curve=found,
        page=str(target / PAGE),
    )


def _hours(params: Params, max_hours: float | None, max_cost: float | None) -> float | None:
    price = params.train.price_per_hour
    if max_cost is not None and price is None:
        raise Misuse("a cost needs a price", where="train.price_per_hour", fix="set it in params and run again, or cap the hours")
    capped = [max_hours, None if max_cost is None or not price else max_cost / price]
    return min((hours for hours in capped if hours is not None), default=None)


def _identity(world: World, there: Workspace, params: Params, splits: Splits, metric: str) -> str:
    """Names all that a share's score hangs on but its rows: more shares of the same data and params go on in the same folder."""
    from pipeline.modeling.base import describe_base

    base = describe_base(params.model, find_base(world, there, params), root=there.root)
    train = params.train.model_dump(mode="json", exclude={"max_hours", "max_cost", "price_per_hour"})
    asked = [metric, params.evaluate.max_new_tokens, params.evaluate.format.model_dump(mode="json")]
    starts = digest_file(there.starts_record) if there.starts_record.is_file() else ""
    return digest_value([splits.digest, starts, base.digest, params.model.task, train, asked])


def _tell(parent: Tracker, found: Curve, folder: Path) -> None:
    """Put the curve where MLflow's readers look for it."""
    for share in found.shares:
        parent.log_metrics({found.metric: share.score}, step=share.rows)
    for name in (RECORD, PAGE):
        parent.log_file(folder / name)
