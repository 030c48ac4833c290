"""The step `train`: splits in, an adapter and the record of how it was made out. A pure function of files and params.

What needs torch is in pipeline.modeling and imported late. The tracker sees the run; it decides nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.domain.curated import Splits
from pipeline.domain.model import TrainingRun
from pipeline.domain.record import describe_files, digest_file, digest_value
from pipeline.errors import Misuse, Tampered
from pipeline.modeling.base import describe_base, template_text
from pipeline.params import ModelParams, TrainParams
from pipeline.ports import Progress, Tracker, silent


def train(
    splits: Splits,
    params: TrainParams,
    model: ModelParams,
    *,
    data: Path,
    out: Path,
    base: Path,
    checkpoints: Path,
    tracker: Tracker,
    progress: Progress = silent,
    root: Path = Path(),
) -> TrainingRun:
    """Tune an adapter on the splits in the folder `data` and write adapter/, curves.jsonl and training.json to `out`.

    base: the base's folder (see modeling.base.locate_base). checkpoints: where interrupted trainings are kept; each has a folder
    named by all that could change its result, so it is resumed exactly and never by another. root: where the relative path
    of model.chat_template starts. Raises Misuse when the splits did not pass their checks, Tampered when a split file is not the
    recorded one; see modeling.training.tune.
    """
    if not splits.passed:
        failed = ", ".join(check.name for check in splits.failures)
        raise Misuse(f"rows to train on repeat rows held out: {failed}", where=str(data), fix="see leaks.parquet")
    for part in (*splits.train.parts, *splits.eval.parts):
        _check_split(data, part.path, part.sha256)
    ref = describe_base(model, base, root=root)

    from pipeline.modeling.training import tune, versions

    made_by = versions()
    settings = {"train": params.model_dump(mode="json"), "model": model.model_dump(mode="json")}
    tracker.log_params(_flatten(settings | {"base": ref.model_dump(mode="json")}))
    tracker.set_tags({"tuneline.base": ref.digest, "tuneline.splits": splits.digest})
    for name, split in (("train", splits.train), ("eval", splits.eval)):
        tracker.log_dataset(name, split.sha256, source=name, rows=split.rows, context=name)

    # A run that fails must leave nothing that looks like a result, an earlier one's least of all.
    for stale in (out / "training.json", out / "curves.jsonl"):
        stale.unlink(missing_ok=True)
    shutil.rmtree(out / "adapter", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    identity = digest_value([splits.digest, ref.digest, params.model_dump(mode="json"), model.task, model.chat_template, made_by])
    folder = checkpoints / identity[:24]
    tuned = tune(
        [data / part.path for part in splits.train.parts],
        [data / part.path for part in splits.eval.parts],
        params,
        task=model.task,
        labels=splits.labels,
        base=base,
        ref=ref,
        template=template_text(model, base, root=root) if ref.template is not None else None,
        adapter=out / "adapter",
        curves=out / "curves.jsonl",
        checkpoints=folder,
        tracker=tracker,
        progress=progress,
    )
    record = TrainingRun(
        splits=splits.digest,
        task=model.task,
        base=ref,
        params=settings,
        adapter=describe_files(out / "adapter"),
        steps=tuned.steps,
        train_loss=tuned.train_loss,
        eval_loss=tuned.eval_loss,
        train_rows=tuned.train_rows,
        trainable_parameters=tuned.trainable_parameters,
        versions=made_by,
    )
    record.write(out / "training.json")
    tracker.log_metrics(_summary(record) | _flatten(tuned.counts, "rows."))
    shutil.rmtree(folder, ignore_errors=True)
    return record


def _check_split(data: Path, name: str, sha256: str) -> None:
    path = data / name
    if not path.is_file():
        raise Tampered("the split file is missing", where=str(path), fix="run the split step again")
    if digest_file(path) != sha256:
        raise Tampered(f"the split file does not have the recorded digest {sha256[:12]}", where=str(path), fix="split again")


def _summary(record: TrainingRun) -> dict[str, float]:
    summary = {
        "train_loss": record.train_loss,
        "train_rows": record.train_rows,
        "trainable_parameters": record.trainable_parameters,
    }
    return summary | ({"final_eval_loss": record.eval_loss} if record.eval_loss is not None else {})


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; lists as JSON."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= _flatten(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(inner) if isinstance(inner, list | tuple) else inner
    return flat
