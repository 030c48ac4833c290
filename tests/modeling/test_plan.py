"""Plans: what each tuner would take of memory, time and money, which one to take, and how people are told."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from modeling_kit import CITIES, model_params

from pipeline.commands.plan import plan_lines
from pipeline.domain.data import ExampleKind, Snapshot, Task
from pipeline.domain.exploration import Shown
from pipeline.domain.planning import Forecast, Plan, Span, StagePlan, pick_tuner
from pipeline.domain.tuning import Objective, Tuner
from pipeline.errors import Misuse
from pipeline.modeling.hardware.choices import Choices
from pipeline.modeling.hardware.forecasting import Here, forecast, warn_of_cap
from pipeline.modeling.hardware.memory import Batch, Means, predict
from pipeline.modeling.hardware.room import Room
from pipeline.modeling.hardware.searching import Trial
from pipeline.modeling.hardware.shape import read_shape
from pipeline.modeling.hardware.speed import count_steps, forward_flops, measure_flops, stage_seconds, step_flops, step_seconds
from pipeline.modeling.hardware.work import Sides, Work, work_of
from pipeline.modeling.job import Job
from pipeline.params import IngestParams, StageParams, TrainParams
from pipeline.params.train import MachineParams
from pipeline.steps.ingest import ingest
from pipeline.steps.plan import plan

CPU = Choices("fp32", "sdpa", False, False)
WORK = Work(items=100, held=10, tokens=50.0, longest=90, labelled=20.0)


def here(mib: int = 100_000, **given: Any) -> Here:
    return Here(Room(mib << 20, "memory available"), CPU, 1e10, MachineParams(), **given)


def told(tuner: Tuner, trainable: int = 1000, problem: str | None = None) -> Forecast:
    span = Span(value=1.0, low=0.5, high=2.0)
    return Forecast(
        tuner=tuner,
        trainable=trainable,
        memory=span,
        parts={},
        micro_rows=1,
        gradient_checkpointing=False,
        seconds=span,
        measured=True,
        problem=problem,
    )


@pytest.mark.parametrize(
    ("able", "unable", "tokens", "takes"),
    [
        ("full last_layers lora qlora soft_prompt", "", 2000, Tuner.LORA),
        ("full last_layers lora qlora soft_prompt", "", 2001, Tuner.FULL),
        ("last_layers lora qlora soft_prompt", "full", 2001, Tuner.LORA),
        ("last_layers qlora soft_prompt", "full lora", 10, Tuner.QLORA),
        ("last_layers soft_prompt", "full lora qlora", 10, Tuner.LAST_LAYERS),
        ("soft_prompt", "full last_layers lora qlora", 10, Tuner.SOFT_PROMPT),
        ("", "lora qlora", 10, None),
    ],
)
def test_the_best_that_fits_is_taken_not_the_cheapest(able: str, unable: str, tokens: float, takes: Tuner | None) -> None:
    forecasts = [told(Tuner(name)) for name in able.split()] + [told(Tuner(name), problem="too large") for name in unable.split()]
    found, because = pick_tuner(forecasts, tokens)
    assert found is takes
    assert because


def test_steps_are_those_that_the_loop_takes() -> None:
    stage = StageParams(batch_size=8, gradient_accumulation=2, epochs=2.0)
    assert count_steps(stage, Objective.SFT, 100) == 14
    assert count_steps(stage.model_copy(update={"epochs": 0.5}), Objective.SFT, 100) == 4
    assert count_steps(stage.model_copy(update={"max_steps": 3}), Objective.SFT, 100) == 3
    ppo = StageParams(batch_size=8, epochs=1.0, ppo={"rewards": [{"rule": "json_valid"}], "rollouts": 16, "epochs": 3})
    assert count_steps(ppo, Objective.PPO, 20) == 2 * 16 * 3 // 8


def test_arithmetic_is_that_of_the_passes(tiny_base: Path) -> None:
    shape = read_shape(tiny_base)
    flops = {
        name: step_flops(shape, StageParams(**given), Objective.SFT, WORK)
        for name, given in {
            "full": {"tuner": "full"},
            "lora": {"tuner": "lora", "rank": 1},
            "prompt": {"tuner": "soft_prompt"},
            "last": {"tuner": "last_layers", "layers": 1},
        }.items()
    }
    assert flops["full"] == pytest.approx(1.5 * 16 / 16 * (flops["lora"] - lora_only(shape)), rel=1e-9)
    assert flops["last"] == pytest.approx(flops["full"] * 2 / 3), "half of the layers have a backward pass"
    assert flops["prompt"] > flops["full"] * 2 / 3, "its vectors are read as tokens are"
    again = step_flops(shape, StageParams(tuner="full"), Objective.SFT, WORK, checkpointing=True)
    assert again == pytest.approx(flops["full"] * 4 / 3)
    pairs = step_flops(shape, StageParams(tuner="full"), Objective.DPO, WORK)
    assert pairs == pytest.approx(2 * flops["full"])
    products = 2 * (shape.matrices * 50 + 20 * shape.vocabulary * shape.width)
    assert forward_flops(shape, WORK, StageParams(tuner="full"), Objective.SFT) > products


def lora_only(shape: Any) -> float:
    each = sum(m.inputs + m.outputs for layer in shape.layers for m in layer)
    return 2.5 * 6.0 * WORK.tokens * each * 16 * 1.1


def test_a_stage_lasts_its_steps_its_evaluations_and_its_reference(tiny_base: Path) -> None:
    shape, stage = read_shape(tiny_base), StageParams(tuner="lora", batch_size=10, epochs=1.0)
    alone = stage_seconds(shape, stage, Objective.SFT, replace(WORK, held=0), 2.0, measured=True)
    assert alone.value == 10 * 2.0
    assert (alone.low, alone.high) == (pytest.approx(20 / 1.5), pytest.approx(30))
    measured = stage_seconds(shape, stage, Objective.SFT, WORK, 2.0, measured=True)
    assert 20 < measured.value < 22, "ten rows are asked once, and asking is less than learning"
    often = stage_seconds(shape, stage.model_copy(update={"eval_steps": 1}), Objective.SFT, WORK, 2.0, measured=True)
    assert often.value - 20 == pytest.approx(10 * (measured.value - 20))
    dpo = stage_seconds(shape, stage, Objective.DPO, replace(WORK, held=0), 2.0, measured=False)
    assert dpo.value > alone.value
    assert dpo.high == pytest.approx(dpo.value * 3)
    assert measure_flops(64, 0.01) > 1e6
    given: dict[str, Any] = {"trainable": 1000, "flops": 1e10}
    whole = step_seconds(shape, stage, Objective.SFT, WORK, micro_rows=10, **given)
    assert step_seconds(shape, stage, Objective.SFT, WORK, micro_rows=1, **given) > whole, "each micro-batch has its calls"


def test_a_forecast_has_a_price_and_says_what_does_not_fit(tiny_base: Path) -> None:
    shape, stage = read_shape(tiny_base), StageParams(tuner="lora", rank=4, batch_size=8)
    fine = forecast(shape, stage, Objective.SFT, WORK, here(price_per_hour=36.0), step=1.0)
    assert fine.problem is None
    assert fine.measured
    assert fine.cost is not None
    assert fine.cost.value == pytest.approx(fine.seconds.value / 100)
    assert fine.memory.low < fine.memory.value < fine.memory.high
    assert sum(fine.parts.values()) == fine.memory.value
    reckoned = forecast(shape, stage, Objective.SFT, WORK, here())
    assert not reckoned.measured
    assert reckoned.cost is None
    assert "are free (memory available)" in str(forecast(shape, stage, Objective.SFT, WORK, here(10)).problem)
    deep = StageParams(tuner="last_layers", layers=3)
    assert "has 2 layers" in str(forecast(shape, deep, Objective.SFT, WORK, here()).problem)


def shown(kind: ExampleKind, text: str = "a", output: str = "b") -> Shown:
    return Shown(id="0", source="s", line=1, kind=kind, text=text, output=output)


def test_work_is_what_a_stage_learns_from() -> None:
    drawn = [shown(ExampleKind.ANSWER), shown(ExampleKind.ANSWER), shown(ExampleKind.PREFERENCE), shown(ExampleKind.LABEL)]
    lengths = [(10, 4), (30, 400), (20, 8), (5, 1)]
    sides = Sides(4, 0, (), "made up")
    sft = work_of(StageParams(max_length=100), Objective.SFT, [ExampleKind.ANSWER], drawn, lengths, sides)
    assert (sft.items, sft.longest) == (2, 100)
    assert sft.tokens == (10 + 4 + 2 * 8 + 100) / 2
    kto = work_of(StageParams(), Objective.KTO, [ExampleKind.PREFERENCE], drawn, lengths, sides)
    assert kto.items == 2, "both answers of a pair are learned from"
    more = work_of(StageParams(), Objective.SFT, [ExampleKind.PREFERENCE], drawn, lengths, replace(sides, train=400))
    assert (more.items, more.longest) == (100, 55), "a row that was not drawn may be longer"
    labels = work_of(StageParams(), Objective.CLASSIFY, [ExampleKind.LABEL], drawn, lengths, replace(sides, labels=("x", "y")))
    assert (labels.tokens, labels.labelled, labels.labels) == (5, 0, 2)
    with pytest.raises(Misuse, match="learns from rows of text, and the data hold answer, label, preference"):
        work_of(StageParams(name="more"), Objective.PRETRAIN, [ExampleKind.TEXT], drawn, lengths, sides)


def taken_in(folder: Path) -> Snapshot:
    source = folder / "inbox" / "rows.jsonl"
    source.parent.mkdir(parents=True)
    rows = [
        {"messages": [{"role": "user", "content": f"Where is {city}? {n}"}, {"role": "assistant", "content": f"In {land}."}]}
        for n, (city, land) in enumerate(sorted(CITIES.items()) * 12)
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "snapshot").mkdir()
    given: dict[str, Any] = {"dataset": "tiny", "task": Task.GENERATE, "sources": [source], "parent": None}
    return ingest(IngestParams(format="chat"), folder=folder / "snapshot", root=folder, **given)


@pytest.fixture(scope="module")
def planned(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Of a chain of two stages, tried out; the second by rule-rewarded PPO."""
    home = tmp_path_factory.mktemp("planned")
    ppo = {"objective": "ppo", "ppo": {"rewards": [{"rule": "not_repeating"}], "rollouts": 4, "epochs": 1, "max_new_tokens": 4}}
    given = {"batch_size": 4, "rank": 4, "max_length": 64, "stages": [{"objective": "sft"}, ppo], "max_hours": 1e-6}
    train = TrainParams(**given, price_per_hour=2.0, max_cost=1e-9)
    (home / "scratch").mkdir()
    snapshot, sides = taken_in(home), Sides(60, 6, (), "made up")
    where: dict[str, Any] = {"folder": home / "snapshot", "scratch": home / "scratch", "base": tiny_base}
    return plan(snapshot, train, model_params(tiny_base), sides=sides, **where)


