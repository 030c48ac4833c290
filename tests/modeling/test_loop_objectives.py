"""Every objective, and every tuner, stopped after any step and taken up from its checkpoint: the same bytes in the end."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_kit import STEPS, elsewhere, left, new_job, tuned

from pipeline.domain.tuning import Objective
from pipeline.modeling.job import Job

MORE = {
    Objective.SFT: {"keep": "best", "neftune_alpha": 5.0, "gradient_accumulation": 2},
    Objective.CLASSIFY: {"neftune_alpha": 5.0, "keep": "best", "label_smoothing": 0.1},
    # Two passes over a rollout of eight answers, four at a time: most steps are in the midst of one.
    Objective.PPO: {
        "ppo": {"rewards": [{"rule": "not_repeating"}], "rollouts": 8, "max_new_tokens": 6, "epochs": 2, "kl_target": 0.1}
    },
}
TUNERS = {
    "full": {"tuner": "full"},
    "last_layers": {"tuner": "last_layers", "layers": 1},
    "qlora": {"tuner": "qlora"},
    "dora": {"dora": True},
    "prompt": {"tuner": "soft_prompt", "soft_prompt": {"kind": "prompt", "tokens": 4}, "neftune_alpha": 5.0},
    "prefix": {"tuner": "soft_prompt", "soft_prompt": {"kind": "prefix", "tokens": 4}},
}


@pytest.fixture(scope="module", autouse=True)
def _little_garbage() -> Iterator[None]:
    """The Trainer looks for garbage each time; what all these trainings have in common need not be looked at again."""
    import pipeline.modeling.training  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", params=list(Objective), ids=str)
def whole(request, tiny_base, tmp_path_factory) -> tuple[Job, dict[str, str]]:
    """A training that nothing stopped, with a checkpoint after each step, and what it left."""
    job = new_job(request.param, tiny_base, tmp_path_factory.mktemp(request.param.value), **MORE.get(request.param, {}))
    tuned(job)
    return job, left(job)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_each_objective_is_resumed_exactly_at_each_step(step, whole, tmp_path):
    job, expected = whole
    again = elsewhere(job, tmp_path, save_steps=100)
    _only(job, step, again)
    steps: list[int] = []
    assert tuned(again, lambda what, done, _: steps.append(done) if what == "training" else None).steps == STEPS
    assert steps == list(range(step + 1, STEPS + 1)), "steps that were taken are not taken again"
    assert left(again) == expected


@pytest.mark.parametrize("tuner", TUNERS)
def test_each_tuner_is_resumed_exactly(tuner, tiny_base, tmp_path):
    job = new_job(Objective.SFT, tiny_base, tmp_path, **TUNERS[tuner], max_steps=4)
    tuned(job)
    again = elsewhere(job, tmp_path / "again", save_steps=100)
    _only(job, 2, again)
    tuned(again)
    assert left(again) == left(job)


def test_what_is_found_in_a_cache_changes_nothing(tiny_base, tmp_path):
    """Reference log-probabilities are computed in one run and read in the other; neither may draw from the random state."""
    job = new_job(Objective.DPO, tiny_base, tmp_path, max_steps=2)
    tuned(job)
    again = elsewhere(job, tmp_path / "again")
    tuned(again)
    assert any((tmp_path / "cache").rglob("*"))
    assert left(again) == left(job)


def _only(job: Job, step: int, again: Job) -> None:
    name = Path(f"checkpoint-{step}")
    shutil.copytree(job.folder / name, again.folder / name)
