"""Give a release away in a form that others load without this project, after asking it the same as the release itself.

A form whose logits are too far from the release's is no error but an answer: it is told, and nothing is published. What makes and
compares forms is modeling/adapters/merging.py's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.domain.exporting import BOUNDS, HALF_BOUND, Compared, Exported, Form
from pipeline.domain.model import TrainingRun
from pipeline.domain.proof import adapter_folder, differences
from pipeline.domain.record import describe_files
from pipeline.domain.release import ModelVersion, resolve, revoked, version_record
from pipeline.errors import Misuse, Tampered
from pipeline.modeling.base import base_ref
from pipeline.moving import known_events
from pipeline.params import ModelParams
from pipeline.ports import Archive, Ledger, Progress, Registry, silent

REPORT = "export.json"


def export(
    version: str,
    form: Form,
    out: Path,
    *,
    model: ModelParams,
    find_base: Callable[[ModelParams], Path],
    ledger: Ledger,
    registry: Registry,
    archive: Archive,
    stages: Sequence[str] = (),
    bound: float | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write `version` in `form` to the new folder `out`, with export.json, the record that is returned.

    find_base: gives the folder of a base that params name; it is asked for the one that the version was tuned on. bound: of
    Compared.logits, instead of the usual one (domain/exporting.py). Nothing is at `out` before all of it is, nor when the bound
    is passed. Raises Misuse for an unknown or revoked version, an `out` that is there already
    or a form that there is not of this tuner; Tampered for files that are not those registered.
    """
    if out.exists():
        raise Misuse(f"{out} is there already", where="--out", fix="name a folder that is not, or remove it")
    events = known_events(model.name, ledger)
    record = version_record(events, resolve(events, version, stages))
    if record.version in revoked(events):
        raise Misuse(f"version {record.version} of {model.name} was revoked", fix="export another; tuneline releases lists them")
    adapter, training = _adapter(record, registry, archive)
    tuned_on = model.model_copy(update={"base": training.base.id, "revision": training.base.revision})
    aside = out.with_name(f".{out.name}.new-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        ref, base = training.base, find_base(tuned_on)
        if base_ref(tuned_on, base, None).weights != ref.weights:
            what = f"the base {ref.id} is not the one that version {record.version} was tuned on"
            raise Misuse(what, where=str(base), fix="bring its files back as they were")
        exported = _write(record, training, form, aside, adapter=adapter, base=base, bound=bound, progress=progress)
        if exported.ok:
            exported.write(aside / REPORT)
            aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return exported


def _adapter(record: ModelVersion, registry: Registry, archive: Archive) -> tuple[Path, TrainingRun]:
    """Where a version's adapter lies, its files checked against the ledger's record, and the record of its training."""
    folder = registry.artifacts(record.name, record.version)
    wrong = differences(folder, record.files)
    if wrong:
        raise Tampered(f"version {record.version} is not what was registered: {wrong[0]}", where=str(folder))
    text, where = archive.record(record, record.training)
    training = TrainingRun.from_json(text, where=where, digest=record.training)
    inside = adapter_folder(record.files, training.adapter)
    if inside is None or training.adapter_digest != record.adapter_digest:
        raise Tampered(f"version {record.version} does not hold the adapter that was trained", where=str(folder))
    return folder / inside, training


def _write(
    record: ModelVersion,
    training: TrainingRun,
    form: Form,
    folder: Path,
    *,
    adapter: Path,
    base: Path,
    bound: float | None,
    progress: Progress,
) -> Exported:
    from pipeline.modeling.adapters import merging  # torch: seconds to import

    progress("asking the release", 0, 0)
    tuned, admitted = merging.tuned_logits(base, training.base, adapter)
    precision = "float32" if form is Form.ADAPTER else merging.precision(base)
    compared: list[Compared] = []

    def compare(made: Form, logits: list[Any]) -> None:
        found = merging.compare(logits, tuned)
        compared.append(Compared(form=made, logits=found.logits, divergence=found.divergence, agreement=found.agreement))

    progress(f"writing the form {form}", 0, 0)
    if form is Form.ADAPTER:
        merging.write_peft(admitted, folder)
        compare(form, merging.peft_logits(base, admitted, folder))
    else:
        merged = folder if form is Form.MERGED else folder / "merged"
        merging.write_merged(base, admitted, merged)
        compare(Form.MERGED, merging.plain_logits(merged, base, admitted))
        if form is Form.QUANTIZED:
            merging.write_quantised(merged, base, admitted, folder)
            shutil.rmtree(merged)
            compare(form, merging.plain_logits(folder, base, admitted))
    usual = HALF_BOUND if form is Form.MERGED and precision != "float32" else BOUNDS[form]
    return Exported(
        model=record.name,
        version=record.version,
        version_record=record.digest,
        training=training.digest,
        adapter_digest=record.adapter_digest,
        base=training.base.id,
        base_digest=training.base.digest,
        tuner=admitted.handshake.tuner,
        form=form,
        precision="nf4" if form is Form.QUANTIZED else precision,
        bound=usual if bound is None else bound,
        compared=tuple(compared),
        files=describe_files(folder),
    )
