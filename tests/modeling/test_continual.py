"""A second training goes on from a first, with replay and elastic weight consolidation, through all of `tune`; killed, too."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
from job_kit import elsewhere, left, new_job, tuned
from kinds_kit import rows_for, write_rows
from modeling_kit import Pulled, pull_at
from safetensors.torch import load_file

from pipeline.domain.tuning import Objective, Tuner
from pipeline.errors import Misuse
from pipeline.modeling.chain import digest_folder
from pipeline.modeling.job import Job


@pytest.fixture(scope="module")
def champion(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A training on old rows, done."""
    job = new_job(Objective.SFT, tiny_base, tmp_path_factory.mktemp("champion"))
    tuned(job)
    return job


def second(champion: Job, home: Path, objective: Objective = Objective.SFT, **changes: object) -> Job:
    """A training on the champion's rows and as many newer ones, from the champion."""
    newer = home / "newer.parquet"
    if not newer.exists():
        write_rows(newer, rows_for(objective, 12))
    job = new_job(objective, champion.base, home, mix={"replay": 0.5}, ewc={"weight": 50.0, "rows": 8}, **changes)
    start = {"start": champion.adapter, "start_digest": digest_folder(champion.adapter)}
    return dataclasses.replace(job, train=(*champion.train, newer), old=frozenset({champion.train[0].name}), **start)


@pytest.mark.parametrize("cut", [1, 4])
def test_it_is_resumed_to_the_same_bytes(champion: Job, tmp_path: Path, cut: int) -> None:
    job = second(champion, tmp_path)
    found = tuned(job)
    assert found.measures["penalty"] > 0
    whole, again = left(job), elsewhere(dataclasses.replace(job, cache=tmp_path / "other cache"), tmp_path / "again")
    with pytest.raises(Pulled):
        tuned(again, pull_at(cut))
    tuned(again)
    assert left(again) == whole


def test_being_held_keeps_the_adapter_nearer_to_the_champions(champion: Job, tmp_path: Path) -> None:
    def went(weight: float) -> float:
        job = second(champion, tmp_path / str(weight), dropout=0.0)
        ewc = job.stage.ewc.model_copy(update={"weight": weight})
        tuned(elsewhere(job, tmp_path / str(weight), ewc=ewc))
        before, after = (
            load_file(one / "adapter_model.safetensors") for one in (champion.adapter, tmp_path / str(weight) / "adapter")
        )
        return sum(float((after[name] - before[name]).square().sum()) for name in before)

    assert went(1e6) < went(0.0)


def test_a_fresh_lora_is_held_by_its_way_out_alone(champion: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While lora_B is zero nothing that lora_A does makes a difference, so it is free."""
    job = dataclasses.replace(second(champion, tmp_path), start=None, start_digest=champion.ref.digest)
    with caplog.at_level(logging.INFO, "pipeline.modeling.continual.ewc"):
        tuned(job)
    adapter = load_file(job.adapter / "adapter_model.safetensors")
    inward = sum("lora_A" in name for name in adapter)
    assert f"{inward} of {len(adapter)} tensors made no difference" in caplog.text


@pytest.mark.parametrize("tuner", [Tuner.FULL, Tuner.LAST_LAYERS, Tuner.SOFT_PROMPT])
def test_whatever_learns_is_held(champion: Job, tmp_path: Path, tuner: Tuner) -> None:
    job = second(champion, tmp_path, tuner=tuner.value, max_steps=3)
    found = tuned(dataclasses.replace(job, start=None, start_digest=champion.ref.digest))
    assert found.measures["penalty"] > 0


@pytest.mark.parametrize("objective", [Objective.DPO, Objective.KTO, Objective.ORPO, Objective.PRETRAIN])
def test_other_objectives_are_held_by_their_own_loss(champion: Job, tmp_path: Path, objective: Objective) -> None:
    job = new_job(objective, champion.base, tmp_path, ewc={"weight": 50.0, "rows": 6}, max_steps=3)
    assert tuned(job).measures["penalty"] > 0


def test_a_task_that_no_row_has_ends_the_training_before_it_begins(champion: Job, tmp_path: Path) -> None:
    job = second(champion, tmp_path)
    mix = job.stage.mix.model_copy(update={"weights": {"nobody.jsonl": 2.0}})
    with pytest.raises(Misuse, match=r"have no source 'nobody\.jsonl'"):
        tuned(elsewhere(job, tmp_path / "refused", mix=mix))
    assert not (tmp_path / "refused" / "adapter").exists()
