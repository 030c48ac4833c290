"""The same model, the same batch: our learners' losses beside those of TRL's trainers, for each objective that TRL has."""

from __future__ import annotations

import copy

import pytest
from kinds_kit import answer, feedback, preference, stage_for, write_rows
from modeling_kit import TEMPLATE

from pipeline.domain.tuning import LEARNS_FROM, Objective, Output

trl = pytest.importorskip("trl", reason="TRL is the reference here, and is not installed")

PAIRS = [
    preference("Where is Lima?", "It is in Peru.", "No idea."),
    preference("Where is Oslo, please", "It is in Norway, up north.", "Oslo is in Peru"),
    preference("Rome?", "Italy.", "Where is it, I wonder, and who would know?"),
    preference("Where is Bern???", "It is in Switzerland.", "It is in Italy."),
]
JUDGED = [
    feedback("Where is Lima?", "It is in Peru.", good=True),
    feedback("Where is Oslo, please", "It is in Peru", good=False),
    feedback("Rome?", "Italy.", good=True),
    feedback("Where is Cairo", "I do not know, and do not care.", good=False),
]


@pytest.fixture(scope="module")
def parts(tiny_base):
    """Tokenizer, model, and the same model with its weights moved: what was at the start, and what is now."""
    import torch

    from pipeline.modeling.loading import load_base, load_tokenizer

    start = load_base(tiny_base, Output.TEXT)
    now = copy.deepcopy(start)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in now.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return load_tokenizer(tiny_base), start, now


def encoded(objective, rows, tokenizer, folder, **changes):
    from pipeline.modeling.texts.encoding import encode
    from pipeline.modeling.texts.template import ChatTemplate

    stage = stage_for(objective, **changes)
    path = write_rows(folder / f"{objective}.parquet", rows)
    kinds = LEARNS_FROM[objective]
    return stage, encode([path], objective, kinds, tokenizer, ChatTemplate(tokenizer, TEMPLATE), (), stage=stage)


def ours(learner, start=None):
    """Loss of all items as one step; the reference is `start`."""
    if start is not None:
        learner.model, kept = start, learner.model
        learner.prepare()
        learner.model = kept
    else:
        learner.prepare()
    learner.model.train()
    places = list(range(len(learner.train)))
    learner.begin_step(1, places)
    return learner.losses(learner.batch(places)).total.item() / learner.units(places)


def split(row):
    """Prompt ids and answer ids of a row."""
    from pipeline.modeling.texts.rows import IGNORED

    start = next(at for at, label in enumerate(row.labels) if label != IGNORED)
    return row.input_ids[:start], row.input_ids[start:]


def quiet(config, folder, **options):
    return config(output_dir=str(folder), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, **options)


def reference(**more):
    from pipeline.modeling.learning.references import Reference

    return Reference(start="0" * 64, bare=False, **more)


TEXTS = [{"prompt": "a", "chosen": "b", "rejected": "c"}]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sft_is_trls(parts, tmp_path, smoothing):
    from datasets import Dataset

    from pipeline.modeling.learning.texts import Texts

    tokenizer, _, now = parts
    rows = [answer("Where is Lima?", "It is in Peru."), answer("Oslo?", "Far up north, in Norway.")]
    stage, train = encoded(Objective.SFT, rows, tokenizer, tmp_path, label_smoothing=smoothing)
    learner = Texts(copy.deepcopy(now), train, train, stage, pad_id=0)

    args = quiet(trl.SFTConfig, tmp_path, label_smoothing_factor=smoothing, loss_type="nll")
    data = [{"input_ids": row.input_ids, "labels": row.labels} for (row,) in train]
    trainer = trl.SFTTrainer(copy.deepcopy(now), args, train_dataset=Dataset.from_list(data), processing_class=tokenizer)
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(data)).item()
    assert ours(learner) == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("centre", [0.0, 0.3])
def test_reward_is_trls(tiny_base, tmp_path, centre):
    import torch
    from datasets import Dataset

    from pipeline.modeling.learning.scores import Scores
    from pipeline.modeling.loading import load_base, load_tokenizer

    tokenizer = load_tokenizer(tiny_base)
    torch.manual_seed(5)
    model = load_base(tiny_base, Output.SCORE)
    with torch.no_grad():
        model.score.weight.mul_(20)  # scores far enough apart and from zero to tell terms of the loss apart
    stage, train = encoded(Objective.REWARD, PAIRS, tokenizer, tmp_path, reward={"centre": centre})
    learner = Scores(copy.deepcopy(model), train, train, stage, pad_id=0)

    data = [{"chosen_ids": better.input_ids, "rejected_ids": worse.input_ids} for better, worse in train]
    args = quiet(trl.RewardConfig, tmp_path, center_rewards_coefficient=centre)
    trainer = trl.RewardTrainer(copy.deepcopy(model), args, train_dataset=Dataset.from_list(TEXTS), processing_class=tokenizer)
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(data)).item()
    assert ours(learner) == pytest.approx(theirs, abs=1e-5)
    assert abs(theirs - 0.6931) > 0.01