def test_a_plan_tries_each_tuner_that_the_objective_allows(planned: Plan) -> None:
    sft, ppo = planned.stages
    assert [one.tuner for one in sft.forecasts] == list(Tuner)
    assert all(one.measured and one.seconds.value > 0 for one in sft.forecasts)
    assert (sft.items, sft.steps, sft.asked, sft.takes) == (60, 45, Tuner.LORA, Tuner.LORA)
    assert [one.tuner for one in ppo.forecasts] == [Tuner.LORA, Tuner.QLORA]
    assert set(ppo.refused) == {"full", "last_layers", "soft_prompt"}
    assert all(one.measured for one in ppo.forecasts), planned.warnings
    assert planned.fits
    assert planned.seconds.value == pytest.approx(sum(s.as_asked.seconds.value for s in planned.stages if s.as_asked))


def test_a_plan_warns_of_caps_and_can_be_read_again(planned: Plan, tmp_path: Path) -> None:
    assert any("max_hours is 1e-06" in warning for warning in planned.warnings)
    assert any("max_cost is 1e-09" in warning for warning in planned.warnings)
    planned.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == planned


def test_people_are_told_in_a_table(planned: Plan) -> None:
    lines = plan_lines(planned)
    assert "0.0 million weights" in lines[0]
    lora = next(line for line in lines if line.strip().startswith("lora"))
    assert "params plan" in lora
    assert "tried" in lora
    assert sum("refused: " in line for line in lines) == 3
    assert sum(line.startswith("warning: ") for line in lines) == 2
    stage = planned.stages[0]
    forecasts = (stage.forecasts[0].model_copy(update={"problem": "one row at a time would take 9 GiB"}),)
    none = StagePlan(**stage.model_dump() | {"forecasts": forecasts, "takes": None, "because": "nothing fits"})
    lines = plan_lines(planned.model_copy(update={"stages": (none,)}))
    assert "  full: one row at a time would take 9 GiB" in lines
    assert "  plan would take none: nothing fits" in lines


