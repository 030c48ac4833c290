"""Rows that ask and say the same as an earlier row, but for case, white space and Unicode composition: one sort, no pairs."""

from __future__ import annotations

import numpy as np

from pipeline.curation.rules.columns import Columns
from pipeline.curation.rules.findings import Findings, Mask, Rows, findings


def repeats(columns: Columns, kept: Mask) -> Findings:
    """Of the kept rows, each that repeats an earlier one; `others` is the earliest of those it repeats."""
    rows = np.flatnonzero(kept)
    firsts = first_of_equal(np.stack([columns.asked[rows], columns.said[rows]], axis=1))
    again = firsts != np.arange(len(rows))
    return findings(rows[again], "repeats an earlier row but for case and white space", others=rows[firsts[again]])


def first_of_equal(keys: np.ndarray) -> Rows:
    """For each row of `keys` (n, k) the number of the first row that equals it."""
    if not len(keys):
        return np.zeros(0, np.int64)
    order = np.lexsort((np.arange(len(keys)), *keys.T[::-1]))
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, np.any(ordered[1:] != ordered[:-1], axis=1)])
    sizes = np.diff(np.r_[starts, len(keys)])
    firsts = np.empty(len(keys), np.int64)
    firsts[order] = np.repeat(order[starts], sizes)
    return firsts
