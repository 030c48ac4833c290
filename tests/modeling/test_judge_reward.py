"""A reward model as judge: trained on pairs, admitted, and asked which of two answers is better."""

from __future__ import annotations

import shutil

import pytest
import torch
from job_kit import new_job, tuned
from kinds_kit import ask, preference, write_rows
from modeling_kit import CITIES, model_params
from safetensors.torch import load_file, save_file

from pipeline.domain.tuning import Objective
from pipeline.errors import Broken, Misuse
from pipeline.evaluation.judging import net_wins
from pipeline.evaluation.rows import Said
from pipeline.modeling.adapters.admission import load_adapter
from pipeline.modeling.adapters.handshake import WEIGHTS
from pipeline.modeling.answering.judge import RewardJudge
from pipeline.modeling.base import describe_base
from pipeline.modeling.forward import pooled_logits
from pipeline.modeling.loading import inference
from pipeline.modeling.texts.encoding import encode
from pipeline.modeling.texts.rows import pad
from pipeline.modeling.texts.template import ChatTemplate
from pipeline.ports import Question

PAIRS = [
    preference(f"Where is {city}{'?' * n}", f"It is in {land}.", "No.") for n in range(1, 4) for city, land in CITIES.items()
]


@pytest.fixture(scope="module")
def reward(tiny_base, tmp_path_factory):
    """A reward model that has learned to like answers and not refusals."""
    home = tmp_path_factory.mktemp("reward")
    write_rows(home / "train" / "part.parquet", PAIRS)
    write_rows(home / "eval" / "part.parquet", PAIRS[:4])
    job = new_job(Objective.REWARD, tiny_base, home, max_steps=25, save_steps=25, eval_steps=25, dropout=0.0)
    tuned(job)
    return job


@pytest.fixture
def judge(tiny_base, reward):
    return RewardJudge(reward.adapter, tiny_base, model_params(tiny_base), batch_size=4)


def test_it_prefers_what_it_was_taught_in_either_order(judge):
    inputs = [ask(f"Where is {city}") for city in ("Oslo", "Lima", "Bern")]
    ours, theirs = Said(["It is in Norway.", "No.", "It is in Peru."]), Said(["No.", "It is in Peru.", "It is in Peru."])
    seen = []
    assert net_wins(judge, inputs, ours, theirs, progress=lambda what, done, total: seen.append((done, total))) == [1, -1, 0]
    assert seen == [(4, 4)]  # two pairs in two orders are four texts
    assert judge.prefer([Question(inputs[0], "No.", "It is in Norway."), Question(inputs[0], "No.", "No.")]) == [0, 0.5]
    assert judge.why_not() == ""


def test_scores_are_those_that_it_gave_in_training(judge, tiny_base, reward, tmp_path):
    path = write_rows(tmp_path / "part.parquet", PAIRS[:5])
    template = ChatTemplate(judge._tokenizer, reward.template)
    kinds = reward.stage.learns_from(reward.task)
    encoded = encode((path,), Objective.REWARD, kinds, judge._tokenizer, template, (), stage=reward.stage)
    classifier, _ = load_adapter(reward.adapter, tiny_base, describe_base(model_params(tiny_base), tiny_base))
    with inference():
        batches = [pad([row.input_ids for row in encoded[n]], judge._tokenizer.pad_token_id) for n in range(5)]
        wanted = torch.stack([pooled_logits(classifier, batch).squeeze(-1) for batch in batches])
    for n, city in enumerate(list(CITIES)[:5]):
        found = judge.scores([ask(f"Where is {city}?")] * 2, [f"It is in {CITIES[city]}.", "No."])
        assert found == pytest.approx(wanted[n].tolist(), abs=1e-5)


def test_a_prompt_that_is_too_long_loses_its_start(judge, reward):
    room = reward.stage.max_length
    long, longer = (ask("x " * times * room + "Where is Oslo") for times in (2, 3))
    first, second = judge.scores([long, longer], ["It is in Norway."] * 2)
    assert first == pytest.approx(second, abs=1e-5)
    assert len(judge.scores([ask("Where is Oslo")], ["No. " * 2 * room])) == 1


def test_it_reads_no_rubric_and_says_so(judge):
    assert judge.holds("is polite", ask("Hi"), "Hello") is None
    assert judge.why_not() == "1 times because a reward model reads no rubric"


def test_scores_that_are_no_numbers_are_no_verdict(judge, monkeypatch):
    judge.scores([ask("Hi")], ["It is in Peru."])
    monkeypatch.setitem(judge._known, (ask("Hi"), "bad"), float("nan"))
    assert judge.prefer([Question(ask("Hi"), "bad", "It is in Peru.")]) == [None]
    assert "no numbers" in judge.why_not()


def test_it_is_known_by_its_content(judge, tiny_base, reward, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(reward.adapter, copy)
    assert RewardJudge(copy, tiny_base, model_params(tiny_base)).name == judge.name
    assert judge.name.startswith("reward model ")
    held = load_file(copy / WEIGHTS)
    turned = {key: -tensor if key.endswith("score.weight") else tensor for key, tensor in held.items()}
    assert any(not torch.equal(turned[key], held[key]) for key in held)
    save_file(turned, copy / WEIGHTS)  # it would prefer the worse
    changed = RewardJudge(copy, tiny_base, model_params(tiny_base))
    assert changed.name != judge.name
    with pytest.raises(Broken):  # it does not answer its probe as when it was written
        changed.prefer([Question(ask("Hi"), "a", "b")])


def test_what_is_no_reward_model_is_refused(tiny_base, tmp_path):
    job = new_job(Objective.SFT, tiny_base, tmp_path, max_steps=3)
    tuned(job)
    with pytest.raises(Misuse, match="a judge gives a score") as caught:
        RewardJudge(job.adapter, tiny_base, model_params(tiny_base))
    assert caught.value.where == "evaluate.judge.model"
