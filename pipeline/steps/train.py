"""The step `train`: splits in, an adapter and the record of how it was made out. A pure function of files and params.

A training is a chain of stages; each makes an adapter, which later ones may begin from, and the last one's is the result. What
needs torch is in pipeline.modeling and imported late. The tracker sees the run; it decides nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from pipeline.domain.curated import Splits
from pipeline.domain.model import StageRun, Starts, TrainingRun
from pipeline.domain.record import describe_files, digest_file
from pipeline.errors import Broken, Misuse, Tampered
from pipeline.modeling.base import describe_base, template_text
from pipeline.modeling.chain import Chain, digest_folder
from pipeline.params import ModelParams, TrainParams
from pipeline.ports import Engine, Progress, Tracker, silent


def train(
    splits: Splits,
    params: TrainParams,
    model: ModelParams,
    *,
    starts: Starts,
    data: Path,
    starts_folder: Path,
    out: Path,
    base: Path,
    checkpoints: Path,
    cache: Path,
    tracker: Tracker,
    progress: Progress = silent,
    root: Path = Path(),
    keep_stages: bool = False,
    engine: Engine | None = None,
) -> TrainingRun:
    """Tune on the splits in the folder `data` and write adapter/, stages/, curves.jsonl and training.json to `out`.

    starts: the released adapters in `starts_folder` that a stage may begin from. base: the base's folder (see
    modeling.base.locate_base). checkpoints: where interrupted trainings are kept: each stage is resumed exactly, and a finished
    one is not repeated while the chain goes on, or later with `keep_stages`. cache: what can be made again, by content. root:
    where params' paths start. engine: where stages are trained; None: here.

    Raises Misuse when the splits did not pass their checks, Tampered when a split file or a start is not the recorded one; see
    modeling.training.tune.
    """
    _check_inputs(splits, starts, data, starts_folder)
    ref = describe_base(model, base, root=root)

    tune, made_by = _where(engine)
    chain = Chain(
        params=params,
        model=model,
        splits=splits,
        starts=starts,
        ref=ref,
        template=template_text(model, base, root=root) if ref.template is not None else None,
        data=data,
        base=base,
        starts_folder=starts_folder,
        checkpoints=checkpoints,
        cache=cache,
        root=root,
        made_by=made_by,
    )
    _introduce(chain, tracker)
    _clear(out)
    stages = params.chain(model.task)
    for stage in stages:
        job = chain.job(stage)
        seen = cast(Tracker, StageTracker(tracker, str(stage.name))) if len(stages) > 1 else tracker
        if not chain.was_done(job):
            chain.finish(job, tune(job, tracker=seen, progress=progress))
        seen.log_metrics(_summary(chain.runs[-1]))
    chain.lay_out(out)
    record = _record(chain, out)
    record.write(out / "training.json")
    if not keep_stages:
        chain.clear()
    return record


def _where(engine: Engine | None) -> tuple[Callable[..., Any], Mapping[str, str]]:
    """What trains a stage, and what it is then made by."""
    if engine is not None:
        return engine.tune, engine.made_by
    from pipeline.modeling.training import tune, versions

    return tune, versions()


class StageTracker:
    """A tracked run as one stage of a chain sees it: its numbers and tags bear the stage's name."""

    def __init__(self, tracker: Tracker, stage: str) -> None:
        self._tracker, self._stage = tracker, stage

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        self._tracker.log_metrics({f"{self._stage}.{name}": value for name, value in metrics.items()}, step=step)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._tracker.set_tags({f"{name}.{self._stage}": value for name, value in tags.items()})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)


def _check_inputs(splits: Splits, starts: Starts, data: Path, starts_folder: Path) -> None:
    if not splits.passed:
        failed = ", ".join(check.name for check in splits.failures)
        raise Misuse(f"rows to train on repeat rows held out: {failed}", where=str(data), fix="see leaks.parquet")
    for part in (*splits.train.parts, *splits.eval.parts):
        path = data / part.path
        if not path.is_file():
            raise Tampered("the split file is missing", where=str(path), fix="run the split step again")
        if digest_file(path) != part.sha256:
            said = f"the split file does not have the recorded digest {part.sha256[:12]}"
            raise Tampered(said, where=str(path), fix="split again")
    for start in starts.entries:
        folder = starts_folder / start.folder
        if not folder.is_dir() or digest_folder(folder) != start.adapter_digest:
            raise Tampered(f"the adapter of {start.name} is not the one that was released", where=str(folder), fix="run again")


def _introduce(chain: Chain, tracker: Tracker) -> None:
    """Tell the tracked run what goes in: params (of a chain each stage's under its name), base, data."""
    params, model, splits = chain.params, chain.model, chain.splits
    whole = params.model_dump(mode="json", include={"machine", "max_hours", "max_cost", "price_per_hour"})
    stages = {str(stage.name): stage.model_dump(mode="json") for stage in params.chain(model.task)}
    whole |= stages if len(stages) > 1 else next(iter(stages.values()))
    said = {"train": whole, "model": model.model_dump(mode="json"), "base": chain.ref.model_dump(mode="json")}
    tracker.log_params(_flatten(said))
    tags = {"tuneline.base": chain.ref.digest, "tuneline.splits": splits.digest, "tuneline.starts": chain.starts.digest}
    tracker.set_tags(tags)
    for name, split in (("train", splits.train), ("eval", splits.eval)):
        tracker.log_dataset(name, split.sha256, source=name, rows=split.rows, context=name)


def _clear(out: Path) -> None:
    """A run that fails must leave nothing that looks like a result, an earlier one's least of all."""
    for stale in (out / "training.json", out / "curves.jsonl"):
        stale.unlink(missing_ok=True)
    for folder in (out / "adapter", out / "stages"):
        shutil.rmtree(folder, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)


def _record(chain: Chain, out: Path) -> TrainingRun:
    last = chain.runs[-1]
    record = TrainingRun(
        splits=chain.splits.digest,
        task=chain.model.task,
        base=chain.ref,
        params={"train": chain.params.model_dump(mode="json"), "model": chain.model.model_dump(mode="json")},
        adapter=describe_files(out / "adapter"),
        steps=sum(run.steps for run in chain.runs),
        train_loss=last.train_loss,
        eval_loss=last.eval_loss,
        train_rows=last.train_rows,
        trainable_parameters=last.trainable_parameters,
        versions=dict(chain.made_by),
        starts=chain.starts.digest,
        stages=tuple(chain.runs),
    )
    if record.adapter_digest != last.adapter_digest:
        raise Broken("the adapter did not arrive where it is kept", where=str(out / "adapter"), fix="run again")
    return record


def _summary(run: StageRun) -> dict[str, float]:
    summary: dict[str, float] = {
        "train_loss": run.train_loss,
        "train_rows": run.train_rows,
        "trainable_parameters": run.trainable_parameters,
        **{f"final_{name}": value for name, value in run.measures.items()},
        **_flatten(run.counts, "rows."),
    }
    return summary | ({"final_eval_loss": run.eval_loss} if run.eval_loss is not None else {})


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; lists as JSON."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= _flatten(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(inner) if isinstance(inner, list | tuple) else inner
    return flat
