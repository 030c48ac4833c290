"""Split files in, tokenised items out: every row read is counted, and what was made is kept by its content.

What an objective makes of a row is items.py's; how items are batched is rows.py's. No model enters here.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.domain.data import ExampleKind
from pipeline.domain.record import digest_file
from pipeline.domain.tuning import Objective
from pipeline.errors import BadInput, Misuse
from pipeline.modeling.texts.items import BOUNDARY, DROPPED, Maker, token_ids
from pipeline.modeling.texts.kept import kept
from pipeline.modeling.texts.rows import SCHEMA, Encoded, to_batch
from pipeline.modeling.texts.template import ChatTemplate
from pipeline.params.learning import MixParams
from pipeline.params.train import StageParams

log = logging.getLogger(__name__)

VERSION = 1
"""Raise it when the same rows become other ids: what was kept before is then made again."""
BOUNDARY_LIMIT = 0.05
_LOT = 2048
"""Rows that are tokenised at once."""


def encode(
    paths: Sequence[Path],
    objective: Objective,
    kinds: Sequence[ExampleKind],
    tokenizer: Any,
    template: ChatTemplate | None,
    labels: Sequence[str],
    *,
    stage: StageParams,
    identity: str = "",
    old: frozenset[str] = frozenset(),
    cache: Path | None = None,
) -> Encoded:
    """The items that `objective` makes of the rows of `kinds` in the Parquet files `paths`, in their order.

    template: needed wherever conversations are written. labels: all there are (classify). identity: digest of the tokenizer's
    files (BaseModelRef.tokenizer); with it and a folder `cache`, what is made is kept there by its content and not made twice.
    old: names of the files whose items are marked old. Raises BadInput for a label that is none of `labels` or a file that
    cannot be read, Misuse when more than a twentieth of the prompts melt into their answers.
    """
    if objective is Objective.PPO and stage.ppo.max_new_tokens >= stage.max_length:
        raise Misuse(
            f"max_length {stage.max_length} leaves no room for a prompt before {stage.ppo.max_new_tokens} new tokens",
            where="train.ppo.max_new_tokens",
            fix="lower it, or raise train.max_length",
        )
    room = stage.max_length - (stage.ppo.max_new_tokens if objective is Objective.PPO else 0)
    maker = Maker(objective, tokenizer, template, labels, room=room)
    made_of = {
        "version": VERSION,
        "parts": [digest_file(path) for path in paths] if cache and identity else [],
        "tokenizer": identity,
        "template": template.digest if template is not None else None,
        "objective": objective,
        "kinds": sorted(kinds),
        "room": room,
        "labels": list(labels) if objective is Objective.CLASSIFY else [],
    }
    content = kept(cache if identity else None, made_of, lambda sink: _make(paths, set(kinds), maker, sink))
    encoded = _opened(content)
    asked = encoded.read - encoded.other_kinds
    if encoded.counts[BOUNDARY] > BOUNDARY_LIMIT * asked:
        raise Misuse(
            f"in {encoded.counts[BOUNDARY]} of {asked} rows the prompt's tokens are no prefix of prompt and answer",
            where="chat template",
            fix="end the generation prompt with a special token, so that an answer cannot melt into it",
        )
    origin = encoded.table.column("origin").to_numpy()
    if stage.mix != MixParams():
        tasks = _tasks(paths, stage.mix.by)
        encoded.tasks = [tasks[row] for row in origin.tolist()]
    encoded.old = _old_rows(paths, old)[origin] if old else np.zeros(len(encoded), bool)
    if any(encoded.counts[name] for name in ("cut", "partly", "other_kinds", *DROPPED)):
        log.warning("%s: %s (max_length %d)", _place(paths), encoded.counts, stage.max_length)
    return encoded


def encode_texts(tokenizer: Any, texts: Sequence[str], *, max_length: int) -> tuple[list[list[int]], int]:
    """Ids of texts for classification, each at most `max_length`, and how many were cut."""
    found = token_ids(tokenizer, texts, max_length=max_length)
    return [ids for ids, _ in found], sum(cut for _, cut in found)


def read_columns(paths: Sequence[Path], columns: Sequence[str]) -> dict[str, list[str]]:
    """Columns of one side of the split as lists, in the order of its files and of their rows."""
    found: dict[str, list[str]] = {name: [] for name in columns}
    for lot in _lots(paths, columns):
        for name in columns:
            found[name] += lot[name]
    return found


def _lots(paths: Sequence[Path], columns: Sequence[str], rows: int = 65536) -> Iterator[dict[str, list[str]]]:
    for path in paths:
        try:
            with pq.ParquetFile(path, memory_map=False) as file:
                for batch in file.iter_batches(rows, columns=list(columns)):
                    yield {name: batch.column(name).to_pylist() for name in columns}
        except (OSError, ValueError, KeyError) as error:
            raise BadInput(f"the split file cannot be read: {error}", where=str(path)) from error


def _make(paths: Sequence[Path], kinds: set[ExampleKind], maker: Maker, sink: IO[bytes]) -> None:
    """Write the items as an Arrow stream, then the counts as JSON, then that JSON's length in eight bytes."""
    counts = Counter(dict.fromkeys(("read", "kept", "items", "other_kinds", "cut", "partly", *DROPPED), 0))
    seen: Counter[str] = Counter()
    with pa.ipc.new_stream(sink, SCHEMA) as stream:
        for lot in _lots(paths, ("input", "output", "kind"), _LOT):
            first = counts["read"]
            at = [n for n, kind in enumerate(lot["kind"]) if kind in kinds]
            columns = [[lot[name][n] for n in at] for name in ("input", "output", "kind")]
            counts["read"] += len(lot["kind"])
            counts["other_kinds"] += len(lot["kind"]) - len(at)
            seen.update(lot["kind"])
            try:
                made = maker.make(*columns)
            except BadInput as error:
                raise BadInput(error.what, where=error.where or _place(paths), fix=error.fix) from error
            rows = []
            for n, one in zip(at, made, strict=True):
                counts[one.dropped or "kept"] += 1
                counts["cut"] += one.cut
                counts["partly"] += one.partly
                good = one.good or [None] * len(one.items)
                rows += [(item, first + n, mark, one.answer) for item, mark in zip(one.items, good, strict=True)]
            counts["items"] += len(rows)
            if rows:
                stream.write_batch(to_batch(rows))
    text = json.dumps({"counts": counts, "kinds": seen}).encode()
    sink.write(text + len(text).to_bytes(8, "little"))


def _opened(content: memoryview) -> Encoded:
    length = int.from_bytes(content[-8:], "little")
    said = json.loads(bytes(content[-8 - length : -8]))
    with pa.ipc.open_stream(pa.py_buffer(content[: -8 - length])) as stream:
        return Encoded(stream.read_all(), said["kinds"], said["counts"])


def _tasks(paths: Sequence[Path], by: str) -> list[str]:
    """What each row read is counted as when data are mixed: its source, its kind, or a field of its metadata."""
    if by in ("source", "kind"):
        return read_columns(paths, (by,))[by]
    return [str(json.loads(meta).get(by, "")) for meta in read_columns(paths, ("meta",))["meta"]]


def _old_rows(paths: Sequence[Path], old: frozenset[str]) -> np.ndarray:
    marks = [np.full(pq.read_metadata(path).num_rows, path.name in old) for path in paths]
    return np.concatenate([np.zeros(0, bool), *marks])


def _place(paths: Sequence[Path]) -> str:
    """Where the files of a side lie, for messages."""
    return str(paths[0].parent) if paths else "an empty side"
