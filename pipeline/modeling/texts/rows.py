"""Tokenised rows: kept in Arrow, drawn in an order, put together into padded or packed batches of tensors. No model enters here.

A token takes four bytes in Arrow; lists of Python integers would take eight times that. The order is a function of the seed and
the epoch alone, never of the global random state, so a resumed run sees the rows that an uninterrupted one would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.utils.data import Dataset, Sampler

from pipeline.modeling.texts.ragged import IGNORED as IGNORED
from pipeline.modeling.texts.ragged import Ragged


@dataclass(slots=True)
class Row:
    """One tokenised text. labels: one id a token, IGNORED where nothing is learned; for a classifier the label's id alone; empty
    where the text is learned from as a whole (reward) or nothing of it is (a prompt)."""

    input_ids: list[int]
    labels: list[int]


Item = list[Row]
"""What is learned from at once: one row, or the two sides of a pair, the better first."""

_IDS = pa.large_list(pa.large_list(pa.int32()))
SCHEMA = pa.schema({"input_ids": _IDS, "labels": _IDS, "origin": pa.int32(), "good": pa.bool_(), "answer": pa.large_string()})
"""Columns of encoded items. origin: number of the row it was made of, among all that were read. good: whether an answer is to be
given (kto). answer: the row's own answer as text (ppo)."""


