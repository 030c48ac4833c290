"""Reward models as adapters beside the policy: they give the scores that they gave as classifiers, and nothing else is let in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from modeling_kit import model_params
from safetensors.torch import load_file, save_file

from pipeline.domain.data import Task
from pipeline.domain.tuning import Objective, Output, Tuner
from pipeline.errors import Broken, Misuse
from pipeline.modeling.adapters.adapter import write_adapter
from pipeline.modeling.adapters.admission import load_adapter
from pipeline.modeling.adapters.handshake import NAME, WEIGHTS
from pipeline.modeling.base import base_ref, template_text
from pipeline.modeling.forward import pooled_logits
from pipeline.modeling.learning.ppo.cast import Cast
from pipeline.modeling.learning.ppo.rewards import add_reward_model, appraise, scores
from pipeline.modeling.loading import inference
from pipeline.modeling.texts.rows import pad
from pipeline.modeling.tuners import tunable
from pipeline.params.learning import RewardSource
from pipeline.params.train import StageParams

TEXTS = [[1, 4, 70, 71, 5, 80, 2], [1, 4, 90, 5, 2], [1, 4, 60, 61, 62, 63, 64, 5, 100, 101, 2], [1, 4, 5, 0, 2]]


@pytest.fixture(scope="module")
def ref(tiny_base):
    model = model_params(tiny_base)
    return base_ref(model, tiny_base, template_text(model, tiny_base))


def how(tuner: str, objective: Objective, **more) -> StageParams:
    return StageParams(objective=objective, tuner=tuner, rank=4, alpha=8, max_length=96, **more)


def trained(
    base: Path, ref, folder: Path, stage: StageParams, output: Output, *, start: Path | None = None, seed: int = 3
) -> Path:
    """An adapter's folder, as a stage leaves it whose weights have moved."""
    torch.manual_seed(seed)
    model = tunable(base, ref, stage, output, start=start)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)
    template = template_text(model_params(base), base)
    write_adapter(model, folder, base=ref, task=Task.GENERATE, labels=(), stage=stage, template=template, start=start)
    return folder


CASES = [
    ("lora", {}),
    ("lora", {"rslora": True, "dora": True}),
    ("lora", {"target_modules": ("q_proj", "v_proj"), "rank": 2}),
    ("qlora", {}),
]


@pytest.mark.parametrize(("tuner", "changes"), CASES)
def test_scores_are_those_of_the_classifier_that_was_trained(tiny_base, ref, tmp_path, tuner, changes):
    stage = how(tuner, Objective.REWARD).model_copy(update=changes)
    folder = trained(tiny_base, ref, tmp_path / "reward", stage, Output.SCORE)
    classifier, _ = load_adapter(folder, tiny_base, ref)
    with inference():
        wanted = pooled_logits(classifier, pad(TEXTS, 0)).squeeze(-1)
    torch.manual_seed(1)
    cast = Cast(tunable(tiny_base, ref, how(tuner, Objective.PPO), Output.TEXT))
    learned = {name for name, weight in cast.named_parameters() if weight.requires_grad}
    add_reward_model(cast.eval(), "reward", folder, ref)
    for rows in (1, 4):
        found = scores(cast, "reward", TEXTS, pad_id=0, rows=rows)
        assert found.tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
    assert float(wanted.std()) > 1e-3, "scores that are all alike prove nothing"
    assert {name for name, weight in cast.named_parameters() if weight.requires_grad} == learned
    assert cast.policy.active_adapter == NAME


@pytest.fixture(scope="module")
def reward(tiny_base, ref, tmp_path_factory):
    return trained(tiny_base, ref, tmp_path_factory.mktemp("r") / "adapter", how("lora", Objective.REWARD), Output.SCORE)


def cast_of(base, ref, tuner: str = "lora", start: Path | None = None) -> Cast:
    return Cast(tunable(base, ref, how(tuner, Objective.PPO), Output.TEXT, start=start)).eval()


def test_worth_is_the_weighted_sum_of_models_and_rules(tiny_base, ref, reward):
    cast = cast_of(tiny_base, ref)
    add_reward_model(cast, "judge", reward, ref)
    sources = (RewardSource(stage="judge", weight=2.0), RewardSource(rule="exact_match", weight=-0.5))
    found = appraise(cast, sources, TEXTS, ["a", "b", "c", "d"], ["a", "", "c", "x"], pad_id=0, rows=4)
    judge = scores(cast, "judge", TEXTS, pad_id=0, rows=4)
    assert found.parts["exact_match"].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert torch.equal(found.parts["judge"], judge)
    assert torch.allclose(found.total, 2.0 * judge - 0.5 * found.parts["exact_match"])


