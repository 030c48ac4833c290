"""Real files, as people really wrote them, each by its own params file: where every row ends is held here."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.great_expectations import GreatExpectations
from pipeline.curation.invisible import strip_unseen
from pipeline.curation.reasons import Code
from pipeline.curation.shards import read_examples, read_quarantine
from pipeline.domain.data import Example, QuarantinedRow, Snapshot, Task
from pipeline.params import ValidateParams
from pipeline.steps.validate import validate

pytestmark = pytest.mark.real

INGEST_ALL = Path(__file__).parents[2] / "examples" / "data" / "ingest_all.py"


class Taken:
    """One set, taken in by its params file."""

    def __init__(self, name: str, real_data: Path, work: Path) -> None:
        self.outcome = runpy.run_path(str(INGEST_ALL))["take_in"](name, real_data, work)
        self.folder = work / "snapshot"

    @property
    def snapshot(self) -> Snapshot:
        assert self.outcome.snapshot is not None, self.outcome.refusal
        return self.outcome.snapshot

    @property
    def examples(self) -> list[Example]:
        return list(read_examples(self.folder, self.snapshot))

    @property
    def quarantine(self) -> list[QuarantinedRow]:
        return list(read_quarantine(self.folder, self.snapshot.quarantine))


@pytest.fixture(scope="module")
def taken(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return cache(lambda name: Taken(name, real_data, tmp_path_factory.mktemp(name)))


COUNTS: dict[str, tuple[int, int, int, dict[str, int], dict[str, int]]] = {
    # set: files, rows read, duplicates, accepted by kind, quarantined by code
    "banking77": (1, 10_003, 0, {"label": 10_003}, {}),
    "bitext_support": (1, 3_000, 0, {"answer": 3_000}, {}),
    "clinc150": (1, 18_200, 1, {"label": 18_199}, {}),
    "formats_demo": (9, 2_830, 360, {"answer": 1_535, "feedback": 300, "preference": 305, "text": 330}, {}),
    "gsm8k": (1, 7_473, 0, {"answer": 7_473}, {}),
    "hh_rlhf": (1, 1_800, 0, {"preference": 1_792}, {"bad_chat": 5, "bad_pair": 3}),
    "json_cases": (
        148,
        146,
        2,
        {"text": 15},
        {
            "bad_json": 82,
            "wrong_type": 14,
            "bad_utf8": 10,
            "lone_surrogate": 6,
            "blank": 8,
            "nul": 3,
            "bad_number": 3,
            "columns": 2,
            "not_an_object": 1,
        },
    ),
    "mmlu_dev": (57, 285, 1, {"answer": 284}, {}),
    "mt_bench": (2, 160, 2, {"prompt": 158}, {}),
    "naughty_strings": (1, 515, 6, {"text": 502}, {"blank": 7}),
    "pii": (1, 100, 4, {"answer": 95}, {"bad_span": 1}),
    "restaurant8k": (9, 16_362, 8_347, {"answer": 8_015}, {}),
    "self_instruct": (1, 175, 0, {"answer": 175}, {}),
    "snips": (8, 4_100, 93, {"answer": 4_006}, {"bad_utf8": 1}),
}


def test_each_set_has_its_params_and_its_counts(real_data: Path) -> None:
    sets = {path.name for path in real_data.iterdir() if path.is_dir()}
    assert sets == {path.stem for path in INGEST_ALL.parent.glob("*.yaml")} == COUNTS.keys() | {"lfs_pointer_case"}


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_every_row_of_a_set_ends_where_it_should(taken: Any, name: str) -> None:
    one = taken(name)
    files, read, duplicate, kinds, codes = COUNTS[name]
    assert one.outcome.adds_up
    assert Counter(row.code for row in one.quarantine) == codes
    assert Counter(example.kind for example in one.examples) == kinds
    assert (len(one.snapshot.sources), one.outcome.count("read"), one.outcome.count("duplicate")) == (files, read, duplicate)
    assert read == sum(kinds.values()) + duplicate + sum(codes.values())


def test_git_lfs_pointers_are_refused_as_what_they_are(taken: Any) -> None:
    one = taken("lfs_pointer_case")
    assert one.outcome.snapshot is None
    assert one.outcome.adds_up
    assert "Git LFS pointer" in one.outcome.refusal


def test_banking77_is_valid_and_has_its_intents(taken: Any, tmp_path: Path) -> None:
    one = taken("banking77")
    assert len({e.output for e in one.examples}) == 77
    assert sum("\n" in e.input for e in one.examples) == 10
    report = validate(one.snapshot, ValidateParams(), folder=one.folder, out=tmp_path / "out", expectations=GreatExpectations())
    assert report.passed, report.failures


def test_carriage_returns_within_cells_come_through(taken: Any, real_data: Path) -> None:
    raw = (real_data / "bitext_support" / "support_3000.csv").read_bytes()
    examples = taken("bitext_support").examples
    assert sum(e.output.count("\r\n") for e in examples) > 1_000
    assert sum(e.output.count("\n") for e in examples) + len(examples) + 1 == raw.count(b"\n")
    assert set(json.loads(examples[0].meta)) == {"context", "role", "intent", "category", "tags"}


def test_rows_say_which_array_they_lay_in(taken: Any) -> None:
    sections = Counter(json.loads(e.meta)["section"] for e in taken("clinc150").examples)
    assert sections.keys() == {"train", "val", "oos_train", "oos_val"}
    assert sections["oos_train"] == sections["oos_val"] == 100
    intents = Counter(json.loads(e.meta)["section"] for e in taken("snips").examples)
    assert len(intents) == 7


def test_slots_become_json_of_what_the_text_says(taken: Any) -> None:
    for name in ("restaurant8k", "snips", "pii"):
        for example in taken(name).examples:
            text = json.loads(example.input)[-1]["content"]
            for value in json.loads(example.output).values():
                assert all(one in text for one in ([value] if isinstance(value, str) else value))


def test_bytes_that_are_not_utf8_are_quarantined_and_their_neighbours_are_not(taken: Any) -> None:
    [refused] = taken("snips").quarantine
    assert (Path(refused.source).name, refused.code, refused.raw_encoding) == ("train_PlayMusic_full.json", "bad_utf8", "base64")
    lines = {e.line for e in taken("snips").examples if e.source == refused.source}
    assert {refused.line - 1, refused.line + 1} <= lines


def test_tool_calls_are_kept_and_offered_tools_with_them(taken: Any) -> None:
    rows = [e for e in taken("formats_demo").examples if Path(e.source).name.startswith("glaive")]
    called = [json.loads(e.input) for e in rows if '"tool_calls"' in e.input]
    assert len(rows) == 265
    assert len(called) > 100
    for dialogue in called:
        offered = {tool["function"]["name"] for tool in dialogue["tools"]}
        calls = [call for turn in dialogue["messages"] for call in turn.get("tool_calls", ())]
        assert all(call["function"]["name"] in offered and isinstance(call["function"]["arguments"], dict) for call in calls)


def test_pairs_begin_alike_and_part_at_an_answer(taken: Any) -> None:
    for example in taken("hh_rlhf").examples:
        prompt, sides = json.loads(example.input), json.loads(example.output)
        assert prompt[-1]["role"] == "user"
        assert all(side[0]["role"] == "assistant" for side in sides.values())
        assert sides["chosen"] != sides["rejected"]


def test_every_naughty_string_is_what_it_was(taken: Any, real_data: Path) -> None:
    strings = json.loads((real_data / "naughty_strings" / "blns.json").read_text(encoding="utf-8"))
    one = taken("naughty_strings")
    assert {strip_unseen(strings[row.line - 1]).strip() for row in one.quarantine} == {""}
    same = sum(e.output == strings[e.line - 1] for e in one.examples)
    # The rules of `clean` take out what cannot be seen and compose what can; all else comes through as it is.
    altered = sum(one.snapshot.sources[0].altered.get(rule, 0) for rule in ("normalised", "stripped_controls"))
    assert same >= len(one.examples) - altered
    assert same > 480


# What a parser may do with either; here it is always one of refused for its bytes, for its escapes, for its numbers, or taken.
EITHER: dict[str, str] = {
    "i_number_huge_exp": "bad_number",
    "i_number_pos_double_huge_exp": "bad_number",
    "i_number_too_big_neg_int": "wrong_type",
    "i_number_too_big_pos_int": "wrong_type",
    "i_string_1st_surrogate_but_2nd_missing": "lone_surrogate",
    "i_string_1st_valid_surrogate_2nd_invalid": "lone_surrogate",
    "i_string_UTF-8_invalid_sequence": "bad_utf8",
    "i_string_incomplete_surrogate_and_escape_valid": "lone_surrogate",
    "i_string_invalid_lonely_surrogate": "lone_surrogate",
    "i_string_invalid_utf-8": "bad_utf8",
    "i_string_iso_latin_1": "bad_utf8",
    "i_string_lone_second_surrogate": "lone_surrogate",
    "i_string_overlong_sequence_6_bytes": "bad_utf8",
    "i_string_overlong_sequence_6_bytes_null": "bad_utf8",
    "i_string_truncated-utf-8": "bad_utf8",
    "i_string_utf16LE_no_BOM": "bad_utf8",
}
"""wrong_type: it was parsed, but is no text."""

NOT_JSON = {Code.BAD_JSON, Code.BAD_UTF8, Code.NUL, Code.BAD_NUMBER, Code.LONE_SURROGATE, Code.BOM, Code.BARE_CR}


def test_every_json_case_has_its_outcome(taken: Any, real_data: Path) -> None:
    one = taken("json_cases")
    codes = {Path(row.source).stem: row.code for row in one.quarantine}
    rows = {Path(source.name).stem: source.read for source in one.snapshot.sources}
    for path in sorted((real_data / "json_cases").glob("*.json")):
        code = codes.get(path.stem)
        if path.stem == "i_string_UTF-16LE_with_BOM":
            continue
        if path.stem in ("n_structure_no_data", "n_structure_UTF8_BOM_no_data"):
            assert (rows[path.stem], code) == (0, None)
        elif path.stem.startswith("n_"):
            assert code in NOT_JSON, path.stem
        elif path.stem.startswith("y_"):
            assert code not in NOT_JSON, path.stem
            assert rows[path.stem] == 1
        else:
            assert code == EITHER[path.stem], path.stem


def test_json_cases_are_refused_or_counted_as_lists_too(bench: Any, another_bench: Any, real_data: Path) -> None:
    # A file of UTF-16 is refused as a whole, and so is a document that is no list; of the others every row is in quarantine.
    refused = set()
    for path in sorted((real_data / "json_cases").glob("*.json")):
        one = another_bench()
        one.put("case.json", path.read_bytes())
        if one.try_to_take(task=Task.GENERATE) is not None:
            refused.add(path.stem)
        else:
            assert one.snapshot.rows == 0, path.name
    assert "i_string_UTF-16LE_with_BOM" in refused
    assert "y_structure_lonely_true" in refused
    assert "y_string_in_array" not in refused
