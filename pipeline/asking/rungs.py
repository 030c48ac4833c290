"""The ladder's cheaper answers, bound to the bare base and the training rows, each asked like any other subject.

What a rung is, evaluation/ladder knows; here it is only given what it needs: the base's answers or its vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.domain.curated import Splits
from pipeline.domain.data import LEARNED_KINDS
from pipeline.domain.measured import BASE, Rung
from pipeline.evaluation.ladder import Ask, fit, identity, looked_among
from pipeline.evaluation.rows import SplitRows, read_split
from pipeline.params import EvaluateParams, ModelParams
from pipeline.ports import Progress, silent

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.modeling.answering.generate import Subjects


def learned_rows(data: Path, splits: Splits, model: ModelParams, params: EvaluateParams) -> SplitRows:
    """The training rows that rungs look among."""
    return looked_among(read_split(data, splits.train, LEARNED_KINDS[model.task]), model.task, params.ladder.train_rows)


def rungs(
    subjects: Subjects, train: SplitRows, params: EvaluateParams, model: ModelParams, progress: Progress = silent
) -> dict[str, Ask]:
    """Each rung that the task has a use for, by its name, fitted to the training rows."""

    def ask_base(inputs: Sequence[str]) -> list[str]:
        most, size = params.max_new_tokens, params.batch_size
        return subjects.answers(BASE, inputs, max_new_tokens=most, batch_size=size, progress=progress)

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return subjects.embeddings(BASE, texts, batch_size=params.batch_size, progress=progress)

    found = {}
    for rung in params.ladder.rungs:
        progress(f"fitting {rung}", 0, 0)
        shots, seed = params.ladder.shots, params.seed
        ask = fit(rung, train, task=model.task, shots=shots, ask_base=ask_base, embed=embed, seed=seed)
        if ask is not None:
            found[rung.value] = ask
    return found


def identities(names: Sequence[str], train: SplitRows, params: EvaluateParams, *, base: str) -> dict[str, str]:
    """What each rung was made of, as a digest. base: the digest of the bare base."""
    return {name: identity(Rung(name), train, params.ladder, seed=params.seed, base=base) for name in names}
