"""Metrics against tables worked by hand and against scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from asked_rows import value_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from pipeline.errors import Broken, Misuse
from pipeline.evaluation.likelihoods import WEIGHED
from pipeline.evaluation.metrics import METRICS, exact_match, json_valid, macro_f1, metric, slice_metric, token_f1
from pipeline.params import EvaluateParams

BOUND = {"json_schema", "format_adherence", "no_personal_data", "calibration", "brier"}
"""Metrics that need more than texts: settings, or confidences."""
SAID = sorted(name for name, m in METRICS.items() if not m.kinds & WEIGHED and name not in BOUND)
"""Metrics of what was answered; those of what was weighed are test_likelihoods.py's."""
LABELS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcdef")), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [
        ("a b", "a b", 1),
        (" a\n b\t", "a b", 1),
        ("a b", "A b", 0),
        ("a b", "a b.", 0),
        ("", "  ", 1),
        ("a", "", 0),
        ("a\u00a0b", "a b", 1),
    ],
)
def test_exact_match(expected: str, answer: str, score: float) -> None:
    assert exact_match(expected, answer) == score


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [
        ("the cat sat", "the cat sat", 1),
        ("the cat sat", "The CAT, sat!", 1),
        ("the cat sat", "cat", 2 * 1 * (1 / 3) / (1 + 1 / 3)),
        ("a a b", "a b b", 2 / 3),
        ("a", "b", 0),
        ("", "", 1),
        ("!!", "", 1),
        ("a", "", 0),
        ("", "a", 0),
        ('{"intent":"refund","order":17}', '{"intent": "refund", "order": 18}', 3 / 4),
        ("返金", "返品", 1 / 2),
        ("注文ab", "ab", 2 * 1 * (1 / 3) / (1 + 1 / 3)),
        ("Straße", "STRASSE", 1),
    ],
)
def test_token_f1(expected: str, answer: str, score: float) -> None:
    assert token_f1(expected, answer) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"a": 1}', 1),
        ("[]", 1),
        ("3", 1),
        (" null\n", 1),
        ("", 0),
        ("{'a': 1}", 0),
        ('{"a": 1} thanks', 0),
        ('{"a": NaN}', 0),
        ('{"a": 1, "a": 2}', 0),
        ('{"a": {"b": 1, "b": 1}}', 0),
        ("[" * 100_000, 0),
        ("9" * 5000, 0),
    ],
)
def test_json_valid(answer: str, score: float) -> None:
    assert json_valid("", answer) == score


@given(LABELS)
def test_accuracy_and_macro_f1_are_scikit_learns(rows: list[tuple[str, str]]) -> None:
    expected, answers = [e for e, _ in rows], [a for _, a in rows]
    reference = f1_score(expected, answers, labels=sorted(set(expected)), average="macro", zero_division=0)
    assert macro_f1(expected, answers) == pytest.approx(reference, abs=1e-8)
    assert value_of("accuracy", expected, answers) == pytest.approx(accuracy_score(expected, answers), abs=1e-8)


def test_macro_f1_by_hand() -> None:
    # a: precision 1/2, recall 1/1. b: precision 1/1, recall 1/2. c is never found. "x" is no label and makes no class.
    assert macro_f1(["a", "b", "b", "c"], ["a", "a", "b", "x"]) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


@settings(deadline=None)  # libraries are imported by the first example that needs them
@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=20), st.sampled_from(SAID))
def test_every_metric_is_a_finite_share(rows: list[tuple[str, str]], name: str) -> None:
    expected, answers = [e for e, _ in rows], [a for _, a in rows]
    value = value_of(name, expected, answers)
    assert math.isfinite(value)
    assert 0 <= value <= 1
    if rows and name not in ("json_valid", "bleu"):
        assert value_of(name, expected, expected) == pytest.approx(1)


def test_every_metric_that_params_allow_is_there() -> None:
    allowed = EvaluateParams.model_json_schema()["properties"]["metrics"]["items"]["enum"]
    assert set(allowed) == set(METRICS)


def test_every_metric_without_scores_of_rows_has_one_that_stands_in_for_it() -> None:
    for one in METRICS.values():
        stand_in = slice_metric(one)
        assert stand_in.row is not None
        assert stand_in.kinds == one.kinds
        assert (stand_in is one) == (one.row is not None)


def test_wrong_use_is_said() -> None:
    with pytest.raises(Misuse, match="no metric 'blue'"):
        metric("blue")
    with pytest.raises(Broken, match="1 answers were given to 2 rows"):
        value_of("accuracy", ["a", "b"], ["a"])
    with pytest.raises(Broken, match="1 answers were given to 2 rows"):
        macro_f1(["a", "b"], ["a"])


def test_the_page_on_metrics_has_each_with_the_rows_that_it_counts() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in page.splitlines() if line.startswith("| `")]
    assert {name.strip("`"): set(kinds.split(", ")) for name, kinds in cells} == {m.name: set(m.kinds) for m in METRICS.values()}
