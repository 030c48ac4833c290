"""What policies make of findings: which rows stay, and which rule took out each of the others. Rules are asked one after the
other, and each sees what those before it left. Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.curation.rules.findings import Findings, Mask, Rows
from pipeline.domain.data import CheckResult

SAMPLES = 5
_EXPECTED = {
    "warn": "told, never refused",
    "list": "listed for a person, never refused",
    "drop": "left out",
    "block": "no row",
}


@dataclass(frozen=True, slots=True)
class Ruling:
    """One rule's findings and what was made of them. dropped: those of its findings that it took out."""

    rule: str
    policy: str
    found: Findings
    dropped: Findings
    check: CheckResult

    @property
    def shown(self) -> Findings:
        """The first few findings, as samples."""
        return self.found.pick(np.arange(len(self.found)) < SAMPLES)


class Rulings:
    """The rules asked so far. kept: which rows of the snapshot none of them has left out."""

    def __init__(self, rows: int) -> None:
        self.kept: Mask = np.ones(rows, np.bool_)
        self.made: list[Ruling] = []

    def __iter__(self) -> Iterator[Ruling]:
        return iter(self.made)

    def add(
        self,
        rule: str,
        policy: str,
        found: Findings,
        *,
        observed: str | None = None,
        expected: str | None = None,
        passed: bool | None = None,
    ) -> None:
        """Note what `rule` found, and leave the rows out where its policy is drop.

        The rule's check fails when the policy is block and there are findings; `passed` says otherwise.
        """
        if passed is None:
            passed = policy != "block" or not len(found)
        dropping = policy == "drop" and passed
        if dropping:
            self.kept[found.rows] = False
        check = CheckResult(
            name=rule,
            passed=passed,
            expected=expected or _EXPECTED[policy],
            observed=observed or f"{len(found)} rows",
        )
        nothing = np.zeros(len(found), np.bool_)
        self.made.append(Ruling(rule, policy, found, found if dropping else found.pick(nothing), check))

    @property
    def dropped_rows(self) -> Rows:
        """The rows that were left out, ascending."""
        return np.flatnonzero(~self.kept)

    def named(self) -> Rows:
        """All rows whose id or line will be shown or written, ascending: those left out, the samples, and what they repeat."""
        lists = [self.dropped_rows]
        for ruling in self.made:
            lists += [ruling.dropped.others, ruling.shown.rows, ruling.shown.others]
        rows = np.unique(np.concatenate(lists))
        return rows[rows >= 0]
