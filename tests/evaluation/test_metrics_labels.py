"""Calibration and Brier score, by hand, against scikit-learn, and on what is no probability."""

from __future__ import annotations

import numpy as np
import pytest
from asked_rows import asked, statistic_of, value_of
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from pipeline.errors import Broken
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.rows import Said
from pipeline.evaluation.statistics import paired_bootstrap

ROWS = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=80)


def _ece(right: np.ndarray, sure: np.ndarray) -> float:
    """As in Guo et al.'s text: bins ((m - 1) / 15, m / 15]."""
    total = 0.0
    for m in range(1, 16):
        within = (sure > (m - 1) / 15) & (sure <= m / 15) if m > 1 else sure <= 1 / 15
        if within.any():
            total += within.mean() * abs(right[within].mean() - sure[within].mean())
    return float(total)


@given(ROWS)
def test_calibration_and_brier_are_those_of_their_definitions(rows: list[tuple[bool, float]]) -> None:
    right, sure = np.array([r for r, _ in rows]), np.array([c for _, c in rows])
    expected, answers = ["a"] * len(rows), ["a" if r else "b" for r in right]
    told = (expected, answers, list(sure))
    # Ends of bins in binary: a confidence within rounding of an end may fall either way.
    if not np.any(np.abs(sure * 15 - np.round(sure * 15)) < 1e-9):
        assert value_of("calibration", *told) == pytest.approx(1 - _ece(right.astype(float), sure), abs=1e-8)
    assert value_of("brier", *told) == pytest.approx(1 - brier_score_loss(right, sure, labels=[False, True]), abs=1e-8)


def test_by_hand() -> None:
    # Four at 0.9 of which three are right: |0.75 - 0.9| = 0.15. Two at 0.5, one right: 0. ECE = 4/6 x 0.15.
    expected, answers, sure = ["a"] * 6, ["a", "a", "a", "b", "a", "b"], [0.9] * 4 + [0.5] * 2
    assert value_of("calibration", expected, answers, sure) == pytest.approx(1 - 4 / 6 * 0.15)
    assert value_of("brier", expected, answers, sure) == pytest.approx(1 - (3 * 0.01 + 0.81 + 0.25 + 0.25) / 6)


def test_the_right_and_certain_are_calibrated_and_the_wrong_and_certain_are_not() -> None:
    assert value_of("calibration", ["a", "b"], ["a", "b"], [1.0, 1.0]) == value_of("brier", ["a"], ["a"], [1.0]) == 1
    assert value_of("calibration", ["a", "b"], ["b", "a"], [1.0, 1.0]) == value_of("brier", ["a"], ["b"], [1.0]) == 0


def test_calibration_is_resampled_as_a_whole() -> None:
    source = np.random.default_rng(1)
    sure = source.uniform(0.3, 1, 400)
    right = source.uniform(size=400) < sure - 0.2  # overconfident by 0.2
    statistic = statistic_of("calibration", ["a"] * 400, ["a" if r else "b" for r in right], list(sure))
    found = paired_bootstrap({"candidate": statistic}, [str(at) for at in range(400)], resamples=400).values["candidate"]
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(0.8, abs=0.06)
    assert statistic.value(0 * statistic.contributions[:1])[0] == 0


@pytest.mark.parametrize("name", ["calibration", "brier"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -0.1, 1.5])
def test_what_is_no_probability_is_broken(name: str, wrong: float) -> None:
    with pytest.raises(Broken, match="confidence of row 1 is"):
        value_of(name, ["a", "a"], ["a", "a"], [0.5, wrong])


@pytest.mark.parametrize("name", ["calibration", "brier"])
def test_a_subject_without_confidences_cannot_be_measured(name: str) -> None:
    rows = asked(["a"])
    assert METRICS[name].statistic(rows, Said(["a"])) is None
    assert METRICS[name].scores(rows, Said(["a"])) is None
    with pytest.raises(Broken, match="2 confidences came with 1 labels"):
        METRICS[name].statistic(rows, Said(["a"], [0.5, 0.5]))
