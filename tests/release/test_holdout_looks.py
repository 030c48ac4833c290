"""Looks at a holdout in the ledger: counted once each, in order, whoever else writes; and what history says of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.backends.ledger import SqlLedger
from pipeline.domain.curated import SplitFile, SplitSide
from pipeline.domain.measured import EvaluationReport
from pipeline.domain.record import FileDigest
from pipeline.domain.release import EventKind
from pipeline.errors import Misuse
from pipeline.steps.gate import holdout_uses, spend
from pipeline.steps.history import history


@pytest.fixture
def ledger(tmp_path: Path) -> SqlLedger:
    return SqlLedger(tmp_path / "ledger" / "ledger.db")


def side(*parts: tuple[str, int]) -> SplitSide:
    return SplitSide(parts=tuple(SplitFile(path=f"{n}.parquet", sha256=n * 64, bytes=9, rows=rows) for n, rows in parts))


def evaluation(number: int) -> EvaluationReport:
    return EvaluationReport(
        training=f"{number:064}",
        champion="1" * 64,
        splits="2" * 64,
        test="3" * 64,
        rows=100,
        subjects=(),
        comparisons=(),
        slices=(),
        predictions=FileDigest(path="predictions.parquet", sha256="4" * 64, bytes=1),
        params={},
    )


def looked(ledger: Any, number: int, test: SplitSide, model: str = "desk") -> int:
    at = datetime(2026, 11, 28, 12, number, tzinfo=UTC)
    return spend(evaluation(number), test, model=model, by="ada", ledger=ledger, now=lambda: at)


def test_looks_add_up_and_repeating_one_spends_nothing(ledger: SqlLedger) -> None:
    week1 = side(("a", 100))
    assert [looked(ledger, number, week1) for number in (1, 2, 3)] == [1, 2, 3]
    assert [looked(ledger, number, week1) for number in (2, 1, 3)] == [2, 1, 3]
    assert len(ledger.events("desk")) == 3
    assert ledger.verify() == ()
    assert looked(ledger, 4, week1, model="other") == 1


def test_fresh_rows_are_a_fresh_holdout_once_they_are_half(ledger: SqlLedger) -> None:
    weeks = [("a", 100), ("b", 100), ("c", 100), ("d", 100)]
    found = [looked(ledger, number, side(*weeks[: number + 1])) for number in range(4)]
    assert found == [
        1,
        1,
        2,
        2,
    ]  # at the third week two thirds were seen at the second, at the fourth three quarters at the third


def test_a_test_without_rows_is_no_look(ledger: SqlLedger) -> None:
    assert looked(ledger, 1, side(("a", 0))) == 1
    assert ledger.events("desk") == ()


class Raced:
    """A ledger into which somebody else writes between reading and appending, the first two times."""

    def __init__(self, ledger: SqlLedger) -> None:
        self.ledger, self.left = ledger, 2

    def events(self, model: str) -> Any:
        found = self.ledger.events(model)
        if self.left:
            self.left -= 1
            looked(self.ledger, 20 + self.left, side(("a", 100)))
        return found

    def append(self, *arguments: Any, **options: Any) -> Any:
        return self.ledger.append(*arguments, **options)


def test_two_at_once_get_different_numbers(ledger: SqlLedger) -> None:
    assert looked(Raced(ledger), 1, side(("a", 100))) == 3
    assert [use.evaluation for use in holdout_uses(ledger.events("desk"))][-1] == evaluation(1).digest


def test_history_says_it(ledger: SqlLedger) -> None:
    looked(ledger, 1, side(("a", 60), ("b", 46)))
    (row,) = history("desk", ledger=ledger)
    assert (row.event.event, row.event.version) == (EventKind.JUDGED, "")
    assert row.sentence == "ada had a candidate judged: look 1 at a test of 106 rows"


def test_the_event_names_no_version_and_others_do(ledger: SqlLedger) -> None:
    words = {"expected": 0, "subject": "5" * 64, "stage": None, "leaves": None, "actor": "ada", "reason": "why"}
    now = datetime(2026, 11, 28, tzinfo=UTC)
    for kind, version in ((EventKind.JUDGED, "3"), (EventKind.PROMOTED, "")):
        with pytest.raises((ValidationError, Misuse)):
            ledger.append("desk", kind, version=version, at=now, **words)
    assert ledger.events("desk") == ()
