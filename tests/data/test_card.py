"""The dataset card: read by the libraries it is made for, true to the snapshot, and safe to show whatever names are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard
from made_snapshots import grow

from pipeline.domain.data import QuarantinedRow, Snapshot, Task


def refusal(line: int, code: str) -> QuarantinedRow:
    return QuarantinedRow(source="inbox/b.jsonl", line=line, code=code, reason="because", raw="{", raw_bytes=1)


@pytest.fixture
def described(tmp_path: Path) -> tuple[Path, Snapshot]:
    """Two batches of support questions, with a licence each, refused rows, and rows that a rule changed."""
    folder = tmp_path / "snapshot"
    english = [(f"How do I return the order number {i} that I bought last week?", "Send it back to us.") for i in range(60)]
    german = [(f"Wie kann ich die Bestellung Nummer {i} wieder zurückgeben?", "Schicken Sie sie zurück.") for i in range(40)]
    first = grow(folder, None, english, source="inbox/a.jsonl", license="CC-BY-4.0", altered={"normalised": 3})
    refused = [refusal(1, "bad_json"), refusal(2, "bad_json"), refusal(3, "blank")]
    second = grow(
        folder, first, german, source="inbox/b.jsonl", license="LicenseRef-Mine", refused=refused, altered={"redacted.email": 2}
    )
    return folder, second


def test_datasets_loads_the_folder_offline(
    described: tuple[Path, Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import load_dataset

    folder, snapshot = described
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"snapshot"}
    assert loaded["snapshot"].num_rows == snapshot.rows
    assert set(loaded["snapshot"].column_names) == {"id", "group", "input", "output", "meta", "source", "line", "kind"}


def test_the_hubs_own_reader_understands_the_front_matter(described: tuple[Path, Snapshot]) -> None:
    data = DatasetCard.load(described[0] / "README.md").data.to_dict()
    assert data["pretty_name"] == "made"
    assert data["license"] == ["cc-by-4.0", "other"]
    assert data["task_categories"] == ["text-generation"]
    assert data["size_categories"] == ["n<1K"]
    assert data["language"] == ["en", "de"]


def test_the_card_says_what_the_snapshot_holds(described: tuple[Path, Snapshot]) -> None:
    folder, _ = described
    text = (folder / "README.md").read_text()
    assert "| inbox/b.jsonl | 43 | 40 | 0 | 3 | 0 |" in text
    assert "| all | 103 | 100 | 0 | 3 | 0 |" in text
    assert "| CC-BY-4.0 | inbox | 1 | 60 |" in text
    assert "| LicenseRef-Mine | inbox | 1 | 40 |" in text
    assert "| bad\\_json | 2 | not JSON as RFC 8259 defines it |" in text
    assert "| normalised | 3 |" in text
    assert "| redacted.email | 2 |" in text
    assert "| de | 40 |" in text


def test_an_empty_snapshot_has_a_card_too(tmp_path: Path) -> None:
    snapshot = grow(tmp_path, None, [], source="empty.jsonl")
    assert snapshot.described[0].path == "README.md"
    text = (tmp_path / "README.md").read_text()
    assert "configs" not in text
    assert "0 examples" in text


def test_names_from_the_data_stay_text(tmp_path: Path) -> None:
    hostile = "---\n![x](http://evil.example/p.png) <script>|`$x`|\u202e"
    rows = [(f"text {i}", hostile) for i in range(10)]
    grow(tmp_path, None, rows, source=f"inbox/{hostile}", task=Task.CLASSIFY, license=hostile, meta=[{hostile: hostile}] * 10)
    text = (tmp_path / "README.md").read_text()
    body = text.split("\n---\n", 1)[1]
    assert "\n---\n" not in body
    assert "\u202e" not in text
    active = re.sub(r"\\.", "", body)
    assert not set("<>[]!") & set(active)
    rows = [line for line in active.splitlines() if "evil" in line]
    assert {line.count("|") for line in rows} == {3, 4, 5, 7}, "labels, metadata, licences and sources keep their columns"
    assert DatasetCard.load(tmp_path / "README.md").data.to_dict()["license"] == ["other"]


def test_many_files_and_labels_leave_the_card_short(tmp_path: Path) -> None:
    snapshot: Snapshot | None = None
    for batch in range(3):
        rows = [(f"text {batch} {i}", f"label {i}") for i in range(600)]
        snapshot = grow(tmp_path, snapshot, rows, source=f"inbox/{batch}.csv", task=Task.CLASSIFY)
    assert snapshot is not None
    assert (tmp_path / "README.md").stat().st_size < 16 << 10
