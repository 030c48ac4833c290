"""What an epoch draws when data are mixed: shares by weight, temperature, cap and age; no row more often than its share needs."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Misuse
from pipeline.modeling.texts.mixing import MixedOrder, new_order
from pipeline.modeling.texts.rows import Encoded, EpochOrder, Row, of_items
from pipeline.params import StageParams


def rows(tasks: str, old: str = "", lengths: list[int] | None = None) -> Encoded:
    """An item a letter: its task; `old` has an x where it is old."""
    items = [[Row([1] * (lengths[n] if lengths else 3), [])] for n in range(len(tasks))]
    encoded = of_items(items)
    encoded.tasks = list(tasks)
    encoded.old = np.array([mark == "x" for mark in old.ljust(len(tasks))])
    return encoded


def stage(seed: int = 7, batch_size: int = 4, **mix: object) -> StageParams:
    return StageParams.model_validate({"seed": seed, "batch_size": batch_size, "mix": mix})


def drawn(order: EpochOrder, epoch: int = 0) -> list[int]:
    order.epoch = epoch
    return list(order)


def shares(encoded: Encoded, order: EpochOrder, epoch: int = 0) -> Counter[str]:
    return Counter(encoded.tasks[n] for n in drawn(order, epoch))


MIXES = st.fixed_dictionaries(
    {
        "weights": st.dictionaries(st.sampled_from("abc"), st.floats(0, 10), max_size=3),
        "temperature": st.floats(1, 50),
        "caps": st.dictionaries(st.sampled_from("abc"), st.integers(1, 40), max_size=3),
        "replay": st.none() | st.just(1.0) | st.floats(0, 0.99),
    }
)
TASKS = st.lists(st.sampled_from("abc"), min_size=1, max_size=120).map(lambda drawn: "abc" + "".join(drawn))


@settings(max_examples=150, deadline=None)
@given(
    tasks=TASKS,
    marks=st.text("x ", min_size=0, max_size=123),
    mix=MIXES,
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 50),
)
def test_whatever_the_mix_each_epoch_is_its_shares_and_no_row_comes_more_often_than_they_need(
    tasks, marks, mix, seed, epoch
) -> None:
    encoded, said = rows(tasks, marks), stage(seed, **mix)
    try:
        order = MixedOrder(encoded, said)
    except Misuse:
        assert all(mix["weights"].get(task, 1) == 0 for task in "abc")
        return
    found = drawn(order, epoch)
    assert len(found) == len(order) == sum(order.counts.values())
    assert found == drawn(MixedOrder(encoded, said), epoch), "a function of seed and epoch"
    times = Counter(found)
    for pool in order.pools:
        mine = [times[n] for n in pool.places.tolist()]
        assert sum(mine) == pool.quota
        assert max(mine) - min(mine) <= 1
        assert len(pool.places) <= mix["caps"].get(pool.task, len(tasks))
    assert {pool.task for pool in order.pools} <= {task for task in tasks if mix["weights"].get(task, 1) > 0}


@settings(max_examples=60, deadline=None)
@given(tasks=TASKS, weight=st.floats(0.1, 5), temperature=st.floats(1, 20))
def test_over_epochs_every_row_of_a_task_comes_as_often_as_any_other(tasks: str, weight: float, temperature: float) -> None:
    encoded = rows(tasks)
    order = MixedOrder(encoded, stage(weights={"a": weight}, temperature=temperature))
    times: Counter[int] = Counter()
    for epoch in range(7):
        times.update(drawn(order, epoch))
    for pool in order.pools:
        mine = [times[n] for n in pool.places.tolist()]
        assert max(mine) - min(mine) <= 1


def test_weights_count_beside_the_number_of_rows_and_zero_leaves_a_task_out() -> None:
    encoded = rows("a" * 60 + "b" * 30 + "c" * 10)
    assert shares(encoded, MixedOrder(encoded, stage(weights={"b": 2}))) == {"a": 46, "b": 46, "c": 8}
    assert shares(encoded, MixedOrder(encoded, stage(weights={"a": 0}))) == {"b": 30, "c": 10}


def test_a_high_temperature_evens_tasks_out() -> None:
    encoded = rows("a" * 900 + "b" * 90 + "c" * 9)
    by_temperature = [shares(encoded, MixedOrder(encoded, stage(temperature=t, weights={"a": 1.0}))) for t in (1.0, 2.0, 1000.0)]
    assert by_temperature[0] == {"a": 900, "b": 90, "c": 9}
    root = [30.0, 90**0.5, 3.0]
    assert [by_temperature[1][task] / 999 for task in "abc"] == pytest.approx([part / sum(root) for part in root], abs=0.001)
    assert max(by_temperature[2].values()) - min(by_temperature[2].values()) <= 8


def test_a_cap_takes_the_same_rows_each_epoch_and_others_by_another_seed() -> None:
    encoded = rows("a" * 50 + "b" * 5)
    order = MixedOrder(encoded, stage(caps={"a": 10}))
    assert sorted(drawn(order, 0)) == sorted(drawn(order, 3))
    assert shares(encoded, order) == {"a": 10, "b": 5}
    assert sorted(drawn(order)) != sorted(drawn(MixedOrder(encoded, stage(seed=8, caps={"a": 10}))))


def test_with_replay_an_epoch_has_each_newer_row_once_and_old_rows_for_their_share() -> None:
    encoded = rows("a" * 1000, "x" * 900)
    order = MixedOrder(encoded, stage(replay=0.3))
    for epoch in range(3):
        found = Counter(drawn(order, epoch))
        assert [found[n] for n in range(900, 1000)] == [1] * 100
        assert sum(found[n] for n in range(900)) == 43  # 43 of 143 are 30 %
    first, second = (set(drawn(order, epoch)) for epoch in (0, 1))
    assert first & second == set(range(900, 1000)), "other old rows come in each epoch until all have come"
    assert order.counts == {"a (new)": 100, "a (old)": 43}


def test_few_old_rows_are_repeated_as_their_share_needs() -> None:
    encoded = rows("a" * 110, "x" * 10)
    times = Counter(drawn(MixedOrder(encoded, stage(replay=0.5))))
    assert [times[n] for n in range(10)] == [10] * 10
    assert [times[n] for n in range(10, 110)] == [1] * 100


def test_replay_and_weights_hold_together() -> None:
    encoded = rows("ab" * 100, "x" * 100)
    order = MixedOrder(encoded, stage(replay=0.5, weights={"a": 3}))
    assert order.counts == {"a (new)": 75, "b (new)": 25, "a (old)": 75, "b (old)": 25}


@pytest.mark.parametrize(("marks", "said"), [("", "newer"), ("x" * 20, "old")])
def test_replay_says_what_it_does_when_all_rows_are_new_or_old(marks: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        order = MixedOrder(rows("a" * 20, marks), stage(replay=0.3))
    assert sorted(drawn(order)) == list(range(20))
    assert f"all 20 rows are {said}, so all count alike" in caplog.text


@pytest.mark.parametrize(("replay", "expected"), [(0.0, set(range(5, 20))), (1.0, set(range(5)))])
def test_a_share_of_nothing_or_all_leaves_the_others_out(replay: float, expected: set[int]) -> None:
    assert set(drawn(MixedOrder(rows("a" * 20, "x" * 5), stage(replay=replay)))) == expected


@pytest.mark.parametrize("key", ["weights", "caps"])
def test_tasks_that_are_not_there_are_misuse_that_names_those_there_are(key: str) -> None:
    with pytest.raises(Misuse, match="have no source 'd'") as unknown:
        MixedOrder(rows("abc"), stage(**{key: {"d": 2}}))
    assert (unknown.value.where, unknown.value.fix) == (f"train.mix.{key}", "there are: a, b, c")


def test_a_field_that_no_row_has_is_misuse() -> None:
    encoded = rows("abc")
    encoded.tasks = [""] * 3
    with pytest.raises(Misuse, match="no row to learn from has the field 'topic'"):
        MixedOrder(encoded, stage(by="topic", temperature=2.0))


def test_a_mix_that_leaves_nothing_is_misuse() -> None:
    with pytest.raises(Misuse, match="weight 0"):
        MixedOrder(rows("aab"), stage(weights={"a": 0, "b": 0}))


def test_a_plain_mix_is_the_plain_order() -> None:
    encoded = rows("ab" * 30, lengths=list(range(1, 61)))
    for said in (stage(), stage(by="kind")):
        order = new_order(encoded, said)
        assert not isinstance(order, MixedOrder)
        assert drawn(order, 2) == drawn(EpochOrder(encoded.lengths, batch_size=4, seed=7), 2)
    assert isinstance(new_order(encoded, stage(replay=0.3)), MixedOrder)


def test_drawn_rows_are_grouped_by_length_so_that_little_is_padded() -> None:
    random = np.random.default_rng(1)
    lengths = random.integers(1, 400, 4000).tolist()
    encoded = rows("ab" * 2000, lengths=lengths)
    order = MixedOrder(encoded, stage(batch_size=16, weights={"a": 2}))
    steps = np.array_split([lengths[n] for n in drawn(order)], len(order) // 16)
    padded = sum(max(step) * len(step) for step in steps) / sum(map(sum, steps))
    assert padded < 1.1


def test_a_replay_that_would_make_an_epoch_endless_is_refused_and_all_old_rows_are_not() -> None:
    with pytest.raises(ValueError, match=r"at most 0\.99, or 1"):
        stage(replay=0.9999)
    assert stage(replay=1).mix.replay == 1
