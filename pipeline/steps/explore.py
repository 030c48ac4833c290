"""Explore: what is this dataset about, what in it is odd, and what is worth labelling next? For people; nothing depends on it.

Texts become vectors through a port, vectors become topics in pipeline/exploring. Nothing is changed or dropped here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.curation.sampling import draw_rows
from pipeline.domain.data import Snapshot, Task
from pipeline.domain.exploration import Exploration, Shown, Topic
from pipeline.errors import Misuse
from pipeline.exploring.anomalies import THRESHOLD, oddness
from pipeline.exploring.mapping import MOST, lay_out
from pipeline.exploring.picking import doubt_by_labels, doubt_by_topics, pick
from pipeline.exploring.topics import Topics, Vectors, find_topics
from pipeline.pages import Block, Dot, Scatter, Table, Text, page
from pipeline.params import ExploreParams
from pipeline.ports import Embedder, Progress, silent

_SHOWN_CHARS = 240
_EXAMPLES, _ANOMALIES = 3, 40


def explore(
    snapshot: Snapshot,
    params: ExploreParams,
    *,
    folder: Path,
    out: Path,
    embedder: Embedder,
    pool: tuple[Snapshot, Path] | None = None,
    progress: Progress = silent,
) -> Exploration:
    """Look at the rows of the snapshot in `folder`; write exploration.json, explore.html and to_label.json below `out`.

    pool: a snapshot of rows without answers, and its folder, to pick from for labelling; without it, rows of the snapshot itself
    are picked, for a second look.
    to_label.json is a list of tasks as Label Studio imports them. Raises Misuse for a snapshot without rows, Tampered when a
    shard is not what was recorded.
    """
    rows = draw_rows(folder, snapshot, params.rows)
    if not rows:
        raise Misuse("the snapshot has no rows to look at", where=str(folder), fix="take data in first: tuneline ingest")
    texts = [row.text for row in rows]
    vectors = embedder.embed(texts, progress=progress)
    progress("finding topics", 0, 0)
    topics = find_topics(vectors, texts, params.topics)
    odd = oddness(vectors)
    choices = draw_rows(pool[1], pool[0], params.rows) if pool else rows
    candidates = embedder.embed([row.text for row in choices]) if pool else vectors
    doubts = _doubts(candidates, rows, vectors, topics, snapshot.task)
    chosen = [(i, round(float(doubts[i]), 4)) for i in pick(candidates, doubts, params.pick, known=vectors if pool else None)]
    found = Exploration(
        snapshot=snapshot.digest,
        rows=snapshot.rows,
        looked=len(rows),
        encoder=params.encoder,
        silhouette=round(topics.silhouette, 4),
        topics=tuple(_topics(rows, vectors, topics, snapshot.task)),
        anomalies=tuple(_cut(rows[i], round(float(odd[i]), 2)) for i in _oddest(odd)),
        picked=tuple(_cut(choices[i], score) for i, score in chosen),
    )
    out.mkdir(parents=True, exist_ok=True)
    found.write(out / "exploration.json")
    tasks = [_task(choices[i], score, snapshot.task) for i, score in chosen]
    (out / "to_label.json").write_text(json.dumps(tasks, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    progress("drawing the map", 0, 0)
    dots = _map(rows, vectors, topics, odd)
    (out / "explore.html").write_text(_page(snapshot, found, topics, dots, from_pool=pool is not None), encoding="utf-8")
    return found


def _oddest(odd: Any) -> list[int]:
    return [i for i in np.argsort(-odd, kind="stable")[:_ANOMALIES].tolist() if odd[i] > THRESHOLD]


def _topics(rows: Sequence[Shown], vectors: Vectors, topics: Topics, task: Task) -> Iterator[Topic]:
    for number in range(len(topics.words)):
        members = np.flatnonzero(topics.of == number)
        nearest = np.argsort(np.linalg.norm(vectors[members] - topics.centres[number], axis=1), kind="stable")
        labels = Counter(rows[i].output for i in members.tolist()) if task is Task.CLASSIFY else Counter[str]()
        yield Topic(
            name=topics.name(number),
            rows=len(members),
            labels=tuple(sorted(labels.items(), key=lambda one: (-one[1], one[0]))[:5]),
            examples=tuple(_cut(rows[i]) for i in members[nearest[:_EXAMPLES]].tolist()),
        )


def _doubts(candidates: Vectors, rows: Sequence[Shown], vectors: Vectors, topics: Topics, task: Task) -> Any:
    if task is Task.CLASSIFY:
        return doubt_by_labels(candidates, vectors, [row.output for row in rows])
    return doubt_by_topics(candidates, topics.centres)


def _task(row: Shown, doubt: float, task: Task) -> dict[str, Any]:
    """A Label Studio task: `data` is shown to the annotator; what the row says already is a prediction to correct."""
    said = {"text": row.text, "id": row.id, "source": row.source, "line": row.line, "doubt": doubt}
    if not row.output:
        return {"data": said}
    if task is Task.CLASSIFY:
        result = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [row.output]}}
    else:
        result = {"from_name": "answer", "to_name": "text", "type": "textarea", "value": {"text": [row.output]}}
    return {"data": said, "predictions": [{"model_version": "given", "result": [result]}]}


def _cut(row: Shown, score: float | None = None) -> Shown:
    return row.model_copy(update={"text": row.text[:_SHOWN_CHARS], "output": row.output[:_SHOWN_CHARS], "score": score})


def _map(rows: Sequence[Shown], vectors: Vectors, topics: Topics, odd: Any) -> list[Dot]:
    drawn = list(range(min(len(rows), MOST)))
    places = lay_out(vectors[: len(drawn)])
    return [
        Dot(float(x), float(y), topics.name(int(topics.of[i])), rows[i].text[:100], bool(odd[i] > THRESHOLD))
        for i, (x, y) in zip(drawn, places.tolist(), strict=True)
    ]


def _page(snapshot: Snapshot, found: Exploration, topics: Topics, dots: list[Dot], *, from_pool: bool) -> str:
    shares = [(t.name, t.rows, ", ".join(f"{label} {rows}" for label, rows in t.labels)) for t in found.topics]
    examples = [(t.name, f"{s.source}:{s.line}", s.text, s.output) for t in found.topics for s in t.examples]
    picked = "rows without answers" if from_pool else "rows of the dataset, for a second look"
    blocks: list[Block] = [
        Text(
            "What this is",
            f"Dataset {snapshot.dataset}, snapshot {snapshot.digest}.\nVectors by {found.encoder}. Topics are named by the words "
            f"that set them apart. How well they are parted (silhouette, -1 to 1): {found.silhouette}.",
        ),
        Scatter(
            "Map",
            dots,
            order=[topics.name(i) for i in range(len(topics.words))],
            note="Neighbours say much the same; distances between far groups mean little. Ringed: without neighbours. "
            f"Point at a dot to read it. {len(dots)} rows are drawn; colours come again after twelve topics.",
        ),
        Table("Topics", ("topic", "rows", "labels"), shares),
        Table("Examples, nearest to the middle of each topic", ("topic", "row", "text", "answer"), examples),
        Table(
            "Odd rows: nothing else is like them",
            ("row", "text", "answer", "score"),
            [(f"{s.source}:{s.line}", s.text, s.output, s.score) for s in found.anomalies],
            note=f"Robust z-score of the distance to the ten nearest; {THRESHOLD} and more is listed, at most {_ANOMALIES}.",
        ),
        Table(
            "Worth labelling next",
            ("row", "text", "answer", "doubt"),
            [(f"{s.source}:{s.line}", s.text, s.output, s.score) for s in found.picked],
            note=f"Picked for doubt and for being unlike the others, from {picked}. The whole list is to_label.json.",
        ),
    ]
    verdict = f"{found.looked} of {found.rows} rows looked at: {len(found.topics)} topics, {len(found.anomalies)} odd rows."
    return page(f"Exploring {snapshot.dataset}", verdict, None, blocks)
