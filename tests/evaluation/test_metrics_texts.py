"""ROUGE-L, chrF, BLEU and style against the libraries that define them, and by hand."""

from __future__ import annotations

from math import log2, sqrt

import pytest
from asked_rows import asked, statistic_of, value_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from pipeline.evaluation.metrics.texts import chrf, rouge_l, style_match
from pipeline.evaluation.statistics import paired_bootstrap, point

WORDS = st.lists(st.sampled_from(["the", "a", "cat", "cats", "sat", "on", ",", ".", "It's", "12"]), min_size=1, max_size=14).map(
    " ".join
)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=25)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_rouge_l_is_rouge_scores(expected: str, answer: str) -> None:
    assume(any(c.isalnum() for c in expected + answer))  # of texts without a word, ours says whether both are so
    reference = RougeScorer(["rougeL"]).score(expected, answer)["rougeL"].fmeasure
    assert rouge_l(expected, answer) == pytest.approx(reference)


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [
        ("police killed the gunman", "police kill the gunman", 3 / 4),  # the example of Lin 2004
        ("police killed the gunman", "the gunman kill police", 2 / 4),
        ("a b c d", "d c b a", 1 / 4),
        ("返金します", "返金しました", 2 * 4 / (5 + 6)),
        ("", "", 1),
        ("a", "", 0),
        ("Straße", "STRASSE", 1),
    ],
)
def test_rouge_l_by_hand(expected: str, answer: str, score: float) -> None:
    assert rouge_l(expected, answer) == pytest.approx(score)


@settings(deadline=None)
@given(PAIRS)
def test_bleu_of_a_corpus_is_sacrebleus(rows: list[tuple[str, str]]) -> None:
    expected, answers = [e for e, _ in rows], [a for _, a in rows]
    assert value_of("bleu", expected, answers) == pytest.approx(
        BLEU(effective_order=True).corpus_score(answers, [expected]).score / 100, abs=1e-8
    )
    statistic = statistic_of("bleu", expected, answers)
    if statistic.contributions[:, 9].sum() > 0:  # some answer has four tokens: then the effective order is the usual one
        assert point(statistic) == pytest.approx(BLEU().corpus_score(answers, [expected]).score / 100, abs=1e-8)


def test_a_resample_of_bleu_is_the_bleu_of_its_rows() -> None:
    expected = ["the cat sat on the mat", "a dog ran fast over it", "it is what it is now"]
    answers = ["the cat sat on a mat", "a dog ran", ""]
    statistic = statistic_of("bleu", expected, answers)
    drawn = [0, 0, 1, 2]
    found = statistic.value(statistic.contributions[drawn].sum(axis=0, keepdims=True))[0]
    whole = BLEU(effective_order=True).corpus_score([answers[at] for at in drawn], [[expected[at] for at in drawn]])
    assert found == pytest.approx(whole.score / 100)
    assert statistic.value(0 * statistic.contributions[:1])[0] == 0  # of no rows: finite
    interval = paired_bootstrap({"bleu": statistic}, ["1", "2", "3"], resamples=300).values["bleu"]
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_short_right_answers_are_right_for_bleu() -> None:
    assert value_of("bleu", ["refund", "a kettle"], ["refund", "a kettle"]) == 1
    assert value_of("bleu", ["refund"], [""]) == 0


@settings(deadline=None)
@given(WORDS, WORDS)
def test_chrf_is_sacrebleus(expected: str, answer: str) -> None:
    assert chrf(expected, answer) == pytest.approx(CHRF().sentence_score(answer, [expected]).score / 100)


def test_chrf_of_nothing() -> None:
    assert chrf(" ", "") == 1
    assert chrf("a", "") == chrf("", "a") == 0


@pytest.mark.parametrize(
    ("expected", "same", "other"),
    [
        ("Hello, Ann! We refund it.", "Howdy, Bob! They fixed us.", "hello ann we refund it"),
        ("- one\n- two\n- three", "- alpha\n- beta\n- gamma", "one, two and three"),
        ('{"intent":"refund","order":17}', '{"reason":"repair","item":2}', "The intent is a refund of order 17."),
        ("We are sorry. It ships.", "You were right. He knows.", "WE ARE SORRY!!! IT SHIPS!!!"),
        ("返金します。", "交換します。", "We refund it."),
    ],
)
def test_style_is_how_not_what(expected: str, same: str, other: str) -> None:
    assert style_match(expected, same) == pytest.approx(1)
    assert style_match(expected, other) < 0.7
    assert style_match(expected, other) == pytest.approx(style_match(other, expected))


def test_style_by_hand() -> None:
    # "ab" is ^a$, "1" is ^0$: they share nothing. "a b" is ^a, "a a", a$.
    assert style_match("ab", "1") == 0
    assert style_match("", "") == 1
    # p = (^a$: 1), q = (^a_: 1/3, a_a: 1/3, _a$: 1/3): nothing shared.
    assert style_match("ab", "a b") == 0
    # p = ^a_, a_a, _a$; q = ^a_, a_a, _a_, a_a, _a$: JSD by hand.
    p, q = {"1": 1 / 3, "2": 1 / 3, "3": 1 / 3}, {"1": 1 / 5, "2": 2 / 5, "3": 1 / 5, "4": 1 / 5}
    middle = {gram: (p.get(gram, 0) + q[gram]) / 2 for gram in q}
    divergence = sum(side[g] * log2(side[g] / middle[g]) for side in (p, q) for g in side) / 2
    assert style_match("a b", "a b c") == pytest.approx(1 - sqrt(divergence))


def test_rows_are_cut_by_length_and_language() -> None:
    inputs = ["x" * n for n in (1, 2, 3, 4, 50, 60, 70, 80)]
    rows = asked([""] * 8, inputs)
    assert rows.field("length") == [
        *["1-3 characters"] * 3,
        *["4-50 characters"] * 2,
        *["60-70 characters"] * 2,
        "80 characters",
    ]
    assert asked(["", ""], ["same", "same"]).field("length") == ["4 characters"] * 2
    assert asked([]).field("length") == []
    said = [
        '[{"content":"Answer in English.","role":"system"},'
        '{"content":"Wo ist meine Bestellung? Ich warte seit Wochen.","role":"user"}]',
        '[{"content":"Where is the order that I placed last week?","role":"user"}]',
    ]
    assert asked(["", ""], said).field("language") == ["de", "en"]
