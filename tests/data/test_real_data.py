"""Real files, as people really wrote them, through ingest and validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.great_expectations import GreatExpectations
from pipeline.domain.data import Task
from pipeline.errors import BadInput
from pipeline.params import ValidateParams
from pipeline.steps.validate import validate

pytestmark = pytest.mark.real


def test_banking77(bench: Any, real_data: Path) -> None:
    snapshot = bench.take(
        task=Task.CLASSIFY, sources=[real_data / "banking77" / "train.csv"], columns={"text": "text", "label": "category"}
    )
    source = snapshot.sources[0]
    assert source.read == 10_003
    assert source.quarantined == 0
    assert len({e.output for e in bench.examples}) == 77
    assert sum("\n" in e.input for e in bench.examples) == 10
    report = validate(snapshot, ValidateParams(), folder=bench.folder, out=bench.root / "out", expectations=GreatExpectations())
    assert report.passed, report.failures


def test_bitext_support(bench: Any, real_data: Path) -> None:
    path = real_data / "bitext_support" / "support_3000.csv"
    snapshot = bench.take(sources=[path], columns={"prompt": "instruction", "completion": "response"})
    assert (snapshot.sources[0].read, snapshot.sources[0].quarantined) == (3000, 0)
    assert set(json.loads(bench.examples[0].meta)) == {"context", "role", "intent", "category", "tags"}


def test_gsm8k(bench: Any, real_data: Path) -> None:
    path = real_data / "gsm8k" / "train.jsonl"
    snapshot = bench.take(sources=[path], columns={"prompt": "question", "completion": "answer"})
    assert (snapshot.sources[0].read, snapshot.sources[0].quarantined) == (7473, 0)
    assert bench.examples[0].output.endswith("#### 72")


def test_alpaca_and_self_instruct_and_foreign_chat(bench: Any, real_data: Path) -> None:
    demo = real_data / "formats_demo"
    assert bench.take(sources=[demo / "alpaca_en_demo.json", demo / "identity.json"]).quarantined == 0
    with pytest.raises(BadInput, match="conversations"):
        bench.take(sources=[demo / "glaive_toolcall_en_demo.json"])
    # Messages whose content comes in parts are valid chat, but cannot be trained on yet.
    before = bench.snapshot.rows
    snapshot = bench.take(sources=[demo / "v1_sft_demo.jsonl"])
    assert snapshot.rows == before
    assert set(bench.codes) == {"unsupported"}


def test_bytes_that_are_not_utf8_are_refused_where_they_are(bench: Any, real_data: Path) -> None:
    with pytest.raises(BadInput, match="no list of rows"):
        bench.take(sources=[real_data / "snips" / "train_PlayMusic_full.json"])


def test_lfs_pointers_are_called_what_they_are(bench: Any, real_data: Path) -> None:
    with pytest.raises(BadInput, match="Git LFS pointer"):
        bench.take(sources=[real_data / "lfs_pointer_case"])


def test_every_naughty_string_comes_through_or_is_quarantined(bench: Any, real_data: Path) -> None:
    strings = json.loads((real_data / "naughty_strings" / "blns.json").read_text(encoding="utf-8"))
    for ascii_only in (True, False):
        lines = [json.dumps({"prompt": f"{i}", "completion": s}, ensure_ascii=ascii_only) for i, s in enumerate(strings)]
        bench.put(f"{ascii_only}.jsonl", "".join(line + "\n" for line in lines))
    snapshot = bench.take()
    by_line = {e.line: e.output for e in bench.examples}
    refused = {row.line for row in bench.quarantine}
    for number, text in enumerate(strings, start=1):
        assert by_line[number] == text if number in by_line else not text.strip()
        assert (number in by_line) != (number in refused)
    assert snapshot.sources[0].duplicate + snapshot.sources[1].duplicate == len(by_line)


def test_every_json_case_is_counted_or_refused(bench: Any, another_bench: Any, real_data: Path) -> None:
    for path in sorted((real_data / "json_cases").glob("*.json")):
        for name in ("case.json", "case.jsonl"):
            one = another_bench()
            one.put(name, path.read_bytes())
            if one.try_to_take() is None:
                assert one.snapshot.rows == 0, path.name