@dataclass(slots=True)
class Encoded(Dataset):  # type: ignore[misc]
    """The items of one side of the split, and what became of its rows: read = kept + other_kinds + dropped_…; cut are among kept.

    table: columns of SCHEMA. kinds: how many rows of each kind were read. counts: as above, and `items`, which is another number
    than kept where a row makes several items or none. tasks: what each item's row is counted as when data are mixed, empty when
    nobody asked. old: whether each is of a part that the champion was trained on.
    """

    table: pa.Table
    kinds: dict[str, int]
    counts: dict[str, int]
    tasks: list[str] = field(default_factory=list)
    old: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    _chunks: list[tuple[Ragged, Ragged]] = field(init=False)
    _starts: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        batches = self.table.to_batches()
        self._chunks = [(Ragged(batch.column("input_ids")), Ragged(batch.column("labels"))) for batch in batches]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < len(self):
            raise IndexError(index)
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        ids, labels = (ragged.item(index - int(self._starts[chunk])) for ragged in self._chunks[chunk])
        return [Row(*row) for row in zip(ids, labels, strict=True)]

    @property
    def read(self) -> int:
        """Rows of the split, of whatever kind."""
        return self.counts["read"]

    @property
    def other_kinds(self) -> int:
        """Rows that the objective does not learn from."""
        return self.counts["other_kinds"]

    @property
    def lengths(self) -> list[int]:
        """What each item takes in a padded batch, in tokens: its longest row times its rows."""
        found = [ids.per_item(ids.row_lengths(), np.maximum) * ids.rows() for ids, _ in self._chunks]
        return list(np.concatenate(found).tolist()) if found else []

    @property
    def learned(self) -> npt.NDArray[np.int64]:
        """Tokens of each item that have a label, its rows' first ones aside, which nothing predicts."""
        return _joined([labels.per_item(labels.labelled(), np.add) for _, labels in self._chunks], np.int64)

    @property
    def row_lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row of each item: [items, rows], where all items have as many rows."""
        found = _joined([ids.row_lengths() for ids, _ in self._chunks], np.int64)
        return found.reshape(len(self), -1) if len(self) else found.reshape(0, 1)

    @property
    def row_learned(self) -> npt.NDArray[np.int64]:
        """The same as `learned` of each row: [items, rows]."""
        found = _joined([labels.labelled() for _, labels in self._chunks], np.int64)
        return found.reshape(len(self), -1) if len(self) else found.reshape(0, 1)

    @property
    def digest(self) -> str:
        """SHA-256 of all ids and labels, and of where each row and item begins."""
        found = hashlib.sha256()
        for chunk in self._chunks:
            for ragged in chunk:
                for array in (ragged.items - ragged.items[0], np.diff(ragged.starts), ragged.values):
                    found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()

    @property
    def extra(self) -> dict[str, npt.NDArray[Any]]:
        """The columns beside the ids, by their name."""
        return {name: self.table.column(name).to_numpy() for name in ("origin", "good", "answer")}


def to_batch(made: Sequence[tuple[Item, int, bool | None, str | None]]) -> pa.RecordBatch:
    """Items in the columns of SCHEMA; each with its origin, whether it is good, and its row's answer."""
    columns = [
        [[row.input_ids for row in item] for item, *_ in made],
        [[row.labels for row in item] for item, *_ in made],
        *([values[at] for values in made] for at in (1, 2, 3)),
    ]
    return pa.record_batch([pa.array(c, type=f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def of_items(items: Iterable[Item]) -> Encoded:
    """Items that come from elsewhere than a split file, as Encoded."""
    made = ((item, at, None, None) for at, item in enumerate(items))
    batches = [to_batch(some) for some in iter(lambda: list(islice(made, 4096)), [])]
    table = pa.Table.from_batches(batches, schema=SCHEMA)
    return Encoded(table, {}, dict.fromkeys(("read", "kept", "items"), table.num_rows) | {"other_kinds": 0, "cut": 0})


def collate(rows: Sequence[Row], pad_id: int) -> dict[str, torch.Tensor]:
    """Texts as tensors, long, on the CPU: input_ids and attention_mask [rows, longest], padded at the end; and where their labels
    are to be predicted: `places` [n] in the flattened input_ids, `targets` [n] the labels, `owners` [n] the row of each, and
    `tokens` [rows], how many they are in each row.

    See forward.token_logits, which makes use of them.
    """
    batch = pad([row.input_ids for row in rows], pad_id)
    return batch | _predicted(rows, [n * batch["input_ids"].shape[1] for n in range(len(rows))])


def collate_packed(rows: Sequence[Row], pad_id: int, *, width: int = 0) -> dict[str, torch.Tensor]:
    """The same with several texts in one sequence: input_ids [packs, width] and position_ids, which begin anew with each text.

    There is no attention_mask: models of the transformers library make of such positions a mask by which a text sees itself
    alone. Rows go, longest first, into the first sequence with room; width: at least the longest row, by default that. What is
    left of a sequence is filled by one text of padding.
    """
    width = max([width, *(len(row.input_ids) for row in rows)])
    left: list[int] = []
    starts = [0] * len(rows)
    for n in sorted(range(len(rows)), key=lambda n: (-len(rows[n].input_ids), n)):
        length = len(rows[n].input_ids)
        pack = next((p for p, room in enumerate(left) if room >= length), len(left))
        if pack == len(left):
            left.append(width)
        starts[n] = pack * width + width - left[pack]
        left[pack] -= length
    ids = np.full(len(left) * width, pad_id, np.int64)
    positions = np.zeros(len(left) * width, np.int64)
    for row, start in zip(rows, starts, strict=True):
        ids[start : start + len(row.input_ids)] = row.input_ids
        positions[start : start + len(row.input_ids)] = np.arange(len(row.input_ids))
    for pack, room in enumerate(left):
        positions[(pack + 1) * width - room : (pack + 1) * width] = np.arange(room)
    shape = (len(left), width)
    batch = {"input_ids": torch.from_numpy(ids).view(shape), "position_ids": torch.from_numpy(positions).view(shape)}
    return batch | _predicted(rows, starts)


def _predicted(rows: Sequence[Row], starts: Sequence[int]) -> dict[str, torch.Tensor]:
    """Where labels are predicted (at the token before each), which they are, and whose, for rows that begin at flat `starts`."""
    places, targets, owners = [], [], []
    for n, (row, start) in enumerate(zip(rows, starts, strict=True)):
        labels = np.asarray(row.labels[1:], np.int64)
        at = np.flatnonzero(labels != IGNORED)
        places.append(start + at)
        targets.append(labels[at])
        owners.append(np.full(len(at), n, np.int64))
    found = {"places": places, "targets": targets, "owners": owners}
    batch = {name: torch.from_numpy(_joined(parts, np.int64)) for name, parts in found.items()}
    return batch | {"tokens": torch.tensor([len(at) for at in places], dtype=torch.long)}


def pad(texts: Sequence[Sequence[int]], pad_id: int, *, left: bool = False) -> dict[str, torch.Tensor]:
    """Ids and mask as long tensors [texts, longest]; `left` puts the padding before each text, as generation needs it."""
    longest = max(len(text) for text in texts)
    ids = np.full((len(texts), longest), pad_id, np.int64)
    mask = np.zeros((len(texts), longest), np.int64)
    for n, text in enumerate(texts):
        place = slice(longest - len(text), longest) if left else slice(0, len(text))
        ids[n, place] = text
        mask[n, place] = 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


class EpochOrder(Sampler[int]):  # type: ignore[misc]
    """Item numbers of one epoch, shuffled, items of like length in one step; the short last step stays last.

    `epoch` is set by the loop. Grouping is within windows of 50 steps: enough to save most padding, little enough to keep
    steps differing from epoch to epoch.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def drawn(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """The items of this epoch, shuffled: all of them, once each."""
        return np.asarray(random.permutation(len(self.lengths)), np.int64)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = self.drawn(random)
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


def _joined(parts: Sequence[npt.NDArray[Any]], kind: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind, copy=False)
