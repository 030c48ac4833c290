"""The one table that the rules look at: what each row asks and says (as digests), its kind, label and source, as numpy columns.

About 25 bytes a row, so ten million rows are a quarter of a gigabyte. Texts are read and let go of; rules that need them read the
shards again.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.curation.rules.findings import Mask
from pipeline.curation.rules.meaning import asked_and_said, gives_away
from pipeline.domain.data import ExampleKind

Codes = npt.NDArray[np.int32]
Digests = npt.NDArray[np.uint64]
Digested = tuple[bytes, bytes, bytes]
LOOKED_AT = ("kind", "input", "output", "source")
"""The columns of an example that are read for this table."""


class Names:
    """Distinct texts numbered in the order in which they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def encode(self, column: Any) -> Codes:
        """The number of each text of a pyarrow column without nulls."""
        coded = column.dictionary_encode()
        numbers = [self._numbers.setdefault(name, len(self._numbers)) for name in coded.dictionary.to_pylist()]
        codes: Codes = np.asarray(numbers, np.int32)[coded.indices.to_numpy(zero_copy_only=False)]
        return codes

    @property
    def listed(self) -> tuple[str, ...]:
        return tuple(self._numbers)


@dataclass(frozen=True, slots=True)
class Columns:
    """A snapshot's rows, in order. asked, said: 64-bit digests of `meaning.asked_and_said`: among ten million rows two different
    texts share one with a chance of 3 in a million. kinds, sources, labels: numbers into the names; labels are -1 where a row has
    none. given_away: where the prompt holds the answer (`meaning.gives_away`)."""

    asked: Digests
    said: Digests
    kinds: Codes
    kind_names: tuple[str, ...]
    sources: Codes
    source_names: tuple[str, ...]
    labels: Codes
    label_names: tuple[str, ...]
    given_away: Mask

    def __len__(self) -> int:
        return len(self.asked)

    def of_kind(self, kind: ExampleKind) -> Mask:
        """Which rows are of `kind`."""
        names = self.kind_names
        return self.kinds == names.index(kind) if kind in names else np.zeros(len(self), np.bool_)


def digest_rows(batch: Any) -> Digested:
    """Digests of what each row of a batch asks, and of what it says, eight bytes each, and whether its prompt holds the answer.

    The one part of the work that runs Python for every row, so it can be done in other processes.
    """
    asked, said, given_away = bytearray(), bytearray(), bytearray()
    for row in zip(*(batch.column(name).to_pylist() for name in ("kind", "input", "output")), strict=True):
        asks, says = asked_and_said(*row)
        asked += blake2b(asks.encode(), digest_size=8).digest()
        said += blake2b(says.encode(), digest_size=8).digest()
        given_away.append(gives_away(row[0], asks, says))
    return bytes(asked), bytes(said), bytes(given_away)


class Gathering:
    """Makes Columns of batches that come one after the other (`add`), with the columns LOOKED_AT."""

    def __init__(self) -> None:
        self._kinds, self._sources, self._labels = Names(), Names(), Names()
        self._parts: list[tuple[Any, ...]] = []

    def add(self, batch: Any, digested: Digested) -> None:
        """Take in a batch, and what `digest_rows` said of it."""
        asked, said, given_away = digested
        kinds = batch.column("kind")
        self._parts.append(
            (
                np.frombuffer(asked, "<u8"),
                np.frombuffer(said, "<u8"),
                self._kinds.encode(kinds),
                self._sources.encode(batch.column("source")),
                self._label_codes(kinds, batch.column("output")),
                np.frombuffer(given_away, np.bool_),
            )
        )

    def finish(self) -> Columns:
        types = (np.uint64, np.uint64, np.int32, np.int32, np.int32, np.bool_)
        columns: list[Any] = []
        for place, type in enumerate(types):
            columns.append(np.concatenate([np.zeros(0, type), *(part[place] for part in self._parts)]).astype(type, copy=False))
        self._parts = []
        asked, said, kinds, sources, labels, given_away = columns
        names = [coded.listed for coded in (self._kinds, self._sources, self._labels)]
        return Columns(asked, said, kinds, names[0], sources, names[1], labels, names[2], given_away)

    def _label_codes(self, kinds: Any, outputs: Any) -> Codes:
        import pyarrow.compute as pc

        labelled = pc.equal(kinds, ExampleKind.LABEL.value)
        codes = np.full(len(kinds), -1, np.int32)
        codes[labelled.to_numpy(zero_copy_only=False)] = self._labels.encode(outputs.filter(labelled))
        return codes
