"""What vectors and texts say of a dataset: topics, oddities, picks, curves, evidence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.exploring.anomalies import THRESHOLD, oddness
from pipeline.exploring.evidence import Neighbours, disagreement, lift, word_origins
from pipeline.exploring.learning_curve import classifier, neighbour, probe
from pipeline.exploring.mapping import MOST, lay_out
from pipeline.exploring.picking import doubt_by_labels, doubt_by_topics, pick
from pipeline.exploring.topics import Vectors, find_topics


def blobs(*sizes: int, spread: float = 0.05, hidden: int = 16, seed: int = 1) -> tuple[Vectors, list[int]]:
    """Unit vectors in as many groups as `sizes` has numbers, and the group of each."""
    generator = np.random.default_rng(seed)
    centres = np.linalg.qr(generator.standard_normal((hidden, hidden)))[0][: len(sizes)]
    of = [group for group, size in enumerate(sizes) for _ in range(size)]
    found = centres[of] + spread * generator.standard_normal((len(of), hidden))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32), of


def equal(a: str, b: str) -> float:
    return float(a == b)


def test_topics_are_the_groups_that_lie_together_largest_first_and_named_by_their_words() -> None:
    vectors, of = blobs(60, 40, 25, 15)
    words = ["refund money back", "parcel lost courier", "password reset login", "invoice tax number"]
    topics = find_topics(vectors, [f"please {words[group]} {i}" for i, group in enumerate(of)])
    assert len(topics.words) == 4
    assert topics.of.tolist() == of
    for group, text in enumerate(words):
        assert set(topics.words[group]) <= set(text.split()), "a word that all topics share tells nothing"
        assert topics.words[group]
    assert topics.silhouette > 0.7


def test_topics_of_few_texts_of_many_and_of_texts_without_words() -> None:
    vectors, of = blobs(3, 2)
    assert find_topics(vectors, ["a b"] * 5).of.tolist() == [0] * 5
    more, _ = blobs(30, 30)
    wordless = find_topics(more, ["123"] * 60, count=2)
    assert [wordless.name(i) for i in range(2)] == ["topic 1", "topic 2"]
    again = find_topics(more, ["123"] * 60, count=2)
    assert again.of.tolist() == wordless.of.tolist()
    del of


def test_what_has_no_neighbours_is_odd() -> None:
    vectors, _ = blobs(80, 80)
    stray = -vectors[:1]
    scores = oddness(np.concatenate([vectors, stray]))
    assert int(np.argmax(scores)) == 160
    assert scores[-1] > THRESHOLD
    assert (scores[:-1] > THRESHOLD).mean() < 0.05
    assert oddness(vectors[:2]).tolist() == [0.0, 0.0]
    assert not oddness(np.repeat(vectors[:1], 20, 0)).any(), "equal texts are not odd"


def test_doubt_is_greatest_between_two_labels() -> None:
    vectors, of = blobs(40, 40)
    between = vectors[0] + vectors[-1]
    between /= np.linalg.norm(between)
    asked = np.stack([vectors[0], between, vectors[-1]])
    doubts = doubt_by_labels(asked, vectors, [str(group) for group in of])
    assert doubts[1] > 0.5 > max(doubts[0], doubts[2])
    centres = np.stack([vectors[:40].mean(0), vectors[40:].mean(0)])
    assert int(np.argmax(doubt_by_topics(asked, centres))) == 1
    assert doubt_by_labels(asked, vectors, ["one"] * 80).tolist() == [1.0] * 3


def test_picks_are_spread_out_and_avoid_what_is_known() -> None:
    vectors, of = blobs(50, 50, 50, spread=0.02)
    chosen = pick(vectors, np.ones(150), 3)
    assert {of[i] for i in chosen} == {0, 1, 2}
    assert len(set(pick(vectors, np.ones(150), 500))) == 150, "none twice, and no more than there are"
    beside_known = pick(vectors, np.ones(150), 2, known=vectors[:50])
    assert 0 not in {of[i] for i in beside_known}
    doubtful = np.full(150, 0.01)
    doubtful[77] = 1.0
    assert pick(vectors, doubtful, 1) == [77]


def test_a_map_keeps_neighbours_together_and_its_size_is_bounded() -> None:
    vectors, of = blobs(60, 60)
    places = lay_out(vectors)
    assert places.shape == (120, 2)
    near = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(120) * 1e9
    same = np.array(of)[near.argmin(1)] == np.array(of)
    assert same.mean() > 0.95
    assert lay_out(vectors[:5]).shape == (5, 2)
    assert lay_out(vectors[:1]).tolist() == [[0.0, 0.0]]
    with pytest.raises(ValueError, match="at most"):
        lay_out(np.zeros((MOST + 1, 4), np.float32))


def test_the_curve_falls_and_says_what_twice_the_data_would_bring() -> None:
    vectors, of = blobs(*[60] * 6, spread=0.35, seed=3)
    curve = probe(len(of), classifier(vectors, [str(group) for group in of]), repeats=4)
    means = [sum(errors) / len(errors) for errors in curve.errors]
    assert means[0] > means[-1]
    assert curve.last == pytest.approx(means[-1])
    assert curve.doubled
    low, middle, high = curve.doubled
    assert 0 <= low <= middle <= high <= means[0]
    assert middle <= means[-1] + 0.02


def test_the_nearest_row_answers_when_there_are_no_labels() -> None:
    vectors, of = blobs(40, 40)
    curve = probe(80, neighbour(vectors, [f"answer {group}" for group in of], equal), repeats=3)
    assert curve.last == 0.0
    random = np.random.default_rng(1).permutation(80)
    lost = probe(80, neighbour(vectors, [f"answer {i}" for i in random], equal), repeats=3)
    assert lost.last == 1.0


def test_evidence_tells_a_task_from_noise() -> None:
    vectors, of = blobs(60, 60)
    found = Neighbours.find(vectors)
    assert all(of[near] == own for near, own in zip(found.nearest.tolist(), of, strict=True))
    told = [f"answer {group}" for group in of]
    mean, low, high = lift(found, told, equal)
    assert low <= mean <= high
    assert low > 0.3
    noise = [f"answer {i % 2}" for i in np.random.default_rng(2).permutation(120)]
    assert lift(found, noise, equal)[1] <= 0.05
    assert disagreement(found, told, equal) == (120, 0.0)
    twins, unlike = disagreement(found, noise, equal)
    assert twins == 120
    assert 0.3 < unlike < 0.7


def test_words_of_answers_come_from_the_prompt_a_neighbour_or_nowhere() -> None:
    vectors, _ = blobs(2)
    found = Neighbours.find(vectors)
    shares = word_origins(["order 17", "order 18"], ["your order 17 zebra", "your order 18 giraffe"], found)
    assert shares == pytest.approx((4 / 8, 2 / 8, 2 / 8))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(1, 10))
def test_neighbours_never_are_the_row_itself(rows: int, seed: int) -> None:
    vectors, _ = blobs(rows, seed=seed)
    found = Neighbours.find(vectors)
    assert all(near != own for own, near in enumerate(found.nearest.tolist()))
