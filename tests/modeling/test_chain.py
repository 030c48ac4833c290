"""A chain of training stages: what each begins from, what is kept of it, what is not done twice, what names its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from modeling_kit import Pulled, Remembering, pull_at, run, train_params

from pipeline.domain.model import TrainingRun
from pipeline.domain.record import describe_files
from pipeline.errors import CapReached, Misuse
from pipeline.modeling.chain import digest_folder

CHAIN = {"max_steps": 4, "stages": [{"name": "first"}, {"name": "second", "learning_rate": 0.02}]}


@pytest.fixture(scope="module")
def chained(chat_data, tiny_base, tmp_path_factory) -> tuple[Path, TrainingRun, Remembering]:
    home, tracker = tmp_path_factory.mktemp("chain"), Remembering()
    return home, run(chat_data, tiny_base, home, params=train_params(**CHAIN), tracker=tracker), tracker


def test_each_stage_names_what_it_began_from_and_the_last_one_is_the_result(chained) -> None:
    home, record, _ = chained
    first, second = record.stages
    assert (first.start, first.start_from) == (record.base.digest, "base")
    assert (second.start, second.start_from) == (first.adapter_digest, "stage:first")
    assert record.adapter_digest == second.adapter_digest == digest_folder(home / "out" / "adapter")
    assert digest_folder(home / "out" / "stages" / "first" / "adapter") == first.adapter_digest
    assert record.steps == 8
    assert not list((home / "checkpoints").iterdir()), "nothing is left to resume"


def test_curves_and_tracked_numbers_tell_the_stages_apart(chained) -> None:
    home, _, tracker = chained
    points = [json.loads(line) for line in (home / "out" / "curves.jsonl").read_text().splitlines()]
    assert {point["stage"] for point in points} == {"first", "second"}
    assert [step for step, _ in tracker.curve("first.loss")] == [step for step, _ in tracker.curve("second.loss")] == [2, 4]
    assert tracker.params["train.second.learning_rate"] == 0.02


def test_a_stage_that_was_done_is_not_done_again_when_a_later_one_is_interrupted(chained, chat_data, tiny_base, tmp_path) -> None:
    _, whole, _ = chained
    told: list[int] = []
    stages = iter([False, True])
    second = False

    def progress(what: str, done: int, total: int) -> None:
        nonlocal second
        if what == "loading the base model":
            second = next(stages)
        if what == "training" and second:
            pull_at(2)(what, done, total)

    with pytest.raises(Pulled):
        run(chat_data, tiny_base, tmp_path, params=train_params(**CHAIN), progress=progress)
    again = run(
        chat_data,
        tiny_base,
        tmp_path,
        params=train_params(**CHAIN),
        progress=lambda what, done, _: told.append(done) if what == "training" else None,
    )
    assert again == whole
    assert 0 < len(told) <= 4, "only the second stage was trained"


def test_a_finished_stage_that_was_damaged_is_done_again(chained, chat_data, tiny_base, tmp_path) -> None:
    _, whole, _ = chained
    loads = 0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal loads
        loads += what == "loading the base model"
        if loads == 2:
            raise Pulled

    with pytest.raises(Pulled):
        run(chat_data, tiny_base, tmp_path, params=train_params(**CHAIN), progress=progress)
    (adapter,) = tmp_path.glob("checkpoints/*/adapter")
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert run(chat_data, tiny_base, tmp_path, params=train_params(**CHAIN)) == whole


def test_a_cap_stops_at_a_checkpoint_and_a_higher_one_goes_on_to_the_same_end(chained, chat_data, tiny_base, tmp_path) -> None:
    _, whole, _ = chained
    with pytest.raises(CapReached, match="nothing is lost"):
        run(chat_data, tiny_base, tmp_path, params=train_params(**CHAIN, max_hours=1e-6))
    again = run(chat_data, tiny_base, tmp_path, params=train_params(**CHAIN, max_hours=5.0))
    assert again.adapter == whole.adapter
    assert [stage.adapter_digest for stage in again.stages] == [stage.adapter_digest for stage in whole.stages]


def test_a_stage_begins_from_the_base_when_nobody_is_champion(chat_data, tiny_base, tmp_path) -> None:
    record = run(chat_data, tiny_base, tmp_path, params=train_params(max_steps=2, start="champion"))
    assert record.stages[0].start_from == "base"


def test_a_folder_that_is_not_there_is_named(chat_data, tiny_base, tmp_path) -> None:
    with pytest.raises(Misuse, match=r"there is no folder \./elsewhere"):
        run(chat_data, tiny_base, tmp_path, params=train_params(max_steps=1, start="./elsewhere"))


def test_nothing_that_looks_like_a_result_is_left_by_a_chain_that_fails(chained, chat_data, tiny_base, tmp_path) -> None:
    run(chat_data, tiny_base, tmp_path, params=train_params(max_steps=2))
    assert describe_files(tmp_path / "out")
    with pytest.raises(Pulled):
        run(chat_data, tiny_base, tmp_path, params=train_params(**CHAIN), progress=pull_at(2))
    assert describe_files(tmp_path / "out") == ()
