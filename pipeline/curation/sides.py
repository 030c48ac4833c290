"""Which group goes to which side: frozen sides are kept, new groups are drawn. Files of sides are read and written here too.

The draw itself is domain/splitting.py's; what a side's rows are checked for, and written to, is steps/split.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.curation.keys import KEY, Keys, find, key_hex
from pipeline.domain.curated import Split, SplitFile
from pipeline.domain.record import digest_file
from pipeline.domain.splitting import assign_stratum, point, side_at
from pipeline.errors import Broken
from pipeline.params import SplitParams

ORDER = (Split.TRAIN, Split.EVAL, Split.TEST)
"""A side's place here is its number in arrays and files."""
_TEST = ORDER.index(Split.TEST)
_AT_ONCE = 1 << 16
"""So many groups are Python's at once: ten million of them would take gigabytes."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Sides of groups. groups: sorted keys; numbers: of each, its place in ORDER."""

    groups: Keys
    numbers: npt.NDArray[np.int8]

    def of(self, groups: Keys) -> npt.NDArray[np.int8]:
        """The number of each group's side. Raises Broken for a group that has none."""
        places = find(self.groups, groups)
        if np.any(places < 0):
            raise Broken(f"the group {key_hex(groups[places < 0][0])} was given no side", fix="run the split step again")
        return self.numbers[places]


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a dataset. keys: sorted, distinct; rows: how many each has; strata: the stratum of each one's first row."""

    keys: Keys
    rows: npt.NDArray[np.int64]
    strata: Sequence[str] | None

    @classmethod
    def collect(cls, batches: Iterable[tuple[Keys, Sequence[str] | None]]) -> Groups:
        """From (group of each row, stratum of each row or None), batch by batch."""
        found: list[Keys] = []
        names: dict[str, int] = {}
        codes: list[npt.NDArray[np.int32]] = []
        for groups, strata in batches:
            found.append(groups)
            if strata is not None:
                codes.append(np.array([names.setdefault(name, len(names)) for name in strata], np.int32))
        every = np.concatenate(found) if found else np.zeros(0, KEY)
        keys, first, rows = np.unique(every, return_index=True, return_counts=True)
        if not codes:
            return cls(keys, rows, None)
        listed = list(names)
        return cls(keys, rows, [listed[code] for code in np.concatenate(codes)[first].tolist()])


def draw(groups: Groups, frozen: Sides, params: SplitParams) -> tuple[Sides, Sides]:
    """(sides of all `groups`, sides of those that are new). Frozen groups stay; the order of rows plays no part."""
    known = find(frozen.groups, groups.keys)
    numbers = np.zeros(len(groups.keys), np.int8)
    numbers[known >= 0] = frozen.numbers[known[known >= 0]]
    new = np.flatnonzero(known < 0)
    points = np.zeros(len(new))
    for start in range(0, len(new), _AT_ONCE):
        part = new[start : start + _AT_ONCE]
        points[start : start + _AT_ONCE] = [point(key_hex(key), params.salt) for key in groups.keys[part].tolist()]
        if groups.strata is None:
            ats = points[start : start + _AT_ONCE].tolist()
            drawn = [side_at(at, eval_share=params.eval, test_share=params.test) for at in ats]
            numbers[part] = [ORDER.index(side) for side in drawn]
    if groups.strata is not None:
        drawn = _draw_strata([groups.strata[i] for i in new.tolist()], points, params)
        numbers[new] = [ORDER.index(side) for side in drawn]
    if params.max_test_rows is not None:
        _cap_test(numbers, groups.rows, new, points, params.max_test_rows)
    return Sides(groups.keys, numbers), Sides(groups.keys[new], numbers[new])


def _draw_strata(strata: Sequence[str], points: npt.NDArray[np.float64], params: SplitParams) -> list[Split]:
    members: dict[str, list[int]] = {}
    for index, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(index)
    drawn = [Split.TRAIN] * len(strata)
    for stratum, indices in members.items():
        offset = point(stratum, f"{params.salt}\0stratum")
        sides = assign_stratum(points[indices].tolist(), offset, eval_share=params.eval, test_share=params.test)
        for index, side in zip(indices, sides, strict=True):
            drawn[index] = side
    return drawn


def _cap_test(
    numbers: npt.NDArray[np.int8],
    rows: npt.NDArray[np.int64],
    new: npt.NDArray[np.int64],
    points: npt.NDArray[np.float64],
    most: int,
) -> None:
    """Send new test groups to train once the test side, frozen groups included, holds `most` rows."""
    fresh = np.zeros(len(numbers), bool)
    fresh[new] = True
    held = int(rows[(numbers == _TEST) & ~fresh].sum())
    for place in np.argsort(points, kind="stable"):
        index = new[place]
        if numbers[index] != _TEST:
            continue
        if held + rows[index] > most:
            numbers[index] = ORDER.index(Split.TRAIN)
        else:
            held += int(rows[index])


def read_sides(folder: Path, files: Sequence[SplitFile]) -> Sides:
    """Sides from files that `write_sides` wrote; a group in two keeps that of the first. Raises Broken when one is unreadable."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups, numbers = [np.zeros(0, KEY)], [np.zeros(0, np.int8)]
    for file in files:
        try:
            table = pq.read_table(folder / file.path)
            sides = table.column("side").to_pylist()
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise Broken(f"this file of sides cannot be read: {error}", where=str(folder / file.path)) from error
        joined = b"".join(table.column("group").to_pylist())
        groups.append(np.frombuffer(joined, KEY))
        numbers.append(np.array([ORDER.index(Split(side)) for side in sides], np.int8))
    keys, first = np.unique(np.concatenate(groups), return_index=True)
    return Sides(keys, np.concatenate(numbers)[first])


def write_sides(folder: Path, sides: Sides) -> SplitFile | None:
    """Write `folder`/<sha256[:16]>.parquet with the columns group (16 bytes) and side; None when there is nothing to write."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not len(sides.groups):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    groups = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(sides.groups), [None, pa.py_buffer(np.ascontiguousarray(sides.groups))]
    )
    names = pa.array([side.value for side in ORDER])
    side = pa.DictionaryArray.from_arrays(pa.array(sides.numbers), names).cast(pa.string())
    temporary = folder / "incoming.tmp"
    pq.write_table(pa.table({"group": groups, "side": side}), temporary, version="2.6", compression="zstd")
    sha256 = digest_file(temporary)
    final = folder / f"{sha256[:16]}.parquet"
    temporary.replace(final)
    path = f"{folder.name}/{final.name}"
    return SplitFile(path=path, sha256=sha256, bytes=final.stat().st_size, rows=len(sides.groups))
