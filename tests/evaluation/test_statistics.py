"""The bootstrap: coverage on simulations with a known truth, pairing, groups, and the corners where it would lie."""

from __future__ import annotations

import math

import numpy as np
import pytest
from asked_rows import statistic_of, value_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Broken
from pipeline.evaluation import statistics
from pipeline.evaluation.metrics import confusion_f1
from pipeline.evaluation.statistics import Interval, mean, paired_bootstrap


def own(rows: int) -> list[str]:
    return [f"group {at}" for at in range(rows)]


def interval(scores: list[float], groups: list[str] | None = None, **options: float) -> Interval:
    return paired_bootstrap({"it": mean(scores)}, groups or own(len(scores)), **options).values["it"]  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows", "rate"), [(100, 0.9), (60, 0.6)])
def test_coverage_of_means(rows: int, rate: float) -> None:
    source = np.random.default_rng(3)
    drawn = [interval((source.random(rows) < rate).astype(float).tolist(), resamples=500, seed=5) for _ in range(300)]
    # Nominal: 2.5 in 100 on each side; three standard errors of 300 draws are 2.7 in 100.
    assert np.mean([i.low > rate for i in drawn]) < 0.055
    assert np.mean([i.high < rate for i in drawn]) < 0.055
    assert np.mean([i.low <= rate <= i.high for i in drawn]) < 1.0


def test_coverage_of_paired_differences() -> None:
    source = np.random.default_rng(4)
    missed = 0
    for _ in range(300):
        gains = source.choice([-1.0, 0.0, 1.0], p=[0.06, 0.80, 0.14], size=120)
        ours = (gains == 1) | ((gains == 0) & (source.random(120) < 0.8))
        theirs = np.where(gains == 1, False, np.where(gains == -1, True, ours))
        both = {"ours": mean(ours.astype(float)), "theirs": mean(theirs.astype(float))}
        found = paired_bootstrap(both, own(120), pairs=[("ours", "theirs")], resamples=500).differences["ours", "theirs"]
        missed += not found.low <= 0.08 <= found.high
    assert 0 < missed / 300 < 0.09


def test_pairing_makes_differences_sharper_than_their_parts() -> None:
    source = np.random.default_rng(5)
    theirs = (source.random(300) < 0.7).astype(float)
    ours = np.where(source.random(300) < 0.05, 1.0, theirs)
    found = paired_bootstrap({"a": mean(ours), "b": mean(theirs)}, own(300), pairs=[("a", "b")])
    width = found.values["a"].high - found.values["a"].low
    assert found.differences["a", "b"].high - found.differences["a", "b"].low < width / 2


def test_groups_widen_the_interval() -> None:
    source = np.random.default_rng(6)
    scores = np.repeat((source.random(40) < 0.7).astype(float), 10).tolist()
    alone, together = interval(scores), interval(scores, [str(at // 10) for at in range(400)])
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert together.rows == 400


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_subject_differs_from_itself_by_exactly_nothing(metric: str) -> None:
    source = np.random.default_rng(7)
    expected, answers = source.choice(list("abc"), 90).tolist(), source.choice(list("abcd"), 90).tolist()
    same = {name: statistic_of(metric, expected, answers) for name in ("a", "b")}
    assert paired_bootstrap(same, own(90), pairs=[("a", "b")]).differences["a", "b"] == Interval(0.0, 0.0, 0.0, 90)


def test_macro_f1_resamples_are_macro_f1() -> None:
    source = np.random.default_rng(8)
    expected = source.choice(list("abc"), 50, p=[0.7, 0.25, 0.05])
    answers = np.where(source.random(50) < 0.7, expected, source.choice(list("abcx"), 50))
    rows = confusion_f1(expected.tolist(), answers.tolist())
    summed = statistics.Statistic(statistics.membership_of(own(50)) @ rows.contributions, rows.value)
    drawn = statistics._resampled({"f1": summed}, 50, 200, seed=9)["f1"]
    order = sorted(range(50), key=lambda at: own(50)[at])
    by_hand = []
    for times in np.concatenate(list(statistics._multiplicities(50, 200, 9, 200))):
        rows = [row for place, row in enumerate(order) for _ in range(int(times[place]))]
        by_hand.append(value_of("macro_f1", expected[rows].tolist(), answers[rows].tolist()))
    assert drawn == pytest.approx(by_hand, abs=1e-8)


def test_batches_change_nothing() -> None:
    whole = np.concatenate(list(statistics._multiplicities(13, 101, 3, 101)))
    pieces = np.concatenate(list(statistics._multiplicities(13, 101, 3, 7)))
    assert np.array_equal(whole, pieces)
    assert (whole.sum(axis=1) == 13).all()


def test_order_of_rows_changes_nothing() -> None:
    source = np.random.default_rng(10)
    scores, groups = source.random(70), own(70)
    order = source.permutation(70)
    assert interval(scores.tolist(), groups) == interval(scores[order].tolist(), [groups[at] for at in order])


def test_certainty_is_not_claimed() -> None:
    assert interval([1.0] * 30) == Interval(1.0, round(0.025 ** (1 / 30), 9), 1.0, 30)
    assert interval([0.0] * 30) == Interval(0.0, 0.0, round(1 - 0.025 ** (1 / 30), 9), 30)
    assert interval([1.0] * 30, ["one"] * 30).low == pytest.approx(0.025)
    assert interval([1.0]).low == pytest.approx(0.025)
    both = {"a": mean([1.0] * 30), "b": mean([0.0] * 30)}
    won = paired_bootstrap(both, own(30), pairs=[("a", "b")]).differences["a", "b"]
    assert won.value == 1
    assert won.low == pytest.approx(2 * 0.025 ** (1 / 30) - 1)


def test_no_rows() -> None:
    found = paired_bootstrap({"a": mean([]), "b": confusion_f1([], [])}, [], pairs=[("a", "b")])
    assert found.values["a"] == found.values["b"] == Interval(0.0, 0.0, 1.0, 0)
    assert found.differences["a", "b"] == Interval(0.0, -1.0, 1.0, 0)


def test_nan_is_refused() -> None:
    with pytest.raises(Broken, match="row 1 is not a finite number"):
        mean([1.0, math.nan, 0.0])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcx"), st.sampled_from("abcx"), st.integers(0, 9)), max_size=25),
    st.integers(0, 5),
)
def test_intervals_are_finite_and_hold_their_value(rows: list[tuple[str, str, str, int]], seed: int) -> None:
    expected, groups = [r[0] for r in rows], [str(r[3]) for r in rows]
    asked = {
        (who, name): statistic_of(name, expected, [r[at] for r in rows])
        for at, who in ((1, "a"), (2, "b"))
        for name in ("accuracy", "macro_f1")
    }
    pairs = [(("a", name), ("b", name)) for name in ("accuracy", "macro_f1")]
    found = paired_bootstrap(asked, groups, pairs=pairs, resamples=200, seed=seed)
    for seen in found.values.values():
        assert 0 <= seen.low <= seen.value <= seen.high <= 1
    for seen in found.differences.values():
        assert -1 <= seen.low <= seen.value <= seen.high <= 1