def tampered(folder: Path, to: Path, change) -> Path:
    shutil.copytree(folder, to)
    tensors = load_file(to / WEIGHTS)
    change(tensors)
    save_file(tensors, to / WEIGHTS, metadata={"format": "pt"})
    return to


HEAD = "base_model.model.score.weight"
LAYER = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(LAYER), "is missing"),
        (lambda t: t.update({LAYER.replace("layers.0", "layers.7"): t[LAYER].clone()}), "belongs to no module"),
        (lambda t: t.update({LAYER: t[LAYER][:2].clone()}), "has the shape"),
        (lambda t: t.pop(HEAD), "a head of one row"),
        (lambda t: t.update({HEAD: t[HEAD].repeat(2, 1)}), "a head of one row"),
        (lambda t: t[LAYER].fill_(float("nan")), "NaN"),
    ],
)
def test_a_reward_model_that_is_not_what_it_says_is_kept_out(tiny_base, ref, reward, tmp_path, change, said):
    folder = tampered(reward, tmp_path / "bad", change)
    with pytest.raises(Broken, match=said):
        add_reward_model(cast_of(tiny_base, ref), "judge", folder, ref)


def test_what_is_no_reward_model_or_on_another_kind_of_base_is_refused(tiny_base, ref, reward, tmp_path):
    answers = trained(tiny_base, ref, tmp_path / "sft", how("lora", Objective.SFT), Output.TEXT)
    with pytest.raises(Misuse, match="not a score"):
        add_reward_model(cast_of(tiny_base, ref), "judge", answers, ref)
    with pytest.raises(Misuse, match="tuned by lora, the policy is by qlora"):
        add_reward_model(cast_of(tiny_base, ref, "qlora"), "judge", reward, ref)


def test_a_reward_model_on_tuned_weights_needs_a_policy_on_the_same(tiny_base, ref, reward, tmp_path):
    full = trained(tiny_base, ref, tmp_path / "full", how("full", Objective.SFT), Output.TEXT)
    on_full = trained(tiny_base, ref, tmp_path / "on_full", how("lora", Objective.REWARD), Output.SCORE, start=full)
    cast = cast_of(tiny_base, ref, start=full)
    add_reward_model(cast, "judge", on_full, ref)
    classifier, _ = load_adapter(on_full, tiny_base, ref)
    with inference():
        wanted = pooled_logits(classifier, pad(TEXTS, 0)).squeeze(-1)
    assert scores(cast, "judge", TEXTS, pad_id=0, rows=4).tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
    with pytest.raises(Misuse, match="only one of"):
        add_reward_model(cast_of(tiny_base, ref), "judge", on_full, ref)
    with pytest.raises(Misuse, match="only one of"):
        add_reward_model(cast_of(tiny_base, ref, start=full), "judge", reward, ref)
    other = trained(tiny_base, ref, tmp_path / "other", how("full", Objective.SFT), Output.TEXT, seed=4)
    with pytest.raises(Misuse, match="tuned on another"):
        add_reward_model(cast_of(tiny_base, ref, start=other), "judge", on_full, ref)


def test_the_reference_of_a_policy_on_tuned_weights_is_those_weights(tiny_base, ref, tmp_path):
    full = trained(tiny_base, ref, tmp_path / "full", how("full", Objective.SFT), Output.TEXT)
    cast = cast_of(tiny_base, ref, start=full)
    assert cast.reference is None
    assert cast.policy.making.shape.weights is Tuner.FULL


def test_what_is_written_in_the_end_is_the_policy_alone(tiny_base, ref, reward, tmp_path):
    start = trained(tiny_base, ref, tmp_path / "sft", how("lora", Objective.SFT), Output.TEXT)
    stage = how("lora", Objective.PPO, ppo={"rewards": ({"stage": "judge"},)})
    tuned = tunable(tiny_base, ref, stage, Output.TEXT, start=start)
    cast = Cast(tuned)
    add_reward_model(cast, "judge", reward, ref)
    with torch.no_grad():
        for name, weight in cast.named_parameters():
            if weight.requires_grad:
                weight.add_(0.01 if f".{NAME}." in name else 7.0)
    folder = tmp_path / "ppo"
    template = template_text(model_params(tiny_base), tiny_base)
    write_adapter(tuned, folder, base=ref, task=Task.GENERATE, labels=(), stage=stage, template=template, start=start)
    before, after = load_file(start / WEIGHTS), load_file(folder / WEIGHTS)
    assert before.keys() == after.keys()
    assert all(torch.allclose(after[key], tensor + 0.01) for key, tensor in before.items())
    load_adapter(folder, tiny_base, ref)
