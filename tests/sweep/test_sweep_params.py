"""What may be tried is held against train's own keys when params are read; what may not is said with its key and line."""

from __future__ import annotations

import pytest

from pipeline.backends.params_file import parse_params
from pipeline.errors import BadParams, Misuse
from pipeline.params.sweep import stage_place, whole_numbers
from pipeline.sweeping import _check_effects
from pipeline.trials import edited, with_point

PARAMS = """
model: {name: desk, task: generate, base: ./base}
train:
  learning_rate: 0.001
  stages:
    - {objective: sft, epochs: 2.0}
    - {objective: dpo, name: prefer, rank: 8}
sweep:
  space:
    %s
"""


@pytest.mark.parametrize(
    "entry",
    [
        "learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}",
        "rank: {low: 2, high: 64}",
        "stages.prefer.epochs: {low: 1, high: 3}",
        "target_modules: {choices: [all-linear, [q_proj, v_proj]]}",
        "tuner: {choices: [lora, full]}",
        "mix.weights.helpdesk: {low: 0.5, high: 2}",
        "early_stopping.patience: {low: 1, high: 4}",
    ],
)
def test_what_may_be_tried(entry: str) -> None:
    assert list(parse_params(PARAMS % entry).sweep.space) == [entry.split(":", 1)[0]]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("rnk: {low: 1, high: 2}", "sweep.space.rnk: unknown key 'rnk'; did you mean rank?"),
        ("rank: {low: 0, high: 4}", "sweep.space.rank: 0 is refused: Input should be greater than or equal to 1"),
        ("rank: {low: 4, high: 8.5}", "sweep.space.rank: 8.5 is refused: Input should be a valid integer"),
        ("learning_rate: {low: 0.1, high: 2.0}", "sweep.space.learning_rate: 2.0 is refused"),
        ("seed: {low: 1, high: 4}", "sweep.space.seed: choosing a seed by the eval split is choosing luck"),
        ("stages.prefer.objective: {choices: [dpo, orpo]}", "sweep.space.stages.prefer.objective: losses of two objectives"),
        ("dpo.beta: {low: 0.1, high: 0.2}", "sweep.space.dpo.beta: dpo changes what eval_loss is"),
        ("stages.first.rank: {low: 1, high: 4}", "write stages.NAME.KEY; the stages are sft, prefer"),
        ("stages.prefer: {low: 1, high: 4}", "write stages.NAME.KEY"),
        ("tuner: {choices: [lora, loar]}", "sweep.space.tuner: 'loar' is refused"),
        ("stages.prefer.tuner: {choices: [lora, soft_prompt]}", "'soft_prompt' is refused: train.stages.1.start"),
        ("early_stopping: {low: 1, high: 2}", "early_stopping is a section: name a key within it, one of min_change, patience"),
        ("rank.more: {low: 1, high: 2}", "rank has no keys within"),
        ("scheduler: {low: 1, high: 2}", "sweep.space.scheduler: it is no number, so give choices"),
        ("epochs: {low: 3, high: 1}", "low must be below high, 3 is not below 1"),
        ("epochs: {low: 3}", "give low and high, or choices"),
        ("epochs: {low: 1, high: 3, choices: [1, 2]}", "give either choices, or low and high"),
        ("weight_decay: {low: 0, high: 1, log: true}", "log needs a low above 0"),
        ("rank: {choices: [4, 4]}", "a choice stands twice"),
        ("rank: {lo: 4, high: 8}", "unknown key; did you mean low?"),
    ],
)
def test_what_may_not_is_said_with_its_line(entry: str, said: str) -> None:
    with pytest.raises(BadParams) as refused:
        parse_params(PARAMS % entry)
    lines = [line for line in str(refused.value).splitlines() if said in line]
    assert lines, str(refused.value)
    assert lines[0].startswith("params.yaml:10: ")


def test_a_cost_needs_a_price() -> None:
    with pytest.raises(BadParams, match=r"sweep\.max_cost: it needs train\.price_per_hour"):
        parse_params(PARAMS.replace("sweep:\n", "sweep:\n  max_cost: 3.0\n") % "rank: {low: 2, high: 4}")


def test_a_measure_of_which_more_is_better_lets_losses_differ() -> None:
    text = PARAMS.replace("sweep:\n", "sweep:\n  measure: eval_accuracy\n")
    params = parse_params(text % "stages.prefer.dpo.beta: {low: 0.1, high: 0.2}")
    assert params.sweep.measure == "eval_accuracy"


def test_a_key_that_no_stage_takes_is_refused() -> None:
    text = PARAMS.replace("epochs: 2.0", "epochs: 2.0, rank: 2")
    for entry in ("rank: {low: 2, high: 64}", "rank: {choices: [2, 4, 8]}"):
        with pytest.raises(Misuse, match=r"sweep\.space\.rank: every stage gives its own"):
            _check_effects(parse_params(text % entry), text % entry)
    other = text % "stages.prefer.rank: {low: 2, high: 64}"
    _check_effects(parse_params(other), other)


def test_where_a_value_goes_and_what_it_comes_to() -> None:
    params = parse_params(PARAMS % "rank: {low: 2, high: 64}")
    assert stage_place("stages.prefer.dpo.beta", params.train, params.model.task) == ("stages", 1, "dpo", "beta")
    assert whole_numbers("rank", params.train, params.model.task)
    assert not whole_numbers("stages.sft.epochs", params.train, params.model.task)
    point = {"rank": 4, "learning_rate": 0.02, "stages.prefer.dpo.beta": 0.3}
    tried = with_point(params, PARAMS % "rank: {low: 2, high: 64}", point)
    assert [stage.rank for stage in tried.train.stages] == [4, 8], "a stage keeps what it gives itself"
    assert [stage.learning_rate for stage in tried.train.stages] == [0.02, 0.02]
    assert [stage.dpo.beta for stage in tried.train.stages] == [0.1, 0.3]
    assert "epochs: 2.0}" in edited(params, PARAMS % "rank: {low: 2, high: 64}", point)
