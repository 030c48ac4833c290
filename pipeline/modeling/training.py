"""Tunes an adapter: data, base and parameters in, an adapter folder and its curves out.

The one door through which steps/train.py reaches the libraries; importing this module costs seconds, so do it late. Nothing
is published unless the whole training held: the adapter folder appears by one rename, at the end.
"""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import set_seed

from pipeline.domain.data import LEARNED_KINDS, Task
from pipeline.domain.model import BaseModelRef
from pipeline.errors import BadInput, Misuse
from pipeline.modeling.adapter import new_adapter, write_adapter
from pipeline.modeling.admission import admit
from pipeline.modeling.curves import Curves
from pipeline.modeling.encoding import Encoded, encode_answers, encode_labels
from pipeline.modeling.loading import context_length, device_class, load_base, load_tokenizer
from pipeline.modeling.loop import Loop
from pipeline.modeling.template import ChatTemplate
from pipeline.params import TrainParams
from pipeline.ports import Progress, Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a training came to. train_loss is the mean over all steps; counts says what was cut and dropped, a split each."""

    steps: int
    train_loss: float
    eval_loss: float | None
    train_rows: int
    trainable_parameters: int
    counts: dict[str, dict[str, int]]


def tune(
    train: Sequence[Path],
    evaluation: Sequence[Path],
    params: TrainParams,
    *,
    task: Task,
    labels: tuple[str, ...],
    base: Path,
    ref: BaseModelRef,
    template: str | None,
    adapter: Path,
    curves: Path,
    checkpoints: Path,
    tracker: Tracker,
    progress: Progress,
) -> Tuned:
    """Train on the Parquet files `train`, watch the loss on `evaluation`, write the folder `adapter` and the file `curves`.

    base: the base's folder, `ref` what it is, `template` its chat template (generate). checkpoints: this training's own folder,
    resumed from when it holds a whole checkpoint. Same inputs and seed on a CPU give the same adapter bytes, resumed or not.
    Raises Misuse, BadInput, TrainingDiverged, or TryLater when stopped by SIGTERM.
    """
    progress("loading the base model", 0, 0)
    tokenizer = load_tokenizer(base)
    set_seed(params.seed)  # before the base: a new classification head is drawn while it loads
    model = load_base(base, task, labels, quantize=params.tuner == "qlora")
    limit = context_length(model)
    if limit is not None and params.max_length > limit:
        raise Misuse(
            f"the base has room for {limit} tokens, fewer than max_length", where="train.max_length", fix=f"at most {limit}"
        )
    progress("tokenising", 0, 0)
    if task is Task.GENERATE:
        chat = ChatTemplate(tokenizer, template or "")
        splits = [encode_answers(paths, chat, max_length=params.max_length) for paths in (train, evaluation)]
    else:
        splits = [encode_labels(paths, tokenizer, labels, max_length=params.max_length) for paths in (train, evaluation)]
        model.config.pad_token_id = tokenizer.pad_token_id  # decoders find a row's last token by it
    _check_rows(splits[0], train, task)

    model = new_adapter(model, params, task)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    drawn = Curves(tracker, checkpoints, every=params.logging_steps)
    loop = Loop(
        model,
        task,
        splits[0],
        splits[1],
        params,
        pad_id=tokenizer.pad_token_id,
        folder=checkpoints,
        curves=drawn,
        progress=progress,
    )
    loop.run()

    aside = adapter.with_name(f".{adapter.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write_adapter(model, aside, base=ref, task=task, labels=labels, params=params, template=template)
    admit(aside, ref)  # what cannot be loaded again is not published
    shutil.rmtree(adapter, ignore_errors=True)
    aside.rename(adapter)
    drawn.write(curves)
    return Tuned(
        steps=loop.total,
        train_loss=drawn.train_loss,
        eval_loss=drawn.eval_loss,
        train_rows=len(splits[0]),
        trainable_parameters=trainable,
        counts={name: split.counts for name, split in zip(("train", "eval"), splits, strict=True)},
    )


def versions() -> dict[str, str]:
    """What made an adapter: library versions and the device class, outside of which its bytes need not repeat."""
    found = {"device": device_class(), "threads": str(torch.get_num_threads())}
    for name in ("torch", "transformers", "peft", "bitsandbytes", "datasets", "tuneline"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def _check_rows(encoded: Encoded, paths: Sequence[Path], task: Task) -> None:
    where = str(paths[0].parent) if paths else "train"
    if encoded.read and encoded.other_kinds == encoded.read:
        held = ", ".join(f"{kind} ({rows})" for kind, rows in sorted(encoded.kinds.items()))
        raise Misuse(
            f"the task {task} learns from rows of {' and '.join(sorted(LEARNED_KINDS[task]))}, and the train split holds {held}",
            where=where,
            fix="ingest rows of a format that shows answers (docs/formats.md)",
        )
    if not len(encoded):
        raise BadInput(
            f"no row is left to train on: {encoded.counts}",
            where=where,
            fix="raise train.max_length, or look at the rows" if encoded.read else "the train split is empty",
        )
