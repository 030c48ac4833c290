"""A chain of training stages in params: what stages share, and what is refused, with the reason and the place."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.data import Task
from pipeline.domain.tuning import Objective, Tuner, refusal
from pipeline.params import Params, TrainParams
from pipeline.params.chains import chain_problems

SCORER = {"name": "scorer", "objective": "reward"}
PPO = {"objective": "ppo", "start": "stage:sft", "ppo": {"rewards": [{"stage": "scorer"}]}}


def problems(**said: Any) -> list[str]:
    return chain_problems(TrainParams(**said), Task.GENERATE)


def test_a_section_without_stages_is_one_stage_of_the_usual_objective() -> None:
    (stage,) = TrainParams(rank=3).chain(Task.CLASSIFY)
    assert (stage.name, stage.objective, stage.rank) == ("classify", Objective.CLASSIFY, 3)


def test_stages_take_the_keys_that_they_do_not_give_from_the_section() -> None:
    shared = TrainParams(
        rank=3, dpo={"beta": 0.3}, stages=[{"objective": "sft", "rank": 5}, {"objective": "dpo", "dpo": {"loss": "ipo"}}]
    )
    sft, dpo = shared.chain(Task.GENERATE)
    assert (sft.rank, dpo.rank) == (5, 3)
    assert (dpo.dpo.beta, dpo.dpo.loss) == (0.3, "ipo")


def test_stages_of_one_objective_are_told_apart() -> None:
    names = [stage.name for stage in TrainParams(stages=[{"objective": "sft"}, {"objective": "sft"}]).chain(Task.GENERATE)]
    assert names == ["sft", "sft-2"]


def test_what_was_read_reads_the_same_again() -> None:
    chain = TrainParams(stages=[{"objective": "sft"}, SCORER, PPO], rank=2)
    assert TrainParams.model_validate(chain.model_dump(mode="json")) == chain
    assert chain_problems(chain, Task.GENERATE) == []


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("tuner", Tuner)
def test_what_cannot_be_combined_is_refused_with_the_reason(objective: Objective, tuner: Tuner) -> None:
    task = Task.CLASSIFY if objective is Objective.CLASSIFY else Task.GENERATE
    said = {"objective": objective, "tuner": tuner, "ppo": {"rewards": [{"rule": "json_valid"}]}}
    found = [text for text in chain_problems(TrainParams(**said), task) if "cannot be learned by" in text]
    reason = refusal(objective, tuner)
    assert found == ([] if reason is None else [f"train: {objective} cannot be learned by {tuner}: {reason}"])


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"objective": "classify"}, "the objective classify does not fit the task generate"),
        ({"objective": "sft", "kinds": ["text"]}, "kinds: sft cannot learn from text rows"),
        ({"objective": "reward"}, "the last stage is a reward model"),
        ({"objective": "ppo"}, "ppo.rewards: name a reward stage"),
        (
            {"objective": "ppo", "ppo": {"rewards": [{"stage": "scorer"}]}},
            "no earlier stage of the objective reward is called 'scorer'",
        ),
        ({**PPO, "batch_size": 24}, "ppo.rollouts: 64 is no multiple of the 24 rows of an optimizer step"),
        ({**PPO, "machine": {"processes": 2, "shard": True}}, "ppo answers with the whole model between steps"),
        ({"machine": {"shard": True}}, "there is one process, so nothing to spread over"),
        ({"tuner": "qlora", "machine": {"processes": 2, "shard": True}}, "4-bit weights are blocks that cannot be spread"),
        ({"ewc": {"weight": 1.0}, "machine": {"processes": 2, "shard": True}}, "ewc's penalty is reckoned over whole weights"),
        ({"start": "stage:sft"}, "train.start: no earlier stage is called 'sft'"),
        ({"stages": [{"objective": "sft"}, SCORER, {**PPO, "start": "previous"}]}, "a reward model gives a number, not a text"),
        ({"stages": [{"tuner": "qlora"}, {"tuner": "lora"}]}, "answers otherwise beside full ones"),
        ({"stages": [{"tuner": "soft_prompt"}, {"tuner": "full"}]}, "a soft prompt stands alone"),
        ({"stages": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}, "two stages are called 'a'"),
        (
            {"stages": [{"objective": "sft"}, {**SCORER, "tuner": "full", "start": "base"}, PPO]},
            "ppo needs it on the same base: lora",
        ),
    ],
)
def test_a_chain_that_cannot_be_carried_out_says_why(said: dict[str, Any], wanted: str) -> None:
    assert any(wanted in problem for problem in problems(**said)), problems(**said)


@pytest.mark.parametrize("start", ["../x", "version:0", "stage:", "hub/model", "version:a/b/1", "/etc"])
def test_a_start_is_one_of_a_few_forms(start: str) -> None:
    with pytest.raises(ValueError, match="start"):
        TrainParams(start=start)


def test_problems_reach_whoever_reads_params() -> None:
    with pytest.raises(ValueError, match="the last stage is a reward model"):
        Params.model_validate({"model": {"name": "m", "task": "generate", "base": "./b"}, "train": {"objective": "reward"}})
