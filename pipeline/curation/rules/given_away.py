"""Rows whose prompt holds the answer: whoever learns from them learns to copy, and scores well where it is measured on them."""

from __future__ import annotations

import numpy as np

from pipeline.curation.rules.columns import Columns
from pipeline.curation.rules.findings import Findings, Mask, findings

_WORDINGS = ("its text holds its label", "its last message holds the whole answer")


def given_away(columns: Columns, kept: Mask) -> Findings:
    """The kept rows that `meaning.gives_away` finds. For labels that are plain words ("refund") this is often as it should be."""
    rows = np.flatnonzero(kept & columns.given_away)
    return findings(rows, _WORDINGS, codes=columns.labels[rows] < 0)