@pytest.mark.parametrize(
    ("loss", "trl_loss", "smoothing", "rows"),
    [("sigmoid", "sigmoid", 0.0, 4), ("hinge", "hinge", 0.0, 4), ("ipo", "ipo", 0.0, 4), ("sigmoid", "aot", 0.2, 1)],
)
def test_dpo_is_trls(parts, tmp_path, loss, trl_loss, smoothing, rows):
    """TRL has smoothed pairs as `aot`, which for a single pair sorts nothing."""
    from datasets import Dataset

    from pipeline.modeling.learning.pairs import Preferred

    tokenizer, start, now = parts
    given = {"dpo": {"beta": 0.3, "loss": loss, "label_smoothing": smoothing}}
    stage, train = encoded(Objective.DPO, PAIRS[:rows], tokenizer, tmp_path, **given)
    learner = Preferred(copy.deepcopy(now), train, train, stage, pad_id=0, reference=reference())

    sides = [(split(better), split(worse)) for better, worse in train]
    data = [{"prompt_ids": b[0], "chosen_ids": b[1], "rejected_ids": w[1]} for b, w in sides]
    args = quiet(trl.DPOConfig, tmp_path, beta=0.3, loss_type=[trl_loss], label_smoothing=smoothing, max_length=None)
    trainer = trl.DPOTrainer(
        copy.deepcopy(now), copy.deepcopy(start), args=args, train_dataset=Dataset.from_list(TEXTS), processing_class=tokenizer
    )
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(data)).item()
    assert ours(learner, start) == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.5, 0.5)])
def test_kto_is_trls(parts, tmp_path, weights):
    from datasets import Dataset

    from pipeline.modeling.learning.judged import Judged

    tokenizer, start, now = parts
    given = {"kto": {"beta": 0.2, "desirable_weight": weights[0], "undesirable_weight": weights[1]}}
    stage, train = encoded(Objective.KTO, JUDGED, tokenizer, tmp_path, **given)
    learner = Judged(copy.deepcopy(now), train, train, stage, pad_id=0, reference=reference())

    sides = [split(row) for (row,) in train]
    others = [answer for _, answer in sides[-1:] + sides[:-1]]
    data = [
        {"prompt_ids": prompt, "completion_ids": answer, "KL_completion_ids": other, "label": bool(good)}
        for (prompt, answer), other, good in zip(sides, others, train.extra["good"], strict=True)
    ]
    options = {"beta": 0.2, "desirable_weight": weights[0], "undesirable_weight": weights[1], "max_length": None}
    args = quiet(trl.KTOConfig, tmp_path, per_device_train_batch_size=4, **options)
    texts = [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "b", "completion": "c", "label": False}]
    trainer = trl.KTOTrainer(
        copy.deepcopy(now), copy.deepcopy(start), args=args, train_dataset=Dataset.from_list(texts), processing_class=tokenizer
    )
    theirs = trainer.compute_loss(trainer.model.train(), trainer.data_collator(data)).item()
    assert ours(learner, start) == pytest.approx(theirs, abs=1e-5)
    [divergence] = trainer._metrics["train"]["kl"]
    assert learner._divergence == pytest.approx(divergence, abs=1e-4)
    assert divergence > 0


def test_orpo_is_trls(parts, tmp_path):
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    from pipeline.modeling.learning.pairs import Odds
    from pipeline.modeling.texts.rows import IGNORED, pad

    tokenizer, _, now = parts
    stage, train = encoded(Objective.ORPO, PAIRS, tokenizer, tmp_path, orpo={"beta": 0.4})
    learner = Odds(copy.deepcopy(now), train, train, stage, pad_id=0)

    batch = {}
    for side, rows in (("chosen", [item[0] for item in train]), ("rejected", [item[1] for item in train])):
        padded = pad([row.input_ids for row in rows], 0)
        batch |= {f"{side}_input_ids": padded["input_ids"], f"{side}_attention_mask": padded["attention_mask"]}
        prompts = [split(item[1])[0] for item in train]
        labels = [[IGNORED] * len(p) + row.input_ids[len(p) :] for p, row in zip(prompts, rows, strict=True)]
        batch[f"{side}_labels"] = pad(labels, IGNORED)["input_ids"]
    args = quiet(ORPOConfig, tmp_path, beta=0.4, remove_unused_columns=False)
    trainer = ORPOTrainer(copy.deepcopy(now), args=args, train_dataset=Dataset.from_list(TEXTS), processing_class=tokenizer)
    theirs = trainer.compute_loss(trainer.model, batch).item()
    assert ours(learner) == pytest.approx(theirs, abs=1e-5)
