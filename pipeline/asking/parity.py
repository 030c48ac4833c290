"""Whether the candidate that was measured is the one that others will run: loaded by plain libraries, served alone, merged.

The trainer's own logits are in the adapter's probe, which admission checks whenever an adapter is loaded; here every other way is
held against what was measured. Bounds are those of an export (domain/exporting.py). No verdict is made here.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.asking.answers import answering
from pipeline.domain.data import ExampleKind, Task
from pipeline.domain.exporting import BOUNDS, HALF_BOUND, Form
from pipeline.domain.measured import Parity
from pipeline.domain.model import BaseModelRef
from pipeline.domain.tuning import Tuner
from pipeline.evaluation.likelihoods import WEIGHED
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.params import EvaluateParams, ModelParams

if TYPE_CHECKING:
    from pipeline.modeling.adapters.admission import Admitted
    from pipeline.modeling.answering.generate import Subjects

SERVED_BOUND = 1e-3
"""Of likelihoods or probabilities of the same answers, asked one by one: kernels round differently by the size of a batch."""


def parity(
    subjects: Subjects,
    rows: SplitRows,
    said: Said,
    params: EvaluateParams,
    model: ModelParams,
    ref: BaseModelRef,
    *,
    base: Path,
    adapter: Path,
) -> tuple[Parity, ...]:
    """Hold other ways to run the candidate against `said`, what it said to `rows`, of which the first few by id are asked again.

    loaded and served are always compared, merged and quantized where params ask for them and the tuner has them.
    """
    if not params.parity_rows:
        return ()
    places = sorted(range(len(rows)), key=lambda at: rows.ids[at])[: params.parity_rows]
    asked, told = rows.only(places), said.only(places)
    with tempfile.TemporaryDirectory() as folder:
        forms = _forms(params, ref, base, adapter, Path(folder), _same_as_taught(subjects, asked))
    return (*forms, _served(subjects, asked, told, params, model, base, adapter))


_SAID = frozenset({ExampleKind.ANSWER, ExampleKind.CALL})


def _forms(params: EvaluateParams, ref: BaseModelRef, base: Path, adapter: Path, folder: Path, same_tokens: bool) -> list[Parity]:
    from pipeline.modeling.adapters import merging

    tuned, admitted = merging.tuned_logits(base, ref, adapter)
    found: list[Parity] = []

    def note(form: str, logits: list[Any], bound: float) -> None:
        seen = merging.compare(logits, tuned)
        held = Parity(
            form=form, same_tokens=same_tokens, logits=seen.logits, agreement=seen.agreement, bound=bound, rows=len(logits)
        )
        found.append(held)

    (folder / "peft").mkdir()
    if _is_peft(admitted):
        merging.write_peft(admitted, folder / "peft")
        note("loaded", merging.peft_logits(base, admitted, folder / "peft"), BOUNDS[Form.ADAPTER])
    else:
        # What replaces weights of the base is no form that plain libraries know: ours reads it again.
        note("loaded", merging.tuned_logits(base, ref, adapter)[0], BOUNDS[Form.ADAPTER])
    if params.parity_forms and admitted.handshake.tuner is not Tuner.SOFT_PROMPT:
        merged = folder / "merged"
        merging.write_merged(base, admitted, merged)
        if "merged" in params.parity_forms:
            usual = BOUNDS[Form.MERGED] if merging.precision(base) == "float32" else HALF_BOUND
            note("merged", merging.plain_logits(merged, base, admitted), usual)
        if "quantized" in params.parity_forms:
            (folder / "quantized").mkdir()
            merging.write_quantised(merged, base, admitted, folder / "quantized")
            note("quantized", merging.plain_logits(folder / "quantized", base, admitted), BOUNDS[Form.QUANTIZED])
    return found


def _is_peft(admitted: Admitted) -> bool:
    return admitted.handshake.has_peft and admitted.handshake.weights is None


def _same_as_taught(subjects: Subjects, rows: SplitRows) -> bool:
    """Whether prompts come to the ids that rows of training have before their answers."""
    taught = rows.only(rows.places({ExampleKind.ANSWER}))
    if subjects.params.task is Task.CLASSIFY or not len(taught):
        return True
    return subjects.asks_as_taught("candidate", taught.inputs, taught.expected)


def _served(
    subjects: Subjects, rows: SplitRows, said: Said, params: EvaluateParams, model: ModelParams, base: Path, adapter: Path
) -> Parity:
    """The adapter by itself, asked one by one, as a server has it."""
    from pipeline.modeling.answering.generate import Subjects

    alone = Subjects(base, model)
    alone.add("served", adapter)
    ask = answering(alone, params)
    each = [ask("served", rows.only([at])) for at in range(len(rows))]
    given = [one.texts[0] for one in each]
    ours, theirs = [], []
    for at, (kind, now, then) in enumerate(zip(rows.kinds, given, said.texts, strict=True)):
        if kind in WEIGHED:
            ours += json.loads(now)
            theirs += json.loads(then)
        elif said.confidences is not None:
            ours += each[at].confidences or ()
            theirs.append(said.confidences[at])
        else:
            # How likely each finds what was said tells more than whether the likeliest answers are the same letters.
            ours += alone.log_probs("served", [rows.inputs[at]], [then])
            theirs += subjects.log_probs("candidate", [rows.inputs[at]], [then])
    asked = [text for text, kind in zip(rows.inputs, rows.kinds, strict=True) if kind in _SAID]
    same = model.task is Task.CLASSIFY or alone.prompt_ids("served", asked) == subjects.prompt_ids("candidate", asked)
    agreed = [now == then or kind in WEIGHED for kind, now, then in zip(rows.kinds, given, said.texts, strict=True)]
    share = sum(agreed) / len(agreed) if agreed else 0.0
    return Parity(
        form="served", same_tokens=same, logits=_apart(ours, theirs), agreement=share, bound=SERVED_BOUND, rows=len(rows)
    )


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Root mean square of the differences over that of `theirs`."""
    differences = math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True)))
    return differences / max(math.sqrt(math.fsum(b * b for b in theirs)), 1e-9)
