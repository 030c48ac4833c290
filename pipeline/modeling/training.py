"""Tunes one stage of a chain: a job in, an adapter folder and its curves out.

The one door through which steps/train.py reaches the libraries; importing this module costs seconds, so do it late. Nothing
is published unless the whole training held: the adapter folder appears by one rename, at the end.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from pipeline.domain.model import KEPT_LOSS
from pipeline.domain.tuning import Objective, Output
from pipeline.errors import BadInput, Misuse
from pipeline.modeling.adapters.adapter import write_adapter
from pipeline.modeling.adapters.admission import admit
from pipeline.modeling.continual.ewc import anchor
from pipeline.modeling.hardware import Fitted, choose, fit
from pipeline.modeling.hardware.probe import put_on
from pipeline.modeling.job import Job, Tuned
from pipeline.modeling.learning.making import new_learner
from pipeline.modeling.loading import context_length, device_class, load_tokenizer
from pipeline.modeling.loop.curves import Curves
from pipeline.modeling.loop.loop import Loop
from pipeline.modeling.parallel.alike import library_versions
from pipeline.modeling.parallel.launching import tune_together
from pipeline.modeling.parallel.ranks import ranks
from pipeline.modeling.parallel.sharding import put_together
from pipeline.modeling.texts.encoding import encode
from pipeline.modeling.texts.rows import Encoded
from pipeline.modeling.texts.template import ChatTemplate
from pipeline.modeling.tuners import tunable
from pipeline.params.learning import OverfittingParams
from pipeline.params.train import StageParams
from pipeline.ports import Progress, Tracker

log = logging.getLogger(__name__)


def tune(job: Job, *, tracker: Tracker, progress: Progress) -> Tuned:
    """Run one training stage: write the folder job.adapter and the file job.curves, resuming from what job.folder holds.

    Same job on a CPU gives the same adapter bytes, resumed or not. Raises Misuse, BadInput, Broken, TrainingDiverged, TryLater
    when stopped by SIGTERM, CapReached at job.max_hours.
    """
    if job.machine.processes > 1 and ranks().count == 1 and job.objective is not Objective.PPO:
        return tune_together(job, tracker=tracker, progress=progress)
    progress("loading the base model", 0, 0)
    tokenizer = load_tokenizer(job.base)
    template = ChatTemplate(tokenizer, job.template) if job.template is not None else None
    choose(job)
    set_seed(job.stage.seed)  # before the base: a new head or adapter is drawn while it is made
    model = tunable(job.base, job.ref, job.stage, job.output, job.labels, start=job.start)
    _check_length(job, model)
    progress("tokenising", 0, 0)
    train, held = ranks().in_turn(lambda: [_encoded(job, paths, tokenizer, template) for paths in (job.train, job.held)])
    _check_rows(job, train)
    fitted = ranks().in_turn(lambda: fit(job, train.row_lengths.max(1).tolist(), labelled=train.row_learned.max(1).tolist()))
    put_on(model, fitted)
    learner = new_learner(job, model, train, held, tokenizer=tokenizer, template=template)
    trainable = sum(weight.numel() for weight in learner.model.parameters() if weight.requires_grad)
    penalty = anchor(job, learner, train, progress)
    curves = Curves(tracker, job.folder, every=job.stage.logging_steps)
    loop = Loop(
        learner,
        _watched(job),
        folder=job.folder,
        curves=curves,
        progress=progress,
        penalty=penalty,
        micro_rows=fitted.micro_rows,
        max_hours=job.max_hours,
        machine=job.machine,
    )
    loop.run()
    model = put_together(model, lambda: tunable(job.base, job.ref, job.stage, job.output, job.labels, start=job.start))
    if ranks().first:
        _publish(job, model, curves)
    ranks().wait()
    return _told(loop, curves, fitted, train, held, trainable)


def versions() -> dict[str, str]:
    """What made an adapter: library versions and the device class, outside of which its bytes need not repeat."""
    return {"device": device_class(), "threads": str(torch.get_num_threads()), **library_versions()}


def _watched(job: Job) -> StageParams:
    """The stage as the loop takes it. In ppo the losses on the two sides are of different things: that they part says nothing."""
    if job.objective is not Objective.PPO:
        return job.stage
    return job.stage.model_copy(update={"overfitting": OverfittingParams(policy="off")})


def _encoded(job: Job, paths: Sequence[Path], tokenizer: Any, template: ChatTemplate | None) -> Encoded:
    return encode(
        paths,
        job.objective,
        job.stage.learns_from(job.task),
        tokenizer,
        template,
        job.labels,
        stage=job.stage,
        identity=job.ref.tokenizer,
        old=job.old,
        cache=job.cache,
    )


def _publish(job: Job, model: Any, curves: Curves) -> None:
    """The adapter by one rename, once it has been read again as whoever loads it will."""
    aside = job.adapter.with_name(f".{job.adapter.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write_adapter(
        model,
        aside,
        base=job.ref,
        task=job.task,
        labels=job.labels,
        stage=job.stage,
        template=job.template,
        start=job.start,
    )
    admit(aside, job.ref)  # what cannot be loaded again is not published
    shutil.rmtree(job.adapter, ignore_errors=True)
    aside.rename(job.adapter)
    curves.write(job.curves)


def _told(loop: Loop, curves: Curves, fitted: Fitted, train: Encoded, held: Encoded, trainable: int) -> Tuned:
    machine = fitted.machine
    if loop.micro_rows != fitted.micro_rows:
        machine |= {"micro_rows": str(loop.micro_rows)}
    if loop.stopped_early is not None:
        machine |= {"stopped_early": loop.stopped_early}
    return Tuned(
        steps=loop.taken,
        kept_step=loop.kept_step,
        train_loss=curves.train_loss,
        eval_loss=curves.eval_loss,
        train_rows=train.counts["kept"],
        trainable_parameters=trainable,
        counts={"train": train.counts, "eval": held.counts},
        measures=curves.last | loop.measures | _kept_loss(loop, curves),
        alarms=loop.alarms,
        machine=machine,
        hours=loop.hours,
    )


def _kept_loss(loop: Loop, curves: Curves) -> dict[str, float]:
    """The loss of training where the weights that are kept were made: the mean over all steps is mostly that of the beginning."""
    loss = curves.loss_at(loop.kept_step)
    return {} if loss is None else {KEPT_LOSS: loss}


def _check_length(job: Job, model: Any) -> None:
    limit = context_length(model)
    if limit is not None and job.stage.max_length > limit:
        raise Misuse(
            f"the base has room for {limit} tokens, fewer than max_length", where="train.max_length", fix=f"at most {limit}"
        )


def _check_rows(job: Job, train: Encoded) -> None:
    where = str(job.train[0].parent) if job.train else "train"
    if train.read and train.other_kinds == train.read:
        held = ", ".join(f"{kind} ({rows})" for kind, rows in sorted(train.kinds.items()))
        wanted = " and ".join(job.stage.learns_from(job.task))
        raise Misuse(
            f"{job.objective} learns from rows of {wanted}, and the train split holds {held}",
            where=where,
            fix=f"ingest rows of such a format (docs/formats.md), or see train.kinds: {job.objective} is told in docs/methods.md",
        )
    if not len(train):
        raise BadInput(
            f"no row is left to train on: {train.counts}",
            where=where,
            fix="raise train.max_length, or look at the rows" if train.read else "the train split is empty",
        )
    if job.output is Output.LABEL and len({train[n][0].labels[0] for n in range(len(train))}) < 2:
        raise BadInput("all rows to train on have the same label", where=where, fix="there is nothing to tell apart")
    if job.objective is Objective.KTO and len(set(train.extra["good"].tolist())) < 2:
        log.warning("%s: all answers are %s", where, "good" if train.extra["good"][0] else "bad")
