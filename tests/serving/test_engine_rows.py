"""Rows that are answered together: each as it would be by itself, by its own adapter, whoever comes and goes beside it."""

from __future__ import annotations

import json
import random

import pytest
from modeling_kit import CITIES, model_params
from tuner_kit import SHAPES, make

from pipeline.domain.data import messages_to_input
from pipeline.errors import BadInput

QUESTIONS = [f"Where is {city}?" + " Tell me." * (n % 4) for n, city in enumerate(sorted(CITIES) * 2)]
TUNED = {
    "one": ("lora", 5, 0.1),
    "two": ("rslora", 6, 0.1),
    "dora": ("dora", 7, 0.1),
    "prefix": ("prefix", 8, 0.3),
    "full": ("full", 9, 0.05),
}


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def world(lively, tmp_path_factory):
    """Voices of several tuners on one base, and what each says greedily by the code that evaluation measures with."""
    import tuner_kit

    from pipeline.modeling.answering.generate import Subjects
    from pipeline.modeling.answering.together import Together

    home = tmp_path_factory.mktemp("voices")
    subjects, together = Subjects(lively, model_params(lively)), Together(lively, model_params(lively))
    voices, expected = {}, {}
    original = tuner_kit.nudge
    try:
        for name, (shape, seed, by) in TUNED.items():
            tuner_kit.nudge = lambda model, by, seed=seed: original(model, by, seed)
            make(lively, home / name, by=by, **SHAPES[shape])
            subjects.add(name, home / name)
            voices[name] = together.put(together.judge(home / name))
            asked = [messages_to_input(chat(question)) for question in QUESTIONS]
            expected[name] = subjects.answers(name, asked, max_new_tokens=20)
    finally:
        tuner_kit.nudge = original
    assert len({tuple(said) for said in expected.values()}) == len(TUNED)
    return together, voices, expected


def row(together, voice, text, *, most=20, **more):
    from pipeline.modeling.answering.sampling import Choice

    choice = Choice(more.pop("temperature", 0.0), more.pop("top_p", 1.0), more.pop("seed", 0))
    ids = together.prompt_ids(voice, chat(text), None)
    return together.row(voice, ids, chat=True, most=most, choice=choice, **more)


def answered(together, rows, order=None):
    """Answers of all rows; order: a random order in which they join, a few between steps."""
    waiting, said, finish = list(rows), {id(r): "" for r in rows}, {}
    while waiting or any(lane.rows for lane in together.lanes):
        count = len(waiting) if order is None else order.randint(0, 3)
        coming, waiting = waiting[:count], waiting[count:]
        moved = []
        for lane in together.lanes:
            moved += lane.join([r for r in coming if r.tag is lane])
            moved += lane.step()
        for r, what in moved:
            if isinstance(what, Exception):
                raise what
            said[id(r)] += what.text
            finish[id(r)] = what.finish or finish.get(id(r))
    assert all(finish.get(id(r)) for r in rows)
    return [said[id(r)] for r in rows]


def tagged(voice, r):
    r.tag = voice.lane
    return r


@pytest.mark.parametrize("seed", [None, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_rows_of_all_adapters_say_what_each_says_alone(world, seed):
    together, voices, expected = world
    asked = [(name, n) for n in range(len(QUESTIONS)) for name in voices]
    order = None if seed is None else random.Random(seed)
    if order:
        order.shuffle(asked)
    rows = [tagged(voices[name], row(together, voices[name], QUESTIONS[n])) for name, n in asked]
    assert answered(together, rows, order) == [expected[name][n] for name, n in asked]


def test_loras_share_one_lane_and_calls(world):
    _, voices, _ = world
    assert voices["one"].lane is voices["two"].lane
    assert len({id(v.lane) for v in voices.values()}) == 4


def test_a_seed_draws_the_same_whoever_is_beside_it(world):
    together, voices, expected = world
    alone = answered(
        together, [tagged(voices["one"], row(together, voices["one"], "Where?", temperature=1.0, seed=n)) for n in range(4)]
    )
    crowd = [tagged(voices["two"], row(together, voices["two"], q, temperature=0.7, top_p=0.9, seed=3)) for q in QUESTIONS[:6]]
    again = [tagged(voices["one"], row(together, voices["one"], "Where?", temperature=1.0, seed=n)) for n in range(4)]
    mixed = answered(together, [*crowd[:3], *again, *crowd[3:]], random.Random(4))
    assert mixed[3:7] == alone
    assert len(set(alone)) == 4
    nucleus = [
        tagged(voices["one"], row(together, voices["one"], QUESTIONS[n], temperature=1.0, top_p=1e-9, seed=n)) for n in range(5)
    ]
    assert answered(together, nucleus) == expected["one"][:5]


def test_stop_strings_end_an_answer_and_are_held_back(world):
    together, voices, expected = world
    whole = expected["one"][0]
    stop = whole[4:7]
    said = answered(together, [tagged(voices["one"], row(together, voices["one"], QUESTIONS[0], stop=(stop, "never"), most=20))])
    assert said == [whole.split(stop)[0]]


def test_logprobs_are_those_of_the_model(world):
    import torch

    together, voices, _ = world
    r = tagged(voices["one"], row(together, voices["one"], QUESTIONS[1], logprobs=3, most=6))
    chances = []
    moved = r.tag.join([r])
    while moved:
        chances += [chance for _, what in moved for chance in what.chances]
        moved = r.tag.step()
    assert len(chances) == len(r.made)
    voices["one"].adapters.only(voices["one"].name)
    ids = torch.tensor([r.prompt + r.made])
    with torch.no_grad():
        sure = voices["one"].model(input_ids=ids).logits[0, len(r.prompt) - 1 : -1].log_softmax(-1)
    for n, (token, chance) in enumerate(zip(r.made, chances, strict=True)):
        assert chance.logprob == pytest.approx(float(sure[n, token]), abs=1e-4)
        assert chance.top[0][1] == pytest.approx(float(sure[n].max()), abs=1e-4)
        assert len(chance.top) == 3


def test_answers_held_to_a_schema_are_of_it(world):
    together, voices, _ = world
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    rows = [
        tagged(voices["two"], row(together, voices["two"], q, schema=schema, most=60, temperature=1.0, seed=n))
        for n, q in enumerate(QUESTIONS[:4])
    ]
    free = tagged(voices["one"], row(together, voices["one"], QUESTIONS[0]))
    said = answered(together, [*rows, free], random.Random(1))
    for text in said[:4]:
        made = json.loads(text)
        assert set(made) == {"city", "sure"}
        assert made["city"] in ("Oslo", "Rome")
    assert said[4] == world[2]["one"][0]
    for bad in (
        {"type": "nothing"},
        {"$ref": "http://x/y"},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}},
    ):
        with pytest.raises(BadInput):
            row(together, voices["one"], "x", schema=bad)


