"""Statistics of shards: right against a plain count, additive, bounded, and the same bytes each time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_snapshots import example, grow

from pipeline.curation import lengths
from pipeline.curation.describing import read_description, write_description
from pipeline.curation.shards import SCHEMA
from pipeline.curation.sketches import distinct
from pipeline.curation.statistics import MOST_BYTES, SAMPLE_ROWS, Counted, Statistics, add_up, count
from pipeline.domain.data import EXAMPLE_COLUMNS, Example, ExampleKind, Task, messages_to_input
from pipeline.domain.record import canonical_json
from pipeline.errors import Tampered
from pipeline.spoken.languages import language, scripts
from pipeline.spoken.plain_text import input_text, output_text


def batches(examples: list[Example], rows: int = 1000) -> list[pa.RecordBatch]:
    columns = {name: [getattr(e, name) for e in examples] for name in EXAMPLE_COLUMNS}
    return pa.Table.from_pydict(columns, schema=SCHEMA).to_batches(max_chunksize=rows)


def labelled(texts: list[str], labels: list[str], source: str = "a.csv") -> list[Example]:
    return [example(t, n, source=source, line=i, label=True) for i, (t, n) in enumerate(zip(texts, labels, strict=True), start=1)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 3_000_000_000), max_size=200), st.integers(0, 200))
def test_histograms_of_parts_are_that_of_the_whole(values: list[int], cut: int) -> None:
    whole = lengths.measure(values)
    assert lengths.add_up([lengths.measure(values[:cut]), lengths.measure(values[cut:])]) == whole
    assert (whole.rows, whole.total) == (len(values), sum(values))
    for share in (0.1, 0.5, 0.95):
        if values:
            truth = int(np.quantile(values, share, method="inverted_cdf"))
            assert truth <= whole.quantile(share) <= max(truth * 1.2 + 1, whole.least)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["user", "assistant", "system", "tool"]),
            st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters='"\\\n\t'), max_size=40),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_lengths_of_conversations_are_those_of_their_words(turns: list[tuple[str, str]]) -> None:
    input = messages_to_input([{"role": role, "content": content} for role, content in turns])
    row = Example("0" * 32, "0" * 32, input, "x", "{}", "s", 1)
    assert count(batches([row])).input.total == sum(len(content) for _, content in turns)


def test_counts_are_those_of_a_plain_count() -> None:
    texts = [f"text number {i} {'x' * (i % 50)}" for i in range(3000)]
    labels = [f"label {i % 7}" for i in range(3000)]
    examples = labelled(texts[:2000], labels[:2000]) + labelled(texts[2000:], labels[2000:], "b.csv")
    found = count(batches(examples, 700))
    assert found.rows == 3000
    assert found.kinds == {"label": 3000}
    assert found.sources == Counted(names={"a.csv": 2000, "b.csv": 1000})
    assert found.labels.names == Counter(labels)
    assert found.input == lengths.measure([len(t) for t in texts])
    assert found.output == lengths.measure([len(n) for n in labels])
    assert found.blank == {"input": 0, "output": 0}
    assert found.sampled == SAMPLE_ROWS
    assert found == count(batches(examples, 64)), "how rows are batched changes nothing"


def test_two_shards_add_up_to_both() -> None:
    texts = [f"words of row {i}" for i in range(900)]
    examples = labelled(texts, [str(i % 3) for i in range(900)])
    parts = [count(batches(examples[:300])), count(batches(examples[300:]))]
    assert add_up(parts) == add_up([count(batches(examples))])
    assert add_up([]) == Statistics()


def test_distinct_counts_are_close_and_repeats_are_seen() -> None:
    for many in (100, 20_000):
        texts = [f"question {i}" for i in range(many)]
        twice = count(batches(labelled(texts + [t.upper() for t in texts], ["n"] * many * 2), 8192))
        assert abs(distinct(twice.prompts) - many) <= 0.07 * many, "case aside, each prompt came twice"
        assert distinct(twice.outputs) == 1


def test_metadata_names_common_values_and_keeps_rare_ones_to_itself() -> None:
    metas = [{"week": str(i % 4), "customer": f"customer {i}"} for i in range(80)]
    examples = [example(f"q {i}", "a", source="s", line=i, meta=meta) for i, meta in enumerate(metas)]
    found = count(batches(examples)).meta
    assert found["week"].names == {str(i): 20 for i in range(4)}
    assert found["customer"] == Counted(names={}, others=80)


def test_blank_texts_and_documents_without_a_question() -> None:
    rows = [Example(f"{i:032x}", f"{i:032x}", "", "Der Zug fährt heute leider nicht.", "{}", "s", i, "text") for i in range(9)]
    found = count(batches(rows))
    assert found.blank == {"input": 9, "output": 0}
    assert found.languages == {"de": 9}


def test_a_statistics_file_is_bounded_whatever_the_names_are() -> None:
    metas = [{f"field {i % 400} " + "é" * 90: "värde " * 30 + str(i % 7)} for i in range(4000)]
    names = ["ü" * 75 + str(i % 900) for i in range(4000)]
    examples = [
        Example(f"{i:032x}", f"{i:032x}", "text", name, canonical_json(meta), f"{name}.csv", i, "label")
        for i, (name, meta) in enumerate(zip(names, metas, strict=True))
    ]
    found = count(batches(examples))
    assert len(canonical_json(found.model_dump(mode="json")).encode()) < MOST_BYTES
    assert found.labels.rows == 4000
    assert found.labels.others > 0


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("How do I reset the password of my account?", "en"),
        ("Wie kann ich mein Passwort zurücksetzen?", "de"),
        ("¿Cómo puedo cambiar mi contraseña en esta página?", "es"),
        ("パスワードをリセットするにはどうすればよいですか", "ja"),
        ("1234 5678 90", "und"),
        ("", "und"),
    ],
)
def test_languages(text: str, code: str) -> None:
    assert language(text) == code


def test_scripts_count_letters_alone() -> None:
    assert scripts(["abc 12!", "Привет", "漢字かな", "ＡＢ"]) == {"Cyrillic": 6, "Han": 2, "Hiragana": 2, "Latin": 5}


def test_plain_text_of_every_kind() -> None:
    asked = messages_to_input([{"role": "user", "content": "why?"}])
    tools = canonical_json({"messages": [{"role": "user", "content": "why?"}], "tools": [{"name": "f"}]})
    answers = {
        ExampleKind.ANSWER: "so",
        ExampleKind.LABEL: "so",
        ExampleKind.TEXT: "so",
        ExampleKind.PREFERENCE: canonical_json({"chosen": [{"role": "assistant", "content": "so"}], "rejected": []}),
        ExampleKind.FEEDBACK: canonical_json({"answer": "so", "good": False}),
        ExampleKind.RANKING: canonical_json({"answers": ["so", "or so"]}),
    }
    assert {output_text(output, kind) for kind, output in answers.items()} == {"so"}
    assert input_text(asked, ExampleKind.ANSWER) == input_text(tools, ExampleKind.CALL) == "why?"
    assert input_text("[", ExampleKind.LABEL) == "["


def test_a_new_batch_leaves_old_statistics_alone_and_the_same_rows_make_the_same_files(tmp_path: Path) -> None:
    def made(folder: Path) -> dict[str, bytes]:
        first = grow(folder, None, [(f"q {i}", f"a {i}") for i in range(50)], source="one.jsonl")
        before = {path: path.stat() for path in (folder / "statistics").iterdir()}
        grow(folder, first, [(f"q {i}", f"a {i}") for i in range(50, 80)], source="two.jsonl")
        for path, status in before.items():
            assert (path.stat().st_ino, path.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    files = made(tmp_path / "a")
    assert files == made(tmp_path / "b")
    assert len([name for name in files if name.startswith("statistics/")]) == 2
    assert not [name for name in files if name.endswith(".tmp")]


def test_damaged_or_foreign_statistics_are_made_again_and_never_believed(tmp_path: Path) -> None:
    snapshot = grow(tmp_path, None, [(f"q {i}", f"a {i}") for i in range(50)], source="one.jsonl")
    good = read_description(tmp_path, snapshot)
    assert good[0].rows == 50
    path = next((tmp_path / "statistics").iterdir())
    whole = path.read_bytes()
    wrong = json.loads(whole) | {"rows": 7}
    path.unlink()
    path.write_text(canonical_json(wrong))
    (tmp_path / "statistics" / "stranger.json").write_text("{}")
    with pytest.raises(Tampered, match="not what was recorded"):
        read_description(tmp_path, snapshot)
    assert write_description(tmp_path, snapshot) == snapshot.described
    assert path.read_bytes() == whole
    assert [p.name for p in (tmp_path / "statistics").iterdir()] == [path.name]


def test_files_that_are_links_into_the_cache_are_not_written_through(tmp_path: Path) -> None:
    folder, cache = tmp_path / "snapshot", tmp_path / "cached"
    first = grow(folder, None, [("q", "a")], source="one.jsonl")
    cache.hardlink_to(folder / "README.md")
    before = cache.read_bytes()
    grow(folder, first, [("another", "b")], source="two.jsonl")
    assert cache.read_bytes() == before
    assert (folder / "README.md").read_bytes() != before


@pytest.mark.real
def test_real_data_is_described(real_data: Path, tmp_path: Path) -> None:
    import csv

    with (real_data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    snapshot = grow(tmp_path, None, rows, source="train.csv", task=Task.CLASSIFY, license="CC-BY-4.0")
    statistics, _ = read_description(tmp_path, snapshot)
    assert len(statistics.labels.names) == 77
    assert statistics.languages["en"] > 0.95 * statistics.rows
    assert statistics.letters.keys() == {"Latin"}
