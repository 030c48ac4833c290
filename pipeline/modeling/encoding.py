"""Split files in, padded batches of token ids out: what is cut, what is dropped, in which order rows are seen.

Tokenised rows are kept in Arrow through `datasets`, four bytes a token; lists of Python integers would take eight times that.
The order is a function of the seed and the epoch alone, never of the global random state, so a resumed run sees the rows
that an uninterrupted one would. No model enters here.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from datasets.table import InMemoryTable
from torch.utils.data import Dataset, Sampler

from pipeline.domain.data import LEARNED_KINDS, Task
from pipeline.errors import BadInput, Misuse
from pipeline.modeling.template import ChatTemplate

log = logging.getLogger(__name__)

IGNORED = -100
BOUNDARY_LIMIT = 0.05


@dataclass(slots=True)
class Row:
    """One tokenised row. labels: for generation one id a token, IGNORED where nothing is learned; for classification one id."""

    input_ids: list[int]
    labels: list[int]


@dataclass(slots=True)
class Encoded(Dataset):  # type: ignore[misc]
    """The rows of one split and what became of the others: read = kept + other_kinds + dropped_long + dropped_boundary; cut are
    among kept. other_kinds: rows that the task does not learn from; kinds: how many rows of each kind were read."""

    table: datasets.Dataset
    kinds: dict[str, int]
    read: int = 0
    other_kinds: int = 0
    cut: int = 0
    dropped_long: int = 0
    dropped_boundary: int = 0

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Row:
        return Row(**self.table[index])

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, in order."""
        return list(pc.list_value_length(self.table.data.column("input_ids")).to_pylist())

    @property
    def counts(self) -> dict[str, int]:
        return {
            "read": self.read,
            "kept": len(self),
            "other_kinds": self.other_kinds,
            "cut": self.cut,
            "dropped_long": self.dropped_long,
            "dropped_boundary": self.dropped_boundary,
        }


def encode_answers(paths: Sequence[Path], template: ChatTemplate, *, max_length: int) -> Encoded:
    """Rows of the task generate: loss on the answer and its end token only.

    A prompt too long for `max_length` ids loses its start, an answer that alone is too long takes its row with it.
    """
    columns, kinds = _read_learned(paths, Task.GENERATE)
    became: Counter[str] = Counter(read=kinds.total(), other_kinds=kinds.total() - len(columns["input"]))

    def rows() -> Iterator[Row]:
        for pair in template.pairs(columns["input"], columns["output"], columns["kind"]):
            if pair is None:
                became["dropped_boundary"] += 1
                continue
            room = max_length - len(pair.answer)
            if room < 1:
                became["dropped_long"] += 1
                continue
            became["cut"] += len(pair.prompt) > room
            prompt = pair.prompt[-room:]
            yield Row(prompt + pair.answer, [IGNORED] * len(prompt) + pair.answer)

    table = _in_arrow(rows())
    encoded = Encoded(
        table,
        kinds,
        read=became["read"],
        other_kinds=became["other_kinds"],
        cut=became["cut"],
        dropped_long=became["dropped_long"],
        dropped_boundary=became["dropped_boundary"],
    )
    asked = len(columns["input"])
    if asked and encoded.dropped_boundary > BOUNDARY_LIMIT * asked:
        raise Misuse(
            f"in {encoded.dropped_boundary} of {asked} rows the prompt's tokens are no prefix of prompt and answer",
            where="chat template",
            fix="end the generation prompt with a special token, so that an answer cannot melt into it",
        )
    return _report(encoded, paths, max_length)


def encode_labels(paths: Sequence[Path], tokenizer: Any, labels: Sequence[str], *, max_length: int) -> Encoded:
    """Rows of the task classify; a text too long for `max_length` ids loses its end. Raises BadInput for an unknown label."""
    columns, kinds = _read_learned(paths, Task.CLASSIFY)
    ids = {label: i for i, label in enumerate(labels)}
    unknown = sorted(set(columns["output"]) - ids.keys())
    if unknown:
        raise BadInput(f"the label {unknown[0]!r} is none of the {len(labels)} labels of the splits record", where=_place(paths))
    texts, cut = encode_texts(tokenizer, columns["input"], max_length=max_length)
    rows = (Row(text, [ids[label]]) for text, label in zip(texts, columns["output"], strict=True))
    others = kinds.total() - len(texts)
    return _report(Encoded(_in_arrow(rows), kinds, read=kinds.total(), other_kinds=others, cut=cut), paths, max_length)


