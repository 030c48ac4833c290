"""What is a reason to run, and what holds it back: tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.signals import Signal, SignalKind
from pipeline.domain.triggers import Fresh, State, Wanted, decide

NOW = datetime(2026, 3, 5, 3, tzinfo=UTC)


def ago(**words: float) -> datetime:
    return NOW - timedelta(**words)


def windows(marks: str) -> tuple[Signal, ...]:
    """x: drifted; .: not; oldest first."""
    words: dict[str, Any] = {"model": "m", "what": SignalKind.DRIFT, "amount": 0.5, "detail": "d"}
    return tuple(Signal(window=f"{n:03}", at=ago(hours=9 - n), fired=m == "x", **words) for n, m in enumerate(marks))


FEW = Fresh(files=1, rows=40, newest=ago(minutes=5))
MANY = Fresh(files=3, rows=900, newest=ago(minutes=5))


@pytest.mark.parametrize(
    ("wanted", "state", "run", "said"),
    [
        ({}, {}, False, "nothing is new"),
        ({}, {"fresh": FEW}, True, "1 new file, about 40 rows"),
        ({"min_rows": 100}, {"fresh": FEW}, False, "min_rows is 100"),
        ({"min_rows": 100}, {"fresh": MANY}, True, "3 new files"),
        ({"min_rows": 100}, {"fresh": FEW.model_copy(update={"rows": None})}, True, "rows not counted"),
        ({"min_rows": None}, {"fresh": MANY}, False, "nothing is new"),
        ({"quiet": 600}, {"fresh": MANY}, False, "left alone for 600 s"),
        ({"quiet": 299}, {"fresh": MANY}, True, "900"),
        ({"quiet": 600}, {"fresh": MANY.model_copy(update={"newest": ago(days=-9000)})}, True, "900"),
        ({}, {"fresh": Fresh(unseen=("crm",))}, True, "only a run can tell whether crm"),
        ({}, {"changed": ("params are others than those of the last run",)}, True, "params"),
        ({"windows": (3, 5)}, {"drift": windows("xxx")}, True, "3 of the last 3"),
        ({"windows": (3, 5)}, {"drift": windows("x.x.x")}, True, "3 of the last 5"),
        ({"windows": (3, 5)}, {"drift": windows("xxxx.")}, False, "not in the newest"),
        ({"windows": (3, 5)}, {"drift": windows("xxx...x")}, False, "2 of the last 5"),
        ({"windows": (3, 5)}, {"drift": windows("....x")}, False, "1 of the last 5"),
        ({"windows": (1, 1)}, {"drift": windows("x")}, True, "drift"),
        ({}, {"drift": windows("xxxxx")}, False, "nothing is new"),
        ({"windows": (3, 5)}, {"drift": windows(".....")}, False, "nothing is new"),
        ({"feedback": 200}, {"feedback": 199}, False, "199 rows of feedback"),
        ({"feedback": 200}, {"feedback": 200}, True, "200 rows of feedback"),
        ({}, {"feedback": 10_000}, False, "nothing is new"),
        ({"revocation": True}, {"withdrawn": 1}, True, "revoked"),
        ({}, {"withdrawn": 1}, False, "nothing is new"),
        ({"cool_down": 3600}, {"fresh": MANY, "runs": (ago(minutes=59),)}, False, "cools down for 0:01:00"),
        ({"cool_down": 3600}, {"fresh": MANY, "runs": (ago(minutes=60),)}, True, "900"),
        ({"cool_down": 3600}, {"fresh": MANY, "runs": (ago(days=-4000),)}, True, "900"),
        ({"cool_down": 3600, "revocation": True}, {"withdrawn": 1, "runs": (ago(minutes=1),)}, True, "revoked"),
        ({"budget": (2, 7.0)}, {"fresh": MANY, "runs": (ago(days=8), ago(days=6))}, True, "900"),
        ({"budget": (2, 7.0)}, {"fresh": MANY, "runs": (ago(days=6), ago(days=1))}, False, "2026-03-06 03:00"),
        ({"budget": (2, 7.0), "revocation": True}, {"withdrawn": 1, "runs": (ago(days=6), ago(days=1))}, False, "budget"),
        ({"budget": (2, 7.0)}, {"fresh": MANY, "runs": (ago(days=1), ago(days=-4000))}, True, "900"),
    ],
)
def test_decide(wanted: dict[str, Any], state: dict[str, Any], run: bool, said: str) -> None:
    decision = decide(NOW, Wanted(**wanted), State(**state))
    assert decision.run is run
    assert said in "; ".join(decision.why)


@given(st.text("x.", max_size=12), st.integers(1, 5), st.integers(0, 5))
def test_drift_fires_only_on_enough_of_the_last_with_the_newest_among_them(marks: str, of: int, more: int) -> None:
    decision = decide(NOW, Wanted(windows=(of, of + more)), State(drift=windows(marks)))
    assert decision.run == (marks.endswith("x") and marks[-(of + more) :].count("x") >= of)


@given(st.lists(st.integers(-400, 400), max_size=20), st.integers(1, 5))
def test_a_budget_is_never_overspent(days: list[int], allowed: int) -> None:
    runs = tuple(ago(days=day) for day in sorted(days, reverse=True))
    decision = decide(NOW, Wanted(budget=(allowed, 30.0)), State(fresh=MANY, runs=runs))
    assert decision.run == (sum(0 <= day < 30 for day in days) < allowed)
