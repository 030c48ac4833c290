"""Loaded models behind one function: a subject and rows in, what it said out. What that is worth is evaluation/'s.

Labelled rows are asked for a label, pairs and texts for what they weigh, the others for an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.domain.data import ExampleKind
from pipeline.domain.model import TrainingRun
from pipeline.domain.record import FileDigest
from pipeline.evaluation.likelihoods import WEIGHED, weigh
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.params import EvaluateParams, ModelParams
from pipeline.ports import Engine, Progress, silent

if TYPE_CHECKING:
    from pipeline.modeling.answering.generate import Subjects

Adapters = Mapping[str, tuple[Path, tuple[FileDigest, ...] | None]]
Answer = Callable[[str, SplitRows], Said]
"""Given a subject and rows: what it said, a text a row."""

CENTROID_ROWS = 50
"""Training rows a label that the bare base's labels are made of: more move the means little and cost an embedding each."""


@contextmanager
def loaded(
    training: TrainingRun,
    model: ModelParams,
    params: EvaluateParams,
    *,
    base: Path,
    adapter: Path,
    champion: Path | None,
    cache: Path | None = None,
    engine: Engine | None = None,
) -> Iterator[Subjects]:
    """Candidate, champion where there is one, and the bare base, ready to be asked. champion: its adapter's folder.

    cache: folder where answers are kept; the same question to the same weights is then not asked twice. engine: whom many
    questions are shared out to.
    """
    # The candidate comes first: the bare base answers under the first adapter's template and precision.
    adapters: dict[str, tuple[Path, tuple[FileDigest, ...] | None]] = {"candidate": (adapter.absolute(), training.adapter)}
    if champion is not None:
        adapters["champion"] = (champion.absolute(), None)
    with _standing(model, base.absolute(), adapters, cache, engine) as subjects:
        for name, (folder, files) in adapters.items():
            subjects.add(name, folder, files=files)
        yield subjects


@contextmanager
def _standing(
    model: ModelParams, base: Path, adapters: Adapters, cache: Path | None, engine: Engine | None
) -> Iterator[Subjects]:
    """Nobody but the bare base yet; who is added must be of `adapters`."""
    if engine is None:
        from pipeline.modeling.answering.generate import Subjects  # torch and peft: seconds to import

        yield Subjects(base, model, cache=cache)
        return
    from pipeline.modeling.answering.asking import Asking
    from pipeline.modeling.answering.spread import Sharing, Spread

    asking = Asking(base, model, adapters, threads=int(engine.made_by["threads"]))
    with engine.crew(asking, at_least=0) as crew:
        yield Spread(base, model, Sharing(crew, asking, engine), cache=cache)


def answering(subjects: Subjects, params: EvaluateParams, progress: Progress = silent) -> Answer:
    """How loaded subjects are asked."""

    def log_probs(name: str, inputs: list[str], outputs: list[str]) -> Sequence[float]:
        return list(subjects.log_probs(name, inputs, outputs, batch_size=params.batch_size, progress=progress))

    def ask(name: str, rows: SplitRows) -> list[str]:
        if rows.kinds[0] in WEIGHED:
            return weigh(rows.inputs, rows.expected, rows.kinds, partial(log_probs, name))
        most, size = params.max_new_tokens, params.batch_size
        return subjects.answers(name, rows.inputs, max_new_tokens=most, batch_size=size, progress=progress)

    def answer(name: str, rows: SplitRows) -> Said:
        if set(rows.kinds) == {ExampleKind.LABEL}:
            found = subjects.predict(name, rows.inputs, batch_size=params.batch_size, progress=progress)
            return Said([prediction.label for prediction in found], [prediction.score for prediction in found])
        said = [""] * len(rows)
        for kinds in (WEIGHED, {ExampleKind.ANSWER, ExampleKind.CALL}):
            places = rows.places(kinds)
            for at, given in zip(places, ask(name, rows.only(places)) if places else (), strict=True):
                said[at] = given
        return Said(said)

    return answer


def as_said(rows: SplitRows, subjects: Subjects) -> SplitRows:
    """Rows whose expected calls are spelled as the first adapter's template has them: compared is what is said."""
    if ExampleKind.CALL not in rows.kinds:
        return rows
    return replace(rows, expected=subjects.spelled(rows.inputs, rows.expected, rows.kinds))


def labelled(train: SplitRows) -> tuple[list[str], list[str]]:
    """At most CENTROID_ROWS training texts a label, with their labels. Ids are hashes, so the first by id are a fair sample."""
    taken: Counter[str] = Counter()
    chosen: list[int] = []
    for at in sorted(range(len(train)), key=lambda at: train.ids[at]):
        if taken[train.expected[at]] < CENTROID_ROWS:
            taken[train.expected[at]] += 1
            chosen.append(at)
    return [train.inputs[at] for at in chosen], [train.expected[at] for at in chosen]