def encode_texts(tokenizer: Any, texts: Sequence[str], *, max_length: int) -> tuple[list[list[int]], int]:
    """Ids of texts for classification, each at most `max_length`, and how many were cut."""
    if not texts:
        return [], 0
    whole = tokenizer(list(texts), padding=False, truncation=False, return_attention_mask=False, verbose=False)["input_ids"]
    long = [n for n, ids in enumerate(whole) if len(ids) > max_length]
    if long:
        again = tokenizer([texts[n] for n in long], padding=False, truncation=True, max_length=max_length)["input_ids"]
        for n, ids in zip(long, again, strict=True):
            whole[n] = ids
    return list(whole), len(long)


def read_columns(paths: Sequence[Path], columns: Sequence[str]) -> dict[str, list[str]]:
    """Columns of one side of the split as lists, in the order of its files and of their rows."""
    found: dict[str, list[str]] = {name: [] for name in columns}
    for path in paths:
        try:
            table = pq.read_table(path, columns=list(columns), memory_map=False)
        except (OSError, ValueError) as error:
            raise BadInput(f"the split file cannot be read: {error}", where=str(path)) from error
        for name in columns:
            found[name] += table.column(name).to_pylist()
    return found


def _read_learned(paths: Sequence[Path], task: Task) -> tuple[dict[str, list[str]], Counter[str]]:
    """(input, output and kind of the rows that the task learns from, how many rows of each kind there are)."""
    columns = read_columns(paths, ("input", "output", "kind"))
    kinds = Counter(columns["kind"])
    learned = {kind.value for kind in LEARNED_KINDS[task]}
    if kinds.keys() - learned:
        columns = {
            name: [v for v, kind in zip(values, columns["kind"], strict=True) if kind in learned]
            for name, values in columns.items()
        }
    return columns, kinds


def collate(rows: Sequence[Row], pad_id: int, *, per_token: bool) -> dict[str, torch.Tensor]:
    """A training batch: input_ids and attention_mask [rows, longest], labels [rows, longest] with `per_token`, else [rows]."""
    batch = pad([row.input_ids for row in rows], pad_id)
    if per_token:
        batch["labels"] = pad([row.labels for row in rows], IGNORED)["input_ids"]
    else:
        batch["labels"] = torch.tensor([row.labels[0] for row in rows], dtype=torch.long)
    return batch


def pad(texts: Sequence[Sequence[int]], pad_id: int, *, left: bool = False) -> dict[str, torch.Tensor]:
    """Ids and mask as long tensors [texts, longest]; `left` puts the padding before each text, as generation needs it."""
    longest = max(len(text) for text in texts)
    ids = torch.full((len(texts), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(texts), longest), dtype=torch.long)
    for n, text in enumerate(texts):
        place = slice(longest - len(text), longest) if left else slice(0, len(text))
        ids[n, place] = torch.tensor(text, dtype=torch.long)
        mask[n, place] = 1
    return {"input_ids": ids, "attention_mask": mask}


class EpochOrder(Sampler[int]):  # type: ignore[misc]
    """Row numbers of one epoch, shuffled, rows of like length in one batch; the short last batch stays last.

    `epoch` is set by the loop. Grouping is within windows of 50 batches: enough to save most padding, little enough to keep
    batches differing from epoch to epoch.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        whole = len(order) // self.batch_size * self.batch_size
        window = 50 * self.batch_size
        batches: list[np.ndarray] = []
        for start in range(0, whole, window):
            part = order[start : min(start + window, whole)]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += np.split(part, len(part) // self.batch_size)
        mixed = [batches[i] for i in random.permutation(len(batches))]
        return iter(np.concatenate([*mixed, order[whole:]]).tolist())


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Row numbers in batches, longest first: no padding wasted, and a batch that does not fit fails at once."""
    order = sorted(range(len(lengths)), key=lambda n: (-lengths[n], n))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _in_arrow(rows: Iterator[Row]) -> datasets.Dataset:
    ids = pa.list_(pa.int32())
    schema = pa.schema({"input_ids": ids, "labels": ids})
    parts = []
    while some := list(islice(rows, 8192)):
        columns = {"input_ids": [row.input_ids for row in some], "labels": [row.labels for row in some]}
        parts.append(pa.table(columns, schema=schema))
    whole = pa.concat_tables(parts).combine_chunks() if parts else schema.empty_table()
    # Handed over as a table: `from_generator` and `map` would pickle their function to name a cache file by path.
    return datasets.Dataset(InMemoryTable(whole))


def _place(paths: Sequence[Path]) -> str:
    """Where the files of a side lie, for messages."""
    return str(paths[0].parent) if paths else "an empty side"


def _report(encoded: Encoded, paths: Sequence[Path], max_length: int) -> Encoded:
    if encoded.cut or encoded.other_kinds or encoded.dropped_long or encoded.dropped_boundary:
        log.warning("%s: %s (max_length %d)", _place(paths), encoded.counts, max_length)
    return encoded
