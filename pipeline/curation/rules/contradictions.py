"""Rows that ask the same and say different things: the same prompt with two answers, the same text with two labels.

Whether that is wrong depends on the task: a greeting has many good answers, an intent has one. So what becomes of them is for a
policy to say.
"""

from __future__ import annotations

import numpy as np

from pipeline.curation.rules.columns import Columns
from pipeline.curation.rules.findings import Findings, Mask, findings
from pipeline.curation.rules.repeats import first_of_equal

_WORDING = "asks what another row asks, and says something else ({:.0f} different answers)"


def contradictions(columns: Columns, kept: Mask) -> Findings:
    """All rows of each group of kept rows that ask the same but do not all say the same.

    `others` is, for each, the first row of its group that says something else; `values` how many different things are said.
    """
    rows = np.flatnonzero(kept)
    if not len(rows):
        return findings(rows, _WORDING)
    asked, said = columns.asked[rows], columns.said[rows]
    first = first_of_equal(asked)
    differs = said != said[first]
    # For a row that says what the first of its group says, the other is the first that does not.
    contested = np.unique(first[differs])
    rivals = np.full(len(rows), -1, np.int64)
    rivals[first[differs][::-1]] = np.flatnonzero(differs)[::-1]
    found = np.isin(first, contested)
    others = np.where(differs, first, rivals[first])[found]
    pairs = np.unique(np.stack([first[found], said[found].view(np.int64)], axis=1), axis=0)
    groups, counts = np.unique(pairs[:, 0], return_counts=True)
    values = counts[np.searchsorted(groups, first[found])]
    return findings(rows[found], _WORDING, others=rows[others], values=values)
