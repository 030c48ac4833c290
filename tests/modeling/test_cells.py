"""Every cell of the table in docs/methods.md: what goes together trains a few steps and is admitted, what does not is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kinds_kit import rows_for, stage_for, write_rows
from modeling_kit import Remembering, model_params

from pipeline.domain.data import Task
from pipeline.domain.tuning import OUTPUT_OF, Objective, Tuner, refusal
from pipeline.params.chains import chain_problems
from pipeline.params.train import TrainParams
from pipeline.ports import silent

LABELS = ("animal", "other")
VARIANTS: dict[Tuner, list[dict[str, object]]] = {
    Tuner.LORA: [{}, {"rslora": True}, {"dora": True}, {"target_modules": ["q_proj"]}],
    Tuner.QLORA: [{}],
    Tuner.FULL: [{}],
    Tuner.LAST_LAYERS: [{"layers": 1}],
    Tuner.SOFT_PROMPT: [{"soft_prompt": {"kind": kind, "tokens": 4}} for kind in ("prompt", "prefix")],
}
CELLS = [(objective, tuner) for objective in Objective for tuner in Tuner]
ALLOWED = [
    pytest.param(objective, tuner, more, id=f"{objective}-{tuner}-{n}")
    for objective, tuner in CELLS
    if refusal(objective, tuner) is None
    for n, more in enumerate(VARIANTS[tuner] if objective in (Objective.SFT, Objective.CLASSIFY) else VARIANTS[tuner][:1])
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Split files of the kinds of each objective, made once: (train, eval)."""
    folder = tmp_path_factory.mktemp("cells")
    made = {}
    for objective in Objective:
        rows = rows_for(objective, 14)
        made[objective] = [write_rows(folder / f"{objective}-{n}.parquet", part) for n, part in enumerate((rows[:10], rows[10:]))]
    return made


@pytest.mark.parametrize(("objective", "tuner", "more"), ALLOWED)
def test_what_goes_together_trains_and_is_admitted(data, tiny_base, tmp_path, objective, tuner, more):
    from pipeline.modeling.adapters.admission import admit
    from pipeline.modeling.base import describe_base, template_text
    from pipeline.modeling.job import Job
    from pipeline.modeling.training import tune

    task = Task.CLASSIFY if objective is Objective.CLASSIFY else Task.GENERATE
    model = model_params(tiny_base, task)
    ref = describe_base(model, tiny_base)
    stage = stage_for(objective, tuner=tuner, name="only", logging_steps=1, save_steps=100, learning_rate=0.01, **more)
    train, held = data[objective]
    job = Job(
        stage=stage,
        task=task,
        labels=LABELS if task is Task.CLASSIFY else (),
        base=tiny_base,
        ref=ref,
        template=template_text(model, tiny_base) if task is Task.GENERATE else None,
        train=(train,),
        held=(held,),
        start=None,
        start_digest=ref.digest,
        cache=tmp_path / "cache",
        folder=tmp_path / "stage",
        adapter=tmp_path / "adapter",
        curves=tmp_path / "curves.jsonl",
    )
    tracker = Remembering()
    found = tune(job, tracker=tracker, progress=silent)
    assert found.steps == 3
    assert found.trainable_parameters > 0
    said = admit(job.adapter, ref).handshake
    assert (said.objective, said.tuner, said.output) == (objective, tuner, OUTPUT_OF[objective])
    assert not (problems := losses_that_are_no_losses(job.curves, objective)), problems


def losses_that_are_no_losses(curves: Path, objective: Objective) -> list[str]:
    """What is wrong with a curve: too few points, numbers that are none, an eval loss that is far from the training's."""
    points = [json.loads(line) for line in curves.read_text().splitlines()]
    losses, held = ([point[name] for point in points if name in point] for name in ("loss", "eval_loss"))
    problems = [f"{len(losses)} losses"] if len(losses) != 3 else []
    if any(not -1e6 < loss < 1e6 for loss in losses + held):
        problems.append(f"{losses}, {held}")
    if objective is not Objective.PPO and (not held or abs(held[-1] - losses[-1]) > 1.0):
        problems.append(f"ends at {losses[-1:]}, and on the eval split at {held[-1:]}")
    return problems


@pytest.mark.parametrize(("objective", "tuner"), [cell for cell in CELLS if refusal(*cell) is not None])
def test_what_does_not_go_together_is_refused_with_the_reason(objective, tuner):
    stage = stage_for(objective, tuner=tuner).model_dump(exclude_unset=True)
    problems = chain_problems(TrainParams.model_validate(stage), Task.GENERATE)
    assert f"train: {objective} cannot be learned by {tuner}: {refusal(objective, tuner)}" in problems
