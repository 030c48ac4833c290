"""p-values against scipy and against counting by hand, Holm by hand, least differences against the shares that pass."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from pipeline.errors import Broken
from pipeline.evaluation.bounded import bounded_ends
from pipeline.evaluation.comparison import compare_scores, measure
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.testing import clopper_pearson, detectable, detectable_by, holm, paired_p


def own(rows: int) -> list[str]:
    return [f"group {at}" for at in range(rows)]


@pytest.mark.parametrize(("won", "lost", "even"), [(9, 1, 90), (1, 9, 0), (5, 5, 10), (30, 12, 400), (1, 0, 3), (700, 640, 100)])
def test_right_and_wrong_answers_give_the_exact_mcnemar_test(won: int, lost: int, even: int) -> None:
    differences = [1.0] * won + [-1.0] * lost + [0.0] * even
    groups = own(len(differences))
    assert paired_p(differences, groups) == pytest.approx(stats.binomtest(won, won + lost).pvalue)
    less = stats.binomtest(won, won + lost, alternative="less").pvalue
    assert paired_p(differences, groups, alternative="less") == pytest.approx(less)


def test_whole_groups_are_flipped() -> None:
    differences, groups = [1, 1, 1, -1, 1, 0, 1], ["a", "a", "b", "c", "d", "d", "e"]
    sums = [2, 1, -1, 1, 1]
    drawn = [sum(s * abs(x) for s, x in zip(signs, sums, strict=True)) for signs in product((1, -1), repeat=5)]
    assert paired_p(differences, groups) == pytest.approx(np.mean([abs(one) >= 4 for one in drawn]))
    assert paired_p(differences, groups, alternative="less") == pytest.approx(np.mean([one <= 4 for one in drawn]))


def test_graded_scores_agree_with_scipy_and_depend_on_the_seed_alone() -> None:
    source = np.random.default_rng(3)
    differences = source.normal(0.05, 0.2, 80)
    drawn = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=source).pvalue
    assert paired_p(differences, own(80)) == pytest.approx(drawn, abs=0.01)
    assert paired_p(differences, own(80)) == paired_p(differences, own(80))
    assert paired_p(differences + 5, own(80)) == pytest.approx(1e-4)


def test_nothing_that_differs_is_no_evidence() -> None:
    assert paired_p([0.0] * 50, own(50)) == paired_p([], []) == paired_p([0.0], ["a"], alternative="less") == 1


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize(("rows", "discordance"), [(100, 0.1), (200, 0.2), (1000, 0.05)])
def test_what_is_called_detectable_is_seen_four_times_in_five(rows: int, discordance: float) -> None:
    least = detectable(discordance, rows, 0.025)
    source, passed = np.random.default_rng(5), 0
    apart = max(discordance, least)
    for _ in range(300):
        column = source.choice([1.0, -1.0, 0.0], p=[(apart + least) / 2, (apart - least) / 2, 1 - apart], size=rows)
        passed += bounded_ends(column[:, None], [(-1.0, 1.0)], own(rows), resamples=500)[0][0] > 0
    assert 0.75 < passed / 300 < 0.97


def test_more_is_seen_with_more_rows_and_never_with_none() -> None:
    seen = [detectable(0.1, rows, 0.025) for rows in (0, 5, 30, 100, 1000, 100_000)]
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 1
    assert seen[1] > 0.6
    assert seen[-1] < 0.004
    assert detectable_by([1.0], ["a"], 0.025) == 1


def test_rows_of_one_group_see_less() -> None:
    source = np.random.default_rng(8)
    once = source.choice([1.0, -1.0, 0.0], p=[0.1, 0.1, 0.8], size=100)
    alone = detectable_by(np.repeat(once, 4), own(400), 0.025)
    together = detectable_by(np.repeat(once, 4), [str(at // 4) for at in range(400)], 0.025)
    assert together == pytest.approx(detectable_by(once, own(100), 0.025), rel=0.05)
    assert together > 1.5 * alone


@pytest.mark.parametrize(("right", "rows"), [(30, 30), (29, 30), (97, 100), (150, 200), (0, 12)])
def test_shares_have_the_interval_of_clopper_and_pearson(right: int, rows: int) -> None:
    column = np.array([1.0] * right + [0.0] * (rows - right))
    found = bounded_ends(column[:, None], [(0.0, 1.0)], own(rows), resamples=20_000)[0]
    assert found == pytest.approx(clopper_pearson(right, rows), abs=0.006)
    expected = stats.binomtest(right, rows).proportion_ci(method="exact")
    assert clopper_pearson(right, rows) == pytest.approx((expected.low, expected.high), abs=1e-5)


def asked(rows: int) -> SplitRows:
    ids = own(rows)
    return SplitRows(ids, ids, [""] * rows, ["right"] * rows, ["{}"] * rows, ["file"] * rows)


def said(right: int, rows: int) -> Said:
    return Said(["right"] * right + ["wrong"] * (rows - right))


def test_a_comparison_says_how_likely_luck_is() -> None:
    found = measure(asked(100), {"candidate": said(90, 100), "champion": said(80, 100)}, [METRICS["exact_match"]], resamples=400)
    (one,) = found.comparisons
    assert (one.difference, one.discordant) == (0.1, 0.1)
    assert one.p == pytest.approx(2**-9)
    assert found.detectable["exact_match"] == pytest.approx(detectable(0.1, 100, 0.025), rel=0.1)


def test_subjects_that_never_differ_are_not_known_to_be_equal() -> None:
    found = measure(asked(100), {"candidate": said(90, 100), "champion": said(90, 100)}, [METRICS["exact_match"]])
    (one,) = found.comparisons
    assert (one.difference, one.p, one.discordant) == (0, 1, 0)
    assert one.low == pytest.approx(-(1 - 0.025 ** (1 / 100)), abs=0.006)  # a thirtieth may differ and yet never be drawn
    assert one.high == pytest.approx(-one.low, abs=0.006)


def test_net_wins_are_compared_like_a_metric() -> None:
    judged = [1.0] * 60 + [-1.0] * 20 + [0.0] * 10 + [None] * 10
    subjects = {"candidate": said(90, 100), "champion": said(90, 100), "base": said(0, 100)}
    found = measure(asked(100), subjects, [METRICS["exact_match"]], net_wins={"champion": judged, "base": [None] * 100})
    won = next(c for c in found.comparisons if c.metric == "net_wins")
    assert (won.other, won.rows) == ("champion", 90)
    assert won.difference == pytest.approx(40 / 90)
    assert won.low > 0.2
    assert won.discordant == pytest.approx(80 / 90)
    assert sum(c.metric == "net_wins" for c in found.comparisons) == 1
    with pytest.raises(Broken, match="no number in -1 to 1"):
        measure(asked(2), {"candidate": said(1, 2)}, [METRICS["exact_match"]], net_wins={"champion": [1.0, 2.0]})
    with pytest.raises(Broken, match="judgements"):
        measure(asked(2), {"candidate": said(1, 2)}, [METRICS["exact_match"]], net_wins={"champion": [1.0]})


def test_scores_that_are_there_already() -> None:
    values, comparisons = compare_scores({"candidate": [1.0] * 40, "base": [0.5] * 40}, own(40), "acc", resamples=300)
    assert (values["candidate"].value, values["base"].value) == (1, 0.5)
    assert [(c.other, c.difference, c.rows) for c in comparisons] == [("base", 0.5, 40)]
    nothing, none = compare_scores({"candidate": [], "base": []}, [], "acc", resamples=300)
    assert (nothing["candidate"].rows, none[0].low, none[0].high) == (0, -1, 1)
    for wrong in (float("nan"), 1.1, -0.1, float("inf")):
        with pytest.raises(Broken, match="no number in 0 to 1"):
            compare_scores({"candidate": [wrong, 1.0]}, own(2), "acc")
    with pytest.raises(Broken, match="scores of acc"):
        compare_scores({"candidate": [1.0]}, own(2), "acc")


def test_the_broken_slice_is_found_and_the_others_are_not() -> None:
    sources = [f"file {at % 10}" for at in range(600)]
    ids = own(600)
    rows = SplitRows(ids, ids, [""] * 600, ["right"] * 600, ["{}"] * 600, sources)
    source = np.random.default_rng(2)
    theirs = ["right" if one else "wrong" for one in source.random(600) < 0.8]
    ours = ["wrong" if at % 10 == 3 else theirs[at] if source.random() < 0.9 else "right" for at in range(600)]
    found = measure(rows, {"candidate": Said(ours), "champion": Said(theirs)}, [METRICS["exact_match"]], slices=["source"])
    adjusted = {s.value: s.adjusted for s in found.slices if s.subject == "champion"}
    worse = {s.value: s.worse for s in found.slices if s.subject == "champion"}
    assert min(adjusted, key=lambda value: adjusted[value]) == "file 3"
    assert adjusted["file 3"] < 1e-6 == pytest.approx(1e-6)
    assert all(p > 0.05 for value, p in adjusted.items() if value != "file 3")
    assert adjusted["file 3"] == pytest.approx(10 * worse["file 3"])
    assert all(s.adjusted is s.worse is s.comparison is None for s in found.slices if s.subject == "candidate")


def test_slices_of_a_field_without_end_take_no_longer_than_their_rows() -> None:
    rows = 4000
    ids = own(rows)
    meta = [f'{{"user": "u{at}"}}' for at in range(rows)]
    test = SplitRows(ids, ids, [""] * rows, ["right"] * rows, meta, ["file"] * rows)
    both = {"candidate": said(3000, rows), "champion": said(2900, rows)}
    found = measure(test, both, [METRICS["exact_match"]], slices=["user"], resamples=200)
    assert len({s.value for s in found.slices}) == 30


def test_metrics_without_a_score_a_row_pass_no_more_by_luck() -> None:
    source, labels, passed = np.random.default_rng(3), np.array(list("abcd")), 0
    for _ in range(150):
        expected = source.choice(labels, 100)
        right, apart, ours = source.random(100) < 0.9, source.random(100) < 0.06, source.random(100) < 0.5
        wrong = labels[(np.searchsorted(labels, expected) + source.integers(1, 4, 100)) % 4]
        both = {
            name: Said(np.where(np.where(apart, won, right), expected, wrong).tolist())
            for name, won in (("candidate", ours), ("champion", ~ours))
        }
        ids = own(100)
        rows = SplitRows(ids, ids, [""] * 100, expected.tolist(), ["{}"] * 100, ["file"] * 100)
        (one,) = measure(rows, both, [METRICS["macro_f1"]], resamples=300).comparisons
        passed += one.low > 0
        assert one.p is one.discordant is None
    assert passed <= 6  # 2.5 in 100 of 150 are 3.75


def test_macro_f1_that_never_differed_is_not_known_to_be_equal() -> None:
    found = measure(asked(100), {"candidate": said(90, 100), "champion": said(90, 100)}, [METRICS["macro_f1"]], resamples=300)
    (one,) = found.comparisons
    assert (one.low, one.high) == pytest.approx((-(1 - 0.025**0.01), 1 - 0.025**0.01))
