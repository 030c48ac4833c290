"""Sharing what prompts have in common, early ends and memory change how fast an answer comes, never the answer."""

from __future__ import annotations

import random
import sqlite3

import pytest
from modeling_kit import CITIES, model_params
from tuner_kit import SHAPES, build_lively_base, make

from pipeline.domain.data import messages_to_input
from pipeline.errors import Misuse

EXAMPLES = "".join(f"Where is {city}? It is in {land}.\n" for city, land in CITIES.items())
PROMPTS = [EXAMPLES + f"Where is {city}" + "?" * (n % 3 + 1) for n, city in enumerate(sorted(CITIES) * 2)] + ["Where", "Is "]
CHOICES = [[f" {land}" for land in CITIES.values()], [" it", " it is", " it is in", " it"], [" no"]] * 4 + [
    ["x", " Peru"],
    ["in"],
]
KINDS = ("lora", "full", "prompt", "prefix", "qlora")


def ask(text: str) -> str:
    return messages_to_input([{"role": "user", "content": text}])


@pytest.fixture(scope="module")
def lively(tiny_base, tmp_path_factory):
    import json

    base = build_lively_base(tmp_path_factory.mktemp("answering") / "base", tiny_base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    return base


@pytest.fixture(scope="module")
def folders(lively, tmp_path_factory):
    home = tmp_path_factory.mktemp("answering_adapters")
    for name in KINDS:
        make(lively, home / name, by=0.1, **SHAPES[name])
    return home


@pytest.fixture(scope="module")
def subjects(lively, folders):
    from pipeline.modeling.answering.generate import Subjects

    found = Subjects(lively, model_params(lively))
    for name in KINDS:
        found.add(name, folders / name)
    return found


def by_hand(subjects, name: str, prompt: str, choice: str) -> float:
    """As lm-evaluation-harness has it: spaces go to the choice, both are tokenised together, one forward, no cache."""
    import torch

    bare = prompt.rstrip()
    context = subjects.tokenizer.encode(bare)
    whole = subjects.tokenizer.encode(prompt + choice)
    ids = torch.tensor([context + whole[len(context) :]])
    model = subjects._model(name)
    with torch.no_grad(), subjects._active(name):
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, -ids.shape[1] :]
    spread = logits.float().log_softmax(-1)
    return float(sum(spread[n - 1, ids[0, n]] for n in range(len(context), ids.shape[1])))


@pytest.mark.parametrize("name", ["base", *KINDS])
def test_choices_after_a_plain_prompt_are_as_likely_as_one_finds_by_hand(name, subjects):
    found = subjects.choices(name, PROMPTS, CHOICES, raw=True, batch_size=3)
    assert [len(row) for row in found] == [len(row) for row in CHOICES]
    for place in (0, 1, 2, 10, 12, 13):
        for (value, tokens), choice in zip(found[place], CHOICES[place], strict=True):
            assert tokens > 0
            assert value == pytest.approx(by_hand(subjects, name, PROMPTS[place], choice), abs=1e-4)


@pytest.mark.parametrize("name", ["base", *KINDS])
def test_choices_after_a_chat_are_the_likelihoods_of_whole_answers(name, subjects):
    inputs = [ask(f"Where is {city}?") for city in CITIES]
    options = [["Norway", "It is in Peru.", "no"]] * len(inputs)
    found = subjects.choices(name, inputs, options, batch_size=4)
    alone = subjects.log_probs(name, [i for i in inputs for _ in range(3)], [o for row in options for o in row], total=True)
    assert [value for row in found for value, _ in row] == pytest.approx(alone, abs=1e-4)


def test_a_prompt_without_text_follows_the_start_token_and_one_too_long_loses_its_start(subjects):
    import torch

    [[(value, tokens)]] = subjects.choices("base", [""], [["Where is Oslo?"]], raw=True)
    ids = torch.tensor([[1, *subjects.tokenizer.encode("Where is Oslo?", add_special_tokens=False)]])
    with torch.no_grad(), subjects._active("base"):
        spread = subjects._model("base")(input_ids=ids).logits[0].log_softmax(-1)
    assert tokens == ids.shape[1] - 1
    assert value == pytest.approx(float(sum(spread[n - 1, ids[0, n]] for n in range(1, ids.shape[1]))), abs=1e-4)
    long, longer = (subjects.choices("base", ["y" * n + "?"], [[" Peru", " no, it is"]], raw=True)[0] for n in (4000, 5000))
    assert long == longer
    with pytest.raises(Misuse, match="has room for 512"):
        subjects.choices("base", ["a"], [["xyz" * 400]], raw=True)
    with pytest.raises(Misuse, match="no token of its own"):
        subjects.choices("base", ["a"], [[""]], raw=True)


@pytest.mark.parametrize("name", ["base", *KINDS])
def test_plain_answers_are_the_librarys_own(name, subjects):
    """Shared examples, early ends and shrinking batches against generate() of one prompt at a time."""
    import torch

    said = subjects.answers(name, PROMPTS, raw=True, max_new_tokens=24, stop=["e", "is"], batch_size=5)
    assert len(set(said)) > 3
    if name in ("prompt", "prefix"):  # the library's own way with them is held in test_tuners_asked
        assert said == [subjects.answers(name, [p], raw=True, max_new_tokens=24, stop=["e", "is"])[0] for p in PROMPTS]
        return
    for prompt, answer in list(zip(PROMPTS, said, strict=True))[::3]:
        ids = torch.tensor([subjects.tokenizer.encode(prompt)])
        with subjects._active(name):
            made = subjects._model(name).generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, eos_token_id=2
            )
        text = subjects.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
        assert answer == text.split("e")[0].split("is")[0]


