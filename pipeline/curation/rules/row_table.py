"""The one pass over a snapshot that the rules share: what it leaves in memory, and the way to pass over the rows again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from pipeline.curation.rules.answer_shapes import AnswerShapes, ShapeCounting
from pipeline.curation.rules.columns import LOOKED_AT, Columns, Digested, Gathering, digest_rows
from pipeline.curation.rules.odd_answers import StyleProfile
from pipeline.curation.rules.token_lengths import TokenLengths
from pipeline.curation.workers import Workers
from pipeline.domain.data import Snapshot
from pipeline.errors import Broken
from pipeline.ports import Progress

Batches = Callable[..., Iterator[Any]]
"""Gives all rows, in order, as pyarrow RecordBatches of the columns named."""


@dataclass(frozen=True, slots=True)
class RowTable:
    """Columns of all rows, shapes of the free-text answers and how often their trigrams come; no texts."""

    columns: Columns
    shapes: AnswerShapes
    style: StyleProfile
    batches: Batches


def read_rows(
    snapshot: Snapshot, batches: Batches, lengths: TokenLengths | None, *, workers: int, progress: Progress
) -> RowTable:
    """Pass over the rows of `snapshot` once. lengths: counts tokens on the way, if given. workers: how many processes help.

    Raises Broken when there are more or fewer rows than the snapshot says.
    """
    gathering, shapes, style, done = Gathering(), ShapeCounting(), StyleProfile(), 0
    waiting: deque[tuple[Any, Future[Digested]]] = deque()

    def settle(down_to: int) -> None:
        while len(waiting) > down_to:
            batch, digested = waiting.popleft()
            gathering.add(batch, digested.result())

    with Workers(digest_rows, workers) as crew:
        crew.expect(sum(shard.bytes for shard in snapshot.shards))
        for batch in batches(*LOOKED_AT):
            waiting.append((batch, crew.submit(batch)))
            shapes.add(batch)
            style.count(batch)
            if lengths is not None:
                lengths.add(batch)
            done += batch.num_rows
            progress("reading rows", done, snapshot.rows)
            settle(down_to=crew.depth)
        settle(down_to=0)
    if done != snapshot.rows:
        raise Broken(f"the shards hold {done} rows, and the snapshot says {snapshot.rows}", fix="run `dvc checkout`")
    return RowTable(gathering.finish(), shapes.finish(), style, batches)