def test_what_is_not_tried_is_reckoned_in_no_time(tiny_base: Path, tmp_path: Path) -> None:
    snapshot = taken_in(tmp_path)
    where: dict[str, Any] = {"folder": tmp_path / "snapshot", "scratch": tmp_path / "none", "base": tiny_base}
    train = TrainParams(batch_size=4, machine=MachineParams(processes=2))
    found = plan(snapshot, train, model_params(tiny_base), sides=Sides(60, 6, (), "made up"), trying=False, **where)
    assert not any(one.measured for one in found.stages[0].forecasts)
    assert not (tmp_path / "none").exists()
    assert found.parents == (snapshot.digest,)
    wrong = TrainParams(objective="pretrain")
    with pytest.raises(Misuse, match="text"):
        plan(snapshot, wrong, model_params(tiny_base), sides=Sides(60, 6, (), "made up"), trying=False, **where)


def test_a_stage_that_its_caps_will_stop_is_told_before_it_starts(tiny_base: Path, caplog: pytest.LogCaptureFixture) -> None:
    shape, stage = read_shape(tiny_base), StageParams(name="sft", objective="sft")
    tried = Trial(16, Means(), predict(shape, stage, Objective.SFT, Batch(16, 90, 90)), True)
    nowhere = dict.fromkeys(("base", "cache", "folder", "adapter", "curves"), tiny_base)
    job = Job(
        stage=stage,
        task=Task.GENERATE,
        labels=(),
        ref=None,  # type: ignore[arg-type]
        template=None,
        train=(),
        held=(),
        start=None,
        start_digest="",
        max_hours=1e-7,
        **nowhere,  # type: ignore[arg-type]
    )
    room = Room(1 << 40, "memory available")
    with caplog.at_level(logging.WARNING):
        warn_of_cap(replace(job, max_hours=1e4), CPU, tried, room, [90] * 100)
        warn_of_cap(replace(job, max_hours=None), CPU, tried, room, [90] * 100)
        assert not caplog.records
        warn_of_cap(job, CPU, tried, room, [90] * 100)
    assert "it will stop at a checkpoint" in caplog.text