def test_a_cancelled_row_leaves_others_as_they_are(world):
    together, voices, expected = world
    rows = [tagged(voices["one"], row(together, voices["one"], q)) for q in QUESTIONS[:5]]
    lane = voices["one"].lane
    said = {id(r): what.text for r, what in lane.join(rows)}
    lane.leave(rows[1])
    lane.leave(rows[4])
    while lane.rows:
        for r, what in lane.step():
            said[id(r)] += what.text
    assert [said[id(rows[n])] for n in (0, 2, 3)] == [expected["one"][n] for n in (0, 2, 3)]


def test_what_is_too_long_or_nothing_is_refused(world):
    together, voices, _ = world
    for wrong in (
        {"messages": chat("x"), "prompt": "y"},
        {"messages": None, "prompt": None},
        {"messages": [{"role": 1}], "prompt": None},
    ):
        with pytest.raises(BadInput):
            together.prompt_ids(voices["one"], **wrong)
    with pytest.raises(BadInput, match="room for"):
        row(together, voices["one"], "Where is Oslo? " * 100)
    long = row(together, voices["one"], "Where? " * 16, most=500)
    assert len(long.prompt) + long.most == voices["one"].limit


def test_a_prefix_that_was_read_is_found_for_its_own_adapter_only(world):
    together, voices, _ = world
    same = "Where is Oslo? And where is Rome? Is it in Italy? Where is Bern? " * 2
    asked = [(name, same + tail) for tail in ("Tell me.", "Say it!") for name in ("one", "two")]
    fresh = [tagged(voices[name], row(together, voices[name], text, most=12)) for name, text in asked]
    kept, together.prefixes._most = together.prefixes._most, 0
    try:
        expected = answered(together, fresh)
    finally:
        together.prefixes._most = kept
    hits = together.prefixes.hits
    for _ in range(2):
        for (name, text), right in zip(asked, expected, strict=True):
            assert answered(together, [tagged(voices[name], row(together, voices[name], text, most=12))]) == [right]
    assert together.prefixes.hits - hits == 6
    # The same without digests, to see that this would show.
    blind = type(together.prefixes)(1 << 14)
    right, blind.keep, blind.find = (blind.keep, blind.find), None, None
    blind.keep = lambda digest, ids, states: right[0]("", ids, states)
    blind.find = lambda digest, ids: right[1]("", ids)
    lane = voices["one"].lane
    before, lane._prefixes = lane._prefixes, blind
    try:
        said = [answered(together, [tagged(voices[n], row(together, voices[n], t, most=12))])[0] for n, t in asked]
    finally:
        lane._prefixes = before
    assert said != expected


def test_bases_with_another_memory_go_on_row_by_row(lively, tmp_path):
    """A base that sees a window of its text alone: its memory cannot be shared, its rows can still come and go."""
    import shutil

    import torch
    from serving_world import expected, make_adapter
    from transformers import MistralConfig, MistralForCausalLM

    from pipeline.modeling.answering.together import Together

    base = tmp_path / "window"
    shutil.copytree(lively, base)
    torch.manual_seed(4)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"vocab_size": 320, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = MistralConfig(**sizes, **ids, num_key_value_heads=2, sliding_window=8, initializer_range=0.3)
    MistralForCausalLM(config).save_pretrained(base)
    folders = {str(n): make_adapter(base, tmp_path / str(n), seed=n) for n in (1, 2)}
    right = expected(base, folders, QUESTIONS[:4])
    together = Together(base, model_params(base))
    voices = {name: together.put(together.judge(folder)) for name, folder in folders.items()}
    assert not voices["1"].lane.shared_memory
    asked = [(name, n) for n in range(4) for name in voices]
    rows = [tagged(voices[name], row(together, voices[name], QUESTIONS[n], most=12)) for name, n in asked]
    assert answered(together, rows, random.Random(2)) == [right[name][n] for name, n in asked]
    assert not voices["1"].lane._own_states
