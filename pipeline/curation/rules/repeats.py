"""Rows that ask and say the same as an earlier row, but for case, white space and Unicode composition: one sort, no pairs."""

from __future__ import annotations

import numpy as np

from pipeline.curation.rules.columns import Columns, Digests
from pipeline.curation.rules.findings import Findings, Mask, Rows, findings


def repeats(columns: Columns, kept: Mask) -> Findings:
    """Of the kept rows, each that repeats an earlier one; `others` is the earliest of those it repeats."""
    rows = np.flatnonzero(kept)
    # What is asked and what is said as one digest; the odd factor keeps the two from cancelling where they are alike.
    firsts = first_of_equal(columns.asked[rows] * np.uint64(0x9E3779B97F4A7C15) + columns.said[rows])
    again = firsts != np.arange(len(rows))
    return findings(rows[again], "repeats an earlier row but for case and white space", others=rows[firsts[again]])


def first_of_equal(keys: Digests) -> Rows:
    """For each of `keys` (n,) the number of the first that equals it."""
    if not len(keys):
        return np.zeros(0, np.int64)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    del ordered
    firsts = np.empty(len(keys), np.int64)
    firsts[order] = np.repeat(order[starts], np.diff(starts, append=len(keys)))
    return firsts
