"""What answers take: seconds asked one by one, as a user would, and in a batch. Times in, a Cost out; nothing is judged.

Asked are a few rows once more, with no cache in between: what was answered from one took no time that a user would see.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from pipeline.asking.answers import Answer
from pipeline.domain.measured import Cost
from pipeline.evaluation.rows import SplitRows
from pipeline.params.evaluate import CostParams
from pipeline.ports import Progress, silent

BATCH = 32
"""Rows that are timed together, at most: more say the same and take longer."""
Tokens = Callable[[str], tuple[int, int]]
"""How many tokens of prompts and of answers a subject has had so far; (0, 0) of what is no model that writes."""


class Hush:
    """Progress that can be silenced: of rows that are asked one by one there is nothing to tell."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._silent = progress, False

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self._silent:
            self._progress(what, done, total)

    @contextmanager
    def silenced(self) -> Iterator[None]:
        self._silent = True
        try:
            yield
        finally:
            self._silent = False


def time_answers(
    answer: Answer,
    subjects: Sequence[str],
    rows: SplitRows,
    params: CostParams,
    *,
    batch_size: int,
    tokens: Tokens,
    progress: Progress = silent,
) -> tuple[Cost, ...]:
    """Ask each subject the first `params.timed_answers` rows by id one by one, and up to BATCH (and `batch_size`) at once."""
    order = sorted(range(len(rows)), key=lambda at: rows.ids[at])
    singles, batch = [rows.only([at]) for at in order[: params.timed_answers]], rows.only(sorted(order[: min(batch_size, BATCH)]))
    costs = []
    for number, name in enumerate(subjects):
        progress("timing answers", number, len(subjects))
        before = tokens(name)
        seconds = _seconds(partial(answer, name, batch))
        prompt, given = (now - then for now, then in zip(tokens(name), before, strict=True))
        each = sorted(_seconds(partial(answer, name, row)) for row in singles)
        price = params.price_per_hour
        costs.append(
            Cost(
                subject=name,
                answers=len(batch),
                seconds=seconds,
                timed=len(each),
                latency_p50=quantile(each, 0.5),
                latency_p95=quantile(each, 0.95),
                prompt_tokens=prompt / len(batch) if prompt else None,
                answer_tokens=given / len(batch) if given else None,
                tokens_per_second=given / seconds if given else None,
                per_thousand=None if price is None else 1000 * seconds / len(batch) * price / 3600,
            )
        )
    return tuple(costs)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of sorted values, the least that `share` of them do not pass (nearest rank); 0 of none."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else 0.0


def machine(device: str) -> dict[str, str]:
    """On what it was timed."""
    return {"device": device, "system": f"{platform.system()} {platform.machine()}", "cores": str(os.cpu_count() or 1)}


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
