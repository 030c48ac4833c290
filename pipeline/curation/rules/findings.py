"""What a rule found: row numbers and a reason for each, as arrays, so that ten million are affordable. No rule is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
"""Row numbers of a snapshot, from 0, in the order of its shards."""
Mask = npt.NDArray[np.bool_]
"""One truth value a row of the snapshot."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The rows that a rule points at, ascending and distinct.

    rows: (n,). others: (n,), the row that each repeats or contradicts, -1 where there is none. values: (n,), the number that goes
    into its reason. wordings: reasons with one `{}` for the number, e.g. "{:.0f} tokens"; codes: (n,), which of them holds.
    """

    rows: Rows
    others: Rows
    values: npt.NDArray[np.float64]
    codes: npt.NDArray[np.int32]
    wordings: Sequence[str]

    @classmethod
    def none(cls) -> Findings:
        """No findings at all."""
        return findings([], "")

    def __len__(self) -> int:
        return len(self.rows)

    def reason(self, at: int) -> str:
        """Why the finding number `at` is one."""
        return self.wordings[int(self.codes[at])].format(float(self.values[at]))

    def pick(self, chosen: Mask) -> Findings:
        """The findings that `chosen`, one truth value a finding, keeps."""
        return Findings(self.rows[chosen], self.others[chosen], self.values[chosen], self.codes[chosen], self.wordings)

    def among(self, kept: Mask) -> Findings:
        """The findings whose rows `kept`, one truth value a row of the snapshot, keeps."""
        return self.pick(kept[self.rows])


def findings(
    rows: npt.ArrayLike,
    wording: str | Sequence[str],
    *,
    others: npt.ArrayLike | None = None,
    values: npt.ArrayLike | None = None,
    codes: npt.ArrayLike | None = None,
) -> Findings:
    """Findings in ascending order of `rows`; what is not given is -1, 0 and the first wording."""
    numbers = np.asarray(rows, np.int64)
    order = np.argsort(numbers, kind="stable")

    def column(given: npt.ArrayLike | None, default: int, dtype: type) -> npt.NDArray[np.generic]:
        return (np.full(len(numbers), default) if given is None else np.asarray(given))[order].astype(dtype)

    wordings = (wording,) if isinstance(wording, str) else tuple(wording)
    return Findings(
        numbers[order],
        column(others, -1, np.int64),  # type: ignore[arg-type]
        column(values, 0, np.float64),  # type: ignore[arg-type]
        column(codes, 0, np.int32),  # type: ignore[arg-type]
        wordings,
    )
