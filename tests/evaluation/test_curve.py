"""Learning curves: nested shares of whole groups, a law that is found again, and a verdict that few rows do not give."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.domain.curve import Curve
from pipeline.errors import Misuse
from pipeline.evaluation.curve_page import curve_sentence
from pipeline.exploring.power_law import fit_law
from pipeline.steps.curve import Measured, Sitting, curve, curve_page, share_of, sittings, sizes_of

SIZES = (100, 400, 1600)


def measured(right: Callable[[Sitting], float], rows: int) -> Callable[[Sitting], Measured]:
    """Test rows that are right with a chance of each sitting; the same rows are the hard ones for all, as they are in life."""
    hard = np.random.default_rng(5).random(rows)

    def measure(sitting: Sitting) -> Measured:
        return Measured(sitting.rows, f"{sitting.rows:064d}", tuple((hard < right(sitting)).astype(float).tolist()))

    return measure


def drawn(measure: Callable[[Sitting], Measured | None], *, rows: int, seeds: int = 1, margin: float = 0.02) -> Curve:
    return curve(
        sittings(SIZES, seeds),
        measure,
        groups=[f"g{at}" for at in range(rows)],
        total=SIZES[-1],
        splits="a" * 64,
        params={},
        metric="accuracy",
        margin=margin,
        confidence=0.95,
        resamples=400,
        seed=7,
    )


def test_shares_are_nested_and_keep_groups_whole() -> None:
    groups = [f"g{random.Random(at).randrange(60)}" for at in range(300)]
    small, middle, whole = (share_of(groups, rows, seed=1) for rows in (30, 100, 300))
    assert set(small) < set(middle) < set(whole) == set(range(300))
    sizes = Counter(groups)
    for share, rows in ((small, 30), (middle, 100)):
        assert rows <= len(share) < rows + max(sizes.values())
        taken = Counter(groups[at] for at in share)
        assert all(taken[name] == sizes[name] for name in taken)
    assert share_of(groups, 30, seed=2) != small
    more = [*groups, "new", "newer"]
    assert len(set(share_of(more, 30, seed=1)) ^ set(small)) < 20, "new rows change few of a share's"


def test_sizes() -> None:
    assert sizes_of(1000, (0.25, 0.5), (50, 250)) == (50, 250, 500, 1000)
    assert sizes_of(2, (0.001,), ()) == (2,)
    for total, fractions, rows in ((1, (0.5,), ()), (10, (0.0,), ()), (10, (1.5,), ()), (10, (), (11,)), (10, (), (1,))):
        with pytest.raises(Misuse):
            sizes_of(total, fractions, rows)


def test_a_law_is_found_again() -> None:
    law = fit_law((100, 200, 400, 800, 1600), [0.05 + 2 * n**-0.5 for n in (100, 200, 400, 800, 1600)])
    assert law is not None
    assert law == pytest.approx((0.05, 2.0, 0.5), rel=0.02)
    assert law.error(3200) == pytest.approx(0.05 + 2 * 3200**-0.5, rel=0.01)
    assert fit_law((100, 200), [0.2, 0.1]) is None


def test_what_twice_the_rows_would_buy() -> None:
    found = drawn(measured(lambda sitting: 1 - 0.05 - 2 * sitting.rows**-0.5, 1000), rows=1000)
    truth = 1 - 0.05 - 2 * 3200**-0.5
    assert found.doubled is not None
    assert found.doubled.rows == 3200
    assert found.doubled.low <= truth <= found.doubled.high
    assert found.doubled.gain_low <= 2 * (1600**-0.5 - 3200**-0.5) <= found.doubled.gain_high
    assert [share.enough for share in found.shares] == ["no", "no", "yes"]
    assert [point.rows for point in found.points] == list(SIZES)
    assert "Twice the rows would add" in curve_sentence(found)
    assert "none of the smaller shares is enough" in curve_sentence(found)
    assert "leave nothing to check it by" in curve_page(found, "a curve")


def test_few_test_rows_give_no_verdict_and_flat_curves_are_enough() -> None:
    flat = drawn(measured(lambda sitting: 0.9 + 0.001 * (sitting.rows == 1600), 2000), rows=2000)
    assert flat.shares[0].enough == "yes"
    assert "100 are enough for that within 2 points" in curve_sentence(flat)
    scattered = {100: 0.8, 400: 0.8, 1600: 0.85}
    few = drawn(measured(lambda sitting: scattered[sitting.rows], 20), rows=20)
    assert few.shares[0].enough == "unclear"
    sure = drawn(measured(lambda sitting: 1.0, 30), rows=30)
    assert sure.shares[0].low < 0.9, "thirty right answers of thirty prove little"


def test_trainings_that_differ_widen_the_interval() -> None:
    same = drawn(measured(lambda sitting: 0.8, 500), rows=500, seeds=4)
    apart = drawn(measured(lambda sitting: 0.8 + 0.1 * (sitting.seed % 2) - 0.05, 500), rows=500, seeds=4)

    def width(found: Curve) -> float:
        return found.shares[0].high - found.shares[0].low

    assert width(apart) > 1.2 * width(same)
    assert len(same.points) == 12


def test_a_budget_that_ends_and_a_side_that_is_empty() -> None:
    whole = measured(lambda sitting: 0.8, 50)
    some = drawn(lambda sitting: whole(sitting) if sitting.rows < 1600 else None, rows=50)
    assert (len(some.points), some.missing, some.law) == (2, 1, None)
    assert "no power law fits" in curve_sentence(some)
    none = drawn(lambda sitting: None, rows=50)
    assert (none.shares, none.missing) == ((), 3)
    assert "No share has been trained on yet" in curve_page(none, "t")
    with pytest.raises(Misuse, match="no row that accuracy counts"):
        drawn(whole, rows=0)
