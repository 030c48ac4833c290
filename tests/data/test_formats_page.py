"""The page on formats says what is true: each sample row is told and read as its line says, each key and type exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.curation.formats import NEEDED, read_parts, tell_format
from pipeline.domain.data import Task
from pipeline.params import ModelParams, Params, Reading
from pipeline.params.axolotl import axolotl_entries

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
TABLE = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("|")]
FORMAT_LINES = [line for line in TABLE if len(line) == 4 and line[0] not in ("format", "---|---|---|---")]


def test_every_sample_row_is_what_its_line_says() -> None:
    seen, name = set(), ""
    for format, _, kind, sample in FORMAT_LINES:
        name = format.strip("`") or name
        seen.add(name)
        if not sample.startswith("`{"):
            continue
        row = json.loads(sample.strip("`"))
        task = Task.CLASSIFY if name == "classification" else Task.GENERATE
        assert tell_format(row, task) == name, sample
        assert read_parts(row, name, Reading()).kind in kind
    assert seen == NEEDED.keys()


def test_every_key_of_a_reading_is_on_the_page() -> None:
    for key in Reading.model_fields.keys() - {"group_by", "license", "sample_by"}:
        assert re.search(rf"\b{key}\b", PAGE), key


def test_every_axolotl_type_on_the_page_is_known() -> None:
    [types] = [line[0] for line in TABLE if line[0].startswith("alpaca, alpaca_chat")]
    for type in [*types.split(", "), "context_qa", "context_qa.load_v2", "jeopardy", "completion", "pretrain", "sharegpt"]:
        assert axolotl_entries([{"path": "x.json", "type": type}])
    for family in ("chat_template", "chatml", "llama3"):
        for form in ("default", "argilla_chat", "icr", "intel", "prompt_pairs", "ultra"):
            [entry] = axolotl_entries([{"path": "x.json", "type": f"{family}.{form}"}])
            assert entry["format"] == "preference"
        for form in ("argilla", "argilla_chat", "intel", "prompt_pairs", "ultra"):
            [entry] = axolotl_entries([{"path": "x.json", "type": f"{family}.{form}", "rl": "kto"}])
            assert entry["format"] == "feedback"


@pytest.mark.parametrize(
    ("task", "ingest", "place"),
    [
        ("classify", {"format": "preference"}, "ingest.format: preference rows have no label"),
        ("classify", {"sources": [{"path": "x", "format": "text"}]}, "ingest.sources.0.format: text rows have no label"),
        ("generate", {"sources": ["y", {"path": "x", "format": "classification"}]}, "ingest.sources.1.format: classification"),
    ],
)
def test_a_format_that_does_not_fit_the_task_is_an_error_of_params(task: str, ingest: dict[str, object], place: str) -> None:
    metrics = {"metrics": ["accuracy"]} if task == "classify" else {}
    with pytest.raises(ValidationError, match=place):
        Params.model_validate(
            {"model": ModelParams(name="m", task=task, base="./b"), "ingest": ingest, "evaluate": metrics}  # type: ignore[arg-type]
        )
