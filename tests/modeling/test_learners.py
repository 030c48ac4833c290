"""Learners of encoded items: a step is the same however it is cut, references are asked once, scores are held to a rule."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from kinds_kit import rows_for, stage_for, write_rows
from modeling_kit import TEMPLATE

from pipeline.domain.tuning import LEARNS_FROM, OUTPUT_OF, Objective

LABELS = ("animal", "other")
BY_PLACES = [objective for objective in Objective if objective is not Objective.PPO]


@pytest.fixture(scope="module")
def bases(tiny_base):
    """Output → a base with LoRA on it that has learned something already."""
    import torch
    from peft import LoraConfig, get_peft_model

    from pipeline.modeling.loading import load_base

    found = {}
    for output in set(OUTPUT_OF.values()):
        torch.manual_seed(2)
        model = load_base(tiny_base, output, LABELS)
        model = get_peft_model(model, LoraConfig(r=4, lora_dropout=0.0, target_modules=["q_proj", "v_proj", "down_proj"]))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        found[output] = model
    return found


@pytest.fixture(scope="module")
def make(bases, tiny_base, tmp_path_factory):
    """Of an objective, a learner on rows of its kinds, prepared."""
    from pipeline.modeling.learning import judged, labels, pairs, scores, texts
    from pipeline.modeling.loading import load_tokenizer
    from pipeline.modeling.texts.encoding import encode
    from pipeline.modeling.texts.template import ChatTemplate

    classes = {
        Objective.PRETRAIN: texts.Texts,
        Objective.SFT: texts.Texts,
        Objective.CLASSIFY: labels.Labels,
        Objective.REWARD: scores.Scores,
        Objective.DPO: pairs.Preferred,
        Objective.ORPO: pairs.Odds,
        Objective.KTO: judged.Judged,
    }
    tokenizer = load_tokenizer(tiny_base)
    chat = ChatTemplate(tokenizer, TEMPLATE)
    folder = tmp_path_factory.mktemp("rows")

    def made(objective, *, count=12, held=5, packed=None, cache=None, prepared=True, bare=True, **stage):
        said = stage_for(objective, **stage)
        sides = []
        for number, rows in enumerate((count, held)):
            path = write_rows(folder / f"{objective}-{number}.parquet", rows_for(objective, rows))
            sides.append(encode([path], objective, LEARNS_FROM[objective], tokenizer, chat, LABELS, stage=said))
        more = {"reference": reference(cache, bare)} if objective in (Objective.DPO, Objective.KTO) else {}
        learner = classes[objective](copy.deepcopy(bases[OUTPUT_OF[objective]]), *sides, said, pad_id=0, packed=packed, **more)
        if prepared:
            learner.prepare()
        learner.model.train()
        return learner

    return made


def reference(cache=None, bare=True):
    from pipeline.modeling.learning.references import Reference

    return Reference("0" * 64, bare=bare, cache=cache)


def step(learner, pieces):
    """Loss and measures a unit and gradients of one step over the items of `pieces`, taken piece by piece."""
    places = [place for piece in pieces for place in piece]
    learner.model.zero_grad()
    learner.begin_step(1, places)
    loss, sums, units = 0.0, {}, learner.units(places)
    for piece in pieces:
        found = learner.losses(learner.batch(piece))
        (found.total / units).backward()
        loss += found.total.item() / units
        for name, value in found.measures.items():
            sums[name] = sums.get(name, 0.0) + float(value) / units
    return loss, sums, {name: p.grad.clone() for name, p in learner.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("objective", BY_PLACES)
def test_a_step_is_the_same_however_it_is_cut(make, objective):
    import torch

    learner = make(objective)
    whole = step(learner, [[3, 0, 5, 1, 4, 2]])
    parts = step(learner, [[5], [0, 3], [2, 4, 1]])
    assert whole[0] == pytest.approx(parts[0], rel=1e-5)
    assert whole[1] == pytest.approx(parts[1], rel=1e-4, abs=1e-5)
    assert whole[2].keys() == parts[2].keys() == {name for name, p in learner.model.named_parameters() if p.requires_grad}
    for name, gradient in whole[2].items():
        torch.testing.assert_close(gradient, parts[2][name], rtol=1e-3, atol=1e-6)
    assert sum(float(gradient.abs().sum()) for gradient in whole[2].values()) > 0


@pytest.mark.parametrize("objective", [o for o in BY_PLACES if o not in (Objective.CLASSIFY, Objective.REWARD)])
def test_packed_steps_are_as_padded_ones(make, objective):
    import torch

    padded, packed = (step(make(objective, packed=packed), [[3, 0, 5, 1]]) for packed in (False, True))
    assert padded[0] == pytest.approx(packed[0], rel=1e-5)
    assert padded[1] == pytest.approx(packed[1], rel=1e-4, abs=1e-5)
    for name, gradient in padded[2].items():
        torch.testing.assert_close(gradient, packed[2][name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("objective", BY_PLACES)
def test_measuring_gives_the_loss_of_the_split_in_any_batches_and_draws_nothing(make, objective):
    import torch

    learner = make(objective)
    learner.held = learner.train
    if hasattr(learner, "_sides"):
        learner._sides["held"] = learner._sides["train"]
    learner.model.eval()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, other = learner.evaluate(3), learner.evaluate(100)
    assert torch.equal(before, torch.get_rng_state())
    assert next(iter(one)) == "eval_loss"
    assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert one["eval_loss"] == pytest.approx(step(learner, [list(range(len(learner.train)))])[0], rel=1e-4)
    empty = make(objective, held=0)
    assert empty.evaluate(4) == {}


def test_smoothing_is_for_training_only(make):
    for objective, given in (
        (Objective.SFT, {"label_smoothing": 0.3}),
        (Objective.CLASSIFY, {"label_smoothing": 0.3}),
        (Objective.DPO, {"dpo": {"label_smoothing": 0.3}}),
    ):
        plain, smoothed = make(objective), make(objective, **given)
        assert plain.evaluate(4) == smoothed.evaluate(4)
        assert step(plain, [[0, 1]])[0] != pytest.approx(step(smoothed, [[0, 1]])[0], rel=1e-3)


@pytest.mark.parametrize("objective", [Objective.DPO, Objective.KTO])
def test_references_are_asked_once_and_again_when_what_was_kept_is_torn(make, objective, tmp_path, monkeypatch):
    from pipeline.modeling.learning.encoded import FromItems

    asked: list[int] = []
    real = FromItems.log_probs
    monkeypatch.setattr(FromItems, "log_probs", lambda self, side: asked.append(len(side)) or real(self, side))
    sides = 2 if objective is Objective.DPO else 4
    first = step(make(objective, cache=tmp_path), [[0, 1]])
    assert len(asked) == sides
    assert step(make(objective, cache=tmp_path), [[0, 1]])[0] == first[0]
    assert step(make(objective, cache=tmp_path, learning_rate=0.1, rank=2), [[0, 1]])[0] == first[0]
    assert len(asked) == sides
    torn = sorted(tmp_path.iterdir())[0]
    torn.write_bytes(torn.read_bytes()[:-1])
    assert step(make(objective, cache=tmp_path), [[0, 1]])[0] == first[0]
    assert len(asked) == sides + 1
    make(objective, cache=tmp_path, bare=False)  # another start
    assert len(asked) == 2 * sides + 1


def test_the_reference_of_a_fresh_adapter_is_the_bare_base_and_of_one_gone_on_from_itself(make):
    for bare, moved in ((True, True), (False, False)):
        learner = make(Objective.DPO, bare=bare)
        loss, measures, _ = step(learner, [[0, 1, 2]])
        assert (abs(measures["margin"]) > 1e-4) == moved
        assert (loss != pytest.approx(np.log(2), abs=1e-5)) == moved
        assert learner.model.training
        assert [p.requires_grad for name, p in learner.model.named_parameters() if "lora_" in name] == [True] * 12


def test_each_question_is_also_put_with_the_answer_of_another_row(make):
    from pipeline.modeling.learning.judged import _mismatched
    from pipeline.modeling.texts.rows import IGNORED

    learner = make(Objective.KTO)
    train = learner.train
    origin = train.extra["origin"].tolist()
    assert len(set(origin)) < len(origin)  # pairs and rankings give several
    for at, [row] in enumerate(_mismatched(train, 96)):
        start = next(n for n, label in enumerate(row.labels) if label != IGNORED)
        [own] = train[at]
        assert own.input_ids[:start] == row.input_ids[:start]
        others = [n for n in range(len(train)) if train[n][0].input_ids[-len(row.input_ids) + start :] == row.input_ids[start:]]
        assert any(origin[n] != origin[at] for n in others)
    [cut] = next(iter(_mismatched(train, 12)))
    assert len(cut.input_ids) == 12


@pytest.mark.parametrize("objective", BY_PLACES)
def test_splits_of_a_single_row_can_be_learned_from_and_measured(make, objective):
    one = make(objective, count=1, held=1)
    assert np.isfinite(step(one, [[0]])[0])
    assert all(np.isfinite(value) for value in one.evaluate(4).values())


def test_a_reward_model_that_is_no_better_than_the_longer_answer_says_so(make):
    learner = make(Objective.REWARD)
    measures, [alarm] = learner.closing()
    assert {"pair_accuracy", "longer_wins_accuracy", "longer_wins_p"} == measures.keys()
    assert "the longer answer wins" in alarm
    assert "nobody knows" in make(Objective.REWARD, held=0).closing()[1][0]


@pytest.mark.parametrize(
    ("right", "longer", "sure"),
    [(60, 0, True), (50, 50, False), (40, 60, False), (52, 48, False), (70, 30, True)],
)
def test_better_than_length_is_tested_on_the_pairs_that_differ(right, longer, sure):
    """Of 100 pairs so many are ordered rightly by the scores alone, so many by length alone, the rest by both."""
    from pipeline.modeling.learning.scores import against_length

    scores = np.array([[1.0, 0.0]] * right + [[0.0, 1.0]] * longer + [[1.0, 0.0]] * 5, np.float32)
    lengths = np.array([[3, 9]] * right + [[9, 3]] * longer + [[9, 3]] * 5)
    measures, alarms = against_length(scores, lengths)
    total = right + longer + 5
    assert measures["pair_accuracy"] == pytest.approx((right + 5) / total)
    assert measures["longer_wins_accuracy"] == pytest.approx((longer + 5) / total)
    assert (not alarms) == sure
    tied = against_length(np.zeros((4, 2), np.float32), np.array([[5, 5]] * 4))
    assert tied[0]["pair_accuracy"] == tied[0]["longer_wins_accuracy"] == 0.5
    assert len(tied[1]) == 1