def test_an_answer_ends_with_its_stop_and_no_more_is_made(subjects):
    inputs = [ask(f"Where is {city}" + "?" * n) for n, city in enumerate(CITIES)]
    whole = subjects.answers("full", inputs, max_new_tokens=40)
    before = subjects.spent("full")
    stopped = subjects.answers("full", inputs, max_new_tokens=40, stop=["a"])
    after = subjects.spent("full")
    assert stopped == [text.split("a")[0] for text in whole]
    assert any("a" in text for text in whole)
    assert after.answers - before.answers == len(inputs)
    made = after.answer_tokens - before.answer_tokens
    ids = [subjects.tokenizer.encode(text + "a", add_special_tokens=False) for text in stopped]
    assert made <= sum(map(len, ids)) + 2 * len(ids)
    assert after.prompt_tokens > before.prompt_tokens


def test_models_whose_states_cannot_be_shared_answer_the_same(subjects, monkeypatch):
    from pipeline.modeling.answering import greedy, scoring

    def asked() -> tuple:
        return (
            subjects.answers("lora", PROMPTS, raw=True, max_new_tokens=10, stop=["e"]),
            [round(value, 3) for row in subjects.choices("lora", PROMPTS, CHOICES, raw=True) for value, _ in row],
        )

    shared = asked()
    for module in (greedy, scoring):
        monkeypatch.setattr(module, "shareable", lambda model: False)
    answers, likelihoods = asked()
    assert answers == shared[0]
    assert likelihoods == pytest.approx(shared[1], abs=2e-3)


def test_prefixes_are_shared_where_it_pays_and_every_prompt_is_in_one_group():
    from pipeline.modeling.answering.prefixes import grouped

    drawn = random.Random(3)
    few_shot = [[drawn.randrange(9) for _ in range(300)] for _ in range(3)]
    start = [7] * 20
    prompts = [start + few_shot[n % 3] + [drawn.randrange(9) for _ in range(drawn.randrange(1, 40))] for n in range(60)]
    prompts += [[drawn.randrange(9) for _ in range(30)] for _ in range(5)]
    found = grouped(prompts, batch_size=32)
    assert sorted(place for group in found for place in group.places) == list(range(len(prompts)))
    for group in found:
        assert len({tuple(prompts[place][: group.length]) for place in group.places}) == 1
        assert all(len(prompts[place]) > group.length for place in group.places)
    assert sorted(group.length for group in found)[-3:] >= [320] * 3
    assert [group.length for group in grouped([[5, 6]] * 3, batch_size=2)] == [0]
    assert [group.length for group in grouped([[5] * 90] * 3, batch_size=2)] == [89]
    assert grouped([], batch_size=2) == []


def test_what_was_asked_before_is_remembered_by_content_and_nothing_else(lively, folders, tmp_path, monkeypatch):
    from pipeline.modeling.answering import weighing
    from pipeline.modeling.answering.generate import Subjects

    inputs = [ask(f"Where is {city}?") for city in CITIES]

    def asked(adapter: str, name: str, **more):
        subjects = Subjects(lively, model_params(lively), cache=tmp_path)
        subjects.add(name, folders / adapter)
        return subjects.answers(name, inputs, **({"max_new_tokens": 6} | more)), subjects.spent(name).remembered

    first, none = asked("lora", "a")
    assert none == 0
    assert asked("lora", "b") == (first, len(inputs))  # another name, the same content
    assert asked("full", "a")[1] == 0
    assert asked("lora", "a", max_new_tokens=5)[1] == 0
    assert asked("lora", "a", stop=["x"])[1] == 0
    subjects = Subjects(lively, model_params(lively), cache=tmp_path)
    subjects.add("a", folders / "lora")
    likely = subjects.choices("a", PROMPTS, CHOICES, raw=True), subjects.log_probs("a", inputs, ["yes"] * len(inputs))
    monkeypatch.setattr(weighing, "score", None)
    assert (subjects.choices("a", PROMPTS, CHOICES, raw=True), subjects.log_probs("a", inputs, ["yes"] * len(inputs))) == likely
    with sqlite3.connect(tmp_path / "answers.sqlite") as store:
        store.execute("UPDATE kept SET value = replace(value, '[', '[ ')")
    assert asked("lora", "a") == (first, 0)  # changed by another hand: not believed
    (tmp_path / "answers.sqlite").write_bytes(b"no database at all" * 100)
    assert asked("lora", "a") == (first, 0)
    assert asked("lora", "a") == (first, len(inputs))


def test_what_is_remembered_is_bounded(tmp_path):
    from pipeline.modeling.answering.remembered import Remembered, key

    kept = Remembered(tmp_path, most=3)
    names = [key(n) for n in range(5)]
    for n, name in enumerate(names):
        kept.keep({name: [n, "x"]})
    assert kept.find(names) == {names[n]: [n, "x"] for n in (2, 3, 4)}
    assert Remembered(None).find(names) == {}


def test_every_subject_has_vectors_of_texts(subjects):
    import numpy as np

    texts = ["Where is Oslo?", "", "It is in Norway, far away."]
    base, lora = (subjects.embeddings(name, texts, batch_size=2) for name in ("base", "lora"))
    assert base.shape == lora.shape == (3, 32)
    assert not np.allclose(base[0], lora[0])
    assert np.isfinite(base).all()
    assert base[0] == pytest.approx(subjects.embeddings("base", texts[:1])[0], abs=1e-5)
