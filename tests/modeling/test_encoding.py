"""What each objective makes of rows of each kind, what becomes of every row, and what is kept for the next time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kinds_kit import answer, ask, document, feedback, label, preference, prompt, ranking, say, stage_for, write_rows
from modeling_kit import TEMPLATE

from pipeline.domain.data import ExampleKind
from pipeline.domain.tuning import LEARNS_FROM, Objective
from pipeline.errors import BadInput, Misuse


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    from pipeline.modeling.loading import load_tokenizer

    return load_tokenizer(tiny_base)


@pytest.fixture(scope="module")
def chat(tokenizer):
    from pipeline.modeling.texts.template import ChatTemplate

    return ChatTemplate(tokenizer, TEMPLATE)


@pytest.fixture
def make(tokenizer, chat, tmp_path):
    """Encodes rows; takes what encode takes."""
    from pipeline.modeling.texts.encoding import encode

    def made(rows, objective, *, kinds=None, labels=(), cache=None, template=chat, old=frozenset(), **stage):
        path = write_rows(tmp_path / "train.parquet", rows)
        kinds = kinds or LEARNS_FROM[objective]
        given = {"stage": stage_for(objective, **stage), "old": old, "cache": cache, "identity": "t" if cache else ""}
        return encode([path], objective, kinds, tokenizer, template, labels, **given)

    return made


def counted(encoded) -> dict[str, int]:
    """The counts that are not 0, after checking that every row is among them."""
    counts = encoded.counts
    dropped = sum(count for name, count in counts.items() if name.startswith("dropped_"))
    assert counts["read"] == counts["kept"] + counts["other_kinds"] + dropped
    assert counts["items"] == len(encoded)
    return {name: count for name, count in counts.items() if count}


def learned(tokenizer, row) -> str:
    from pipeline.modeling.texts.rows import IGNORED

    return tokenizer.decode([i for i in row.labels if i != IGNORED])


def test_sft_learns_answers_and_the_better_of_what_is_compared_when_asked(make, tokenizer):
    rows = [
        answer("a", "one"),
        preference("b", "two", "worse"),
        ranking("c", "three", "worse", "worst"),
        feedback("d", "four", good=True),
        feedback("e", "bad", good=False),
        prompt("f"),
    ]
    usual = make(rows, Objective.SFT)
    assert counted(usual) == {"read": 6, "kept": 1, "items": 1, "other_kinds": 5}
    more = make(rows, Objective.SFT, kinds=tuple(ExampleKind)[:6])
    assert [learned(tokenizer, row) for (row,) in more] == ["one<|end|>", "two<|end|>", "three<|end|>", "four<|end|>"]
    assert counted(more) == {"read": 6, "kept": 4, "items": 4, "other_kinds": 1, "dropped_bad": 1}


def test_of_a_side_of_several_messages_only_what_the_assistant_says_is_learned(make, chat, tokenizer):
    side = [*say("Hello."), {"role": "user", "content": "and?"}, *say("Bye.")]
    [[better, worse]] = make([preference("hi", side, "No.")], Objective.DPO)
    assert learned(tokenizer, better) == "Hello.<|end|>Bye.<|end|>"
    assert tokenizer.decode(better.input_ids).endswith("Hello.<|end|><|user|>and?<|end|><|assistant|>Bye.<|end|>")
    whole = json.dumps([{"role": "user", "content": "hi"}, *side[:2]])
    assert better.input_ids[: -len(chat.pairs([whole], ["Bye."])[0].answer)] == chat.prompts([whole])[0]
    assert learned(tokenizer, worse) == "No.<|end|>"


def test_pairs_come_of_preferences_and_of_each_neighbour_in_a_ranking(make, tokenizer):
    rows = [preference("a", "good", "bad"), ranking("b", "1", "2", "3"), preference("c", "same", "same"), ranking("d", "x", "x")]
    encoded = make(rows, Objective.DPO)
    sides = [tuple(learned(tokenizer, row).removesuffix("<|end|>") for row in item) for item in encoded]
    assert sides == [("good", "bad"), ("1", "2"), ("2", "3")]
    assert counted(encoded) == {"read": 4, "kept": 2, "items": 3, "dropped_equal": 2}
    assert encoded.extra["origin"].tolist() == [0, 1, 1]
    for better, worse in encoded:
        prompt_length = len(better.labels) - sum(i >= 0 for i in better.labels)
        assert better.input_ids[:prompt_length] == worse.input_ids[:prompt_length]
    partly = make([ranking("b", "1", "1", "3")], Objective.DPO)
    assert counted(partly) == {"read": 1, "kept": 1, "items": 1, "partly": 1}


def test_a_reward_model_sees_whole_texts_and_orpo_learns_the_better_one_whole(make, tokenizer):
    rows = [preference("a", "good", "bad")]
    [[better, worse]] = make(rows, Objective.REWARD)
    assert (better.labels, worse.labels) == ([], [])
    assert tokenizer.decode(better.input_ids) == "<s><|user|>a<|end|><|assistant|>good<|end|>"
    [[better, worse]] = make(rows, Objective.ORPO)
    assert better.labels == better.input_ids
    assert learned(tokenizer, worse) == "bad<|end|>"


def test_both_sides_of_a_pair_are_too_long_together_and_cut_alike(make):
    rows = [preference("long question " * 9, "a", "much longer answer"), preference("q", "a", "b" * 200)]
    encoded = make(rows, Objective.DPO, max_length=24)
    assert counted(encoded) == {"read": 2, "kept": 1, "items": 1, "cut": 1, "dropped_long": 1}
    [[better, worse]] = encoded
    assert len(better.input_ids) < len(worse.input_ids) == 24
    lengths = [sum(i < 0 for i in row.labels) for row in (better, worse)]
    assert lengths[0] == lengths[1]
    assert better.input_ids[: lengths[0]] == worse.input_ids[: lengths[0]]


def test_kto_judges_each_answer_by_itself(make, tokenizer):
    rows = [
        feedback("a", "yes", good=True),
        preference("b", "good", "bad"),
        feedback("c", "no", good=False),
        preference("d", "same", "same"),
    ]
    encoded = make(rows, Objective.KTO)
    said = [(learned(tokenizer, row), bool(good)) for (row,), good in zip(encoded, encoded.extra["good"], strict=True)]
    assert said == [("yes<|end|>", True), ("good<|end|>", True), ("bad<|end|>", False), ("no<|end|>", False)]
    assert counted(encoded) == {"read": 4, "kept": 3, "items": 4, "dropped_equal": 1}


def test_ppo_takes_the_conversation_and_keeps_the_answer_aside(make, tokenizer):
    rows = [answer("a", "one"), prompt("b"), preference("c", "two", "bad"), ranking("d", "three", "bad"), prompt("q " * 90)]
    encoded = make(rows, Objective.PPO)
    assert tokenizer.decode(encoded[0][0].input_ids) == "<s><|user|>a<|end|><|assistant|>"
    assert encoded.extra["answer"].tolist() == ["one", "", "two", "three", ""]
    assert max(len(row.input_ids) for (row,) in encoded) == 96 - 8  # room for the answer
    assert counted(encoded) == {"read": 5, "kept": 5, "items": 5, "cut": 1}
    with pytest.raises(Misuse, match="leaves no room for a prompt"):
        make(rows, Objective.PPO, max_length=8)


def test_documents_end_and_are_cut_in_pieces_of_which_every_token_is_predicted_once(make, tokenizer):
    text = "Lima is in Peru, and Oslo is in Norway. " * 5
    encoded = make([document(text), document("x <|end|> y"), document("")], Objective.PRETRAIN, max_length=16)
    assert counted(encoded) == {"read": 3, "kept": 2, "items": len(encoded), "cut": 1, "dropped_empty": 1}
    pieces = [row.input_ids for (row,), origin in zip(encoded, encoded.extra["origin"], strict=True) if origin == 0]
    whole = tokenizer(text)["input_ids"]
    predicted = [i for piece in pieces for i in piece[1:]]
    assert [pieces[0][0], *predicted] == [*whole, tokenizer.eos_token_id]
    assert max(map(len, pieces)) == 16
    [short] = [row.input_ids for (row,), origin in zip(encoded, encoded.extra["origin"], strict=True) if origin == 1]
    assert short.count(tokenizer.eos_token_id) == 1  # what a text spells is its letters


def test_pretrain_reads_whole_conversations_when_asked(make, tokenizer):
    rows = [answer("a", "one"), document("text")]
    encoded = make(rows, Objective.PRETRAIN, kinds=(ExampleKind.TEXT, ExampleKind.ANSWER))
    assert [learned(tokenizer, row) for (row,) in encoded] == ["<s><|user|>a<|end|><|assistant|>one<|end|>", "text<|end|>"]


def test_a_prompt_that_melts_into_the_answer_is_dropped_and_counted(make, tokenizer):
    """With no special token between them, byte pairs merge across the border of some rows."""
    from pipeline.modeling.texts.template import ChatTemplate

    loose = ChatTemplate(
        tokenizer, "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'user' %} I{% endif %}{% endfor %}"
    )
    good, bad = answer("x", " like it"), answer("x", "t is in Peru.")
    assert loose.pairs([bad[0]], [bad[1]]) == [None]
    encoded = make([good] * 30 + [bad], Objective.SFT, template=loose)
    assert counted(encoded) == {"read": 31, "kept": 30, "items": 30, "dropped_boundary": 1}
    with pytest.raises(Misuse, match="no prefix"):
        make([good] * 5 + [bad] * 5, Objective.SFT, template=loose)


def test_long_prompts_lose_their_start_and_long_answers_their_row(make, chat):
    from pipeline.modeling.texts.rows import IGNORED

    rows = [answer("a", "b"), answer("word " * 50 + "last", "b"), answer("a", "q" * 80)]
    encoded = make(rows, Objective.SFT, max_length=24)
    assert counted(encoded) == {"read": 3, "kept": 2, "items": 2, "cut": 1, "dropped_long": 1}
    [whole], [cut] = encoded
    [pair] = chat.pairs(*[[part] for part in rows[1][:2]])
    assert cut.input_ids == (pair.prompt + pair.answer)[-24:]
    assert cut.labels == [IGNORED] * (24 - len(pair.answer)) + pair.answer
    assert len(whole.input_ids) == len(whole.labels) < 24


def test_long_texts_lose_their_end_and_strange_labels_are_refused(make):
    rows = [label("a text of some words", "x"), label("another of that sort", "y")]
    encoded = make(rows, Objective.CLASSIFY, labels=("x", "y"), max_length=3, template=None)
    assert counted(encoded) == {"read": 2, "kept": 2, "items": 2, "cut": 2}
    assert [(len(row.input_ids), row.labels) for (row,) in encoded] == [(3, [0]), (3, [1])]
    with pytest.raises(BadInput, match=r"train\.parquet|'y' is none of the 1 labels"):
        make(rows, Objective.CLASSIFY, labels=("x",))


def test_a_base_without_a_template_is_named_where_one_is_needed(make):
    assert len(make([document("text")], Objective.PRETRAIN, template=None)) == 1
    with pytest.raises(Misuse, match="no chat template") as error:
        make([answer("a", "b")], Objective.SFT, template=None)
    assert error.value.where == "model.chat_template"


@pytest.mark.parametrize("output", ["", "[]", "{}", '{"chosen":[],"rejected":[]}', '{"chosen":[{"role":"user","content":"x"}]}'])
def test_outputs_that_are_not_what_their_kind_holds_are_refused(make, output):
    with pytest.raises(BadInput, match="of the kind preference"):
        make([(ask("a"), output, "preference")], Objective.DPO)


def test_an_empty_split_is_empty_and_an_unreadable_one_is_named(make, tokenizer, chat, tmp_path):
    from pipeline.modeling.texts.encoding import encode

    empty = make([], Objective.SFT)
    assert (len(empty), empty.lengths, empty.counts["read"]) == (0, [], 0)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(BadInput, match="cannot be read") as error:
        encode([broken], Objective.SFT, LEARNS_FROM[Objective.SFT], tokenizer, chat, (), stage=stage_for(Objective.SFT))
    assert error.value.where == str(broken)


def test_old_parts_and_tasks_are_told_of_each_item(tokenizer, chat, tmp_path):
    from pipeline.modeling.texts.encoding import encode

    rows = [ranking("a", "1", "2", "3"), answer("x", "y"), preference("b", "1", "2")]
    paths = [write_rows(tmp_path / name, rows, sources=("a.jsonl", "b.jsonl")) for name in ("one.parquet", "two.parquet")]
    stage = stage_for(Objective.DPO, mix={"weights": {"a.jsonl": 2.0}})
    pairs, old = LEARNS_FROM[Objective.DPO], frozenset({"two.parquet"})
    found = encode(paths, Objective.DPO, pairs, tokenizer, chat, (), stage=stage, old=old)
    assert found.old.tolist() == [False] * 3 + [True] * 3
    assert found.tasks == ["a.jsonl"] * 6
    by_kind = stage_for(Objective.DPO, mix={"by": "kind", "weights": {"ranking": 2.0}})
    found = encode(paths, Objective.DPO, pairs, tokenizer, chat, (), stage=by_kind)
    assert found.tasks == ["ranking", "ranking", "preference"] * 2
    assert encode(paths, Objective.DPO, (), tokenizer, chat, (), stage=stage_for(Objective.DPO)).tasks == []


def test_what_was_tokenised_is_kept_by_content_and_a_torn_file_is_made_again(make, tmp_path, monkeypatch):
    from pipeline.modeling.texts.items import Maker

    rows, cache = [answer(f"q {n}", "yes" * n) for n in range(1, 9)], tmp_path / "cache"
    made: list[int] = []
    real = Maker.__init__
    plain = make(rows, Objective.SFT)

    def counting(self, *given, **named):
        real(self, *given, **named)
        inner = self.make
        self.make = lambda *columns: made.append(1) or inner(*columns)

    monkeypatch.setattr(Maker, "__init__", counting)
    for times in (1, 1, 1):
        found = make(rows, Objective.SFT, cache=cache)
        assert (list(found), found.counts, len(made)) == (list(plain), plain.counts, times)
    assert make(rows, Objective.SFT, cache=cache, max_length=64).digest == plain.digest
    assert len(made) == 2  # another length is another content
    first = min(cache.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    for spoil in (lambda data: data[:-9], lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:], lambda data: b""):
        first.write_bytes(spoil(first.read_bytes()))
        assert list(make(rows, Objective.SFT, cache=cache)) == list(plain)
    assert len(made) == 5
    make([*rows[:-1], answer("q 8", "yes")], Objective.SFT, cache=cache)
    assert len(made) == 6
    assert not [file for file in cache.iterdir() if file.name.startswith(".")]


def test_a_cache_that_cannot_be_written_is_done_without(make, tmp_path, caplog):
    (tmp_path / "cache").write_text("in the way")
    assert len(make([answer("a", "b")], Objective.SFT, cache=tmp_path / "cache")) == 1
    assert "made in memory" in caplog.text


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=300),
    batch=st.integers(1, 17),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 9),
)
def test_each_epoch_sees_each_row_once_in_an_order_of_its_own(lengths, batch, seed, epoch):
    from pipeline.modeling.texts.rows import EpochOrder

    order = EpochOrder(lengths, batch_size=batch, seed=seed)
    order.epoch = epoch
    seen = list(order)
    assert sorted(seen) == list(range(len(lengths)))
    assert seen == list(order)


items = st.lists(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), min_size=1, max_size=3), max_size=20)


@given(items)
def test_items_are_kept_as_they_are(found):
    from pipeline.modeling.texts.rows import IGNORED, Row, of_items

    given = [[Row(ids, [IGNORED if i % 2 else i for i in ids]) for ids in item] for item in found]
    encoded = of_items(given)
    assert list(encoded) == given
    assert encoded.lengths == [max(map(len, item)) * len(item) for item in found]
    assert encoded.learned.tolist() == [sum(i % 2 == 0 for ids in item for i in ids[1:]) for item in found]


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=12), st.integers(0, 20))
def test_batches_hold_each_row_whole_and_point_at_what_is_predicted(texts, width):
    from pipeline.modeling.texts.rows import IGNORED, Row, collate, collate_packed

    rows = [Row(ids, [IGNORED if i % 3 else i for i in ids]) for ids in texts]
    wanted = [
        (n, row.input_ids[:at], label)
        for n, row in enumerate(rows)
        for at, label in enumerate(row.labels)
        if at > 0 and label != IGNORED
    ]
    for batch in (collate(rows, 0), collate_packed(rows, 0, width=width)):
        flat, found = batch["input_ids"].flatten().tolist(), []
        positions = batch["position_ids"].flatten().tolist() if "position_ids" in batch else None
        for place, target, owner in zip(*(batch[name].tolist() for name in ("places", "targets", "owners")), strict=True):
            start = place - positions[place] if positions else place - place % batch["input_ids"].shape[1]
            found.append((owner, flat[start : place + 1], target))
        assert found == wanted
        assert batch["tokens"].tolist() == [sum(owner == n for owner, _, _ in wanted) for n in range(len(rows))]
        assert sum(map(len, texts)) == sum(i > 0 for i in flat)
    assert collate(rows, 0)["attention_mask"].sum(1).tolist() == [len(row.input_ids) for row in rows]
